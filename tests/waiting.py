"""What would make the program wait for a device, counted on a CPU: reads of its values, and copies to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their result is a value, or has a shape that depends on values.
READING = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "nonzero",
    "masked_select",
    "unique_dim",
    "_unique2",
    "bincount",
}
CHOOSING = {"index", "index_put", "index_put_", "_index_put_impl_"}  # by a mask, its true values are counted first
MASKS = (torch.bool, torch.uint8)


class Waiting(TorchDispatchMode):
    """Takes ``tensors`` for those of a device, and so all that is computed with them, and all that is made by naming a
    device. ``found`` names what would wait.

    On a CPU nothing is copied to the device, so a tensor that is made of Python's numbers and then computed with
    together with the device's counts as a copy that is waited for; ``torch.tensor(..., device="cuda")`` is one.
    """

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.found: list[str] = []
        self._device: dict[int, Any] = {}  # the storages, so that no other one gets their place
        self._made: dict[int, Any] = {}
        self.know(tensors)

    def know(self, tensors: Iterable[torch.Tensor]) -> None:
        """These are on the device."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            self._device[storage._cdata] = storage
            self._made.pop(storage._cdata, None)

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        name = function._schema.name.removeprefix("aten::")
        tensors = _tensors((given, named))
        theirs = [tensor for tensor in tensors if tensor.untyped_storage()._cdata in self._device]
        made = [tensor for tensor in tensors if tensor.untyped_storage()._cdata in self._made]
        if theirs:
            masks = any(tensor.dtype in MASKS for tensor in _tensors(given[1:2])) if name in CHOOSING else False
            if name in READING or masks:
                self.found.append(name)
            if any(tensor.dim() for tensor in made):  # a single number goes along with the kernel
                self.found.append(f"copy to {name}")
        result = function(*given, **(named or {}))
        written = [
            argument
            for argument, value in zip(given, function._schema.arguments, strict=False)
            if value.alias_info is not None and value.alias_info.is_write
        ]
        if theirs or (named or {}).get("device") is not None:
            self.know(_tensors((result, written)))
        elif made or name == "lift_fresh":
            storages = [tensor.untyped_storage() for tensor in _tensors(result)]
            self._made |= {storage._cdata: storage for storage in storages if storage._cdata not in self._device}
        return result


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]
