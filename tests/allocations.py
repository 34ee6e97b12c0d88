"""How many bytes of tensors live at a time, counted from every operation that torch is asked to do.

What stands in the tensors is counted, each storage once, from when it is first seen to when nothing holds it any more:
what an operation takes as its own workspace is not seen. On the meta device, or under ``FakeTensorMode``, the sizes are
those of real tensors, so a model of any size can be counted.
"""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Allocations(TorchDispatchMode):
    """Counts the storages that operations inside make, beside those of ``held``: modules, tensors, or any tree of them.

    >>> with Allocations(model) as counted:
    ...     model(inputs).sum().backward()
    >>> counted.peak, counted.live

    ``device`` counts one kind of device alone ("cpu", "meta", "cuda"). Tensors that wrap others (quantised weights)
    are counted by what they wrap, and outputs of the backward pass as well as those of the forward pass.
    """

    def __init__(self, *held: object, device: str | None = None) -> None:
        super().__init__()
        self.device = device
        self.live = 0
        self.peak = 0
        self._known: dict[int, Any] = {}
        self._sizes: dict[int, int] = {}
        self.watch(*held)

    def watch(self, *held: object) -> None:
        """Count from now on what ``held`` holds: what was made before, or where no operation of torch's is seen."""
        for storage in storages(*held):
            self._add(storage)

    def reset_peak(self) -> int:
        """Forget the peak and begin with what lives now, which is returned."""
        self.peak = self.live
        return self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(_wraps(each) for each in types):
            return NotImplemented  # the wrapper does the work, and what it asks for is seen here
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.watch(leaf)
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        size = storage.nbytes()
        if self.device is not None and storage.device.type != self.device:
            return
        if key in self._known:
            if self._known[key]() is storage:
                self._grow(key, size)
                return
            self._drop(key)
        self._known[key] = weakref.ref(storage, lambda _, key=key: self._drop(key))
        self._sizes[key] = 0
        self._grow(key, size)

    def _grow(self, key: int, size: int) -> None:
        self.live += size - self._sizes[key]
        self._sizes[key] = size
        self.peak = max(self.peak, self.live)

    def _drop(self, key: int) -> None:
        if self._known.pop(key, None) is not None:
            self.live -= self._sizes.pop(key)


def held_bytes(*held: object, device: str | None = None) -> int:
    """Bytes of all storages that ``held`` holds, each once."""
    kept = {storage._cdata: storage for storage in storages(*held)}
    return sum(each.nbytes() for each in kept.values() if device in (None, each.device.type))


def held_by_device(*held: object) -> dict[str, int]:
    """``held_bytes`` for each kind of device: ``{"cpu": 1024}``."""
    kept = {storage._cdata: storage for storage in storages(*held)}
    sizes: Counter[str] = Counter()
    for each in kept.values():
        sizes[each.device.type] += each.nbytes()
    return dict(sizes)


def storages(*held: object) -> Iterator[torch.UntypedStorage]:
    """Every storage that ``held`` holds: parameters, buffers and gradients of modules, states of optimisers, tensors
    of any tree, and what tensors that wrap others hold. The same one may come several times."""
    for each in held:
        if isinstance(each, torch.nn.Module):
            for tensor in (*each.parameters(), *each.buffers()):
                yield from _of_tensor(tensor)
        elif isinstance(each, torch.optim.Optimizer):
            yield from storages(*each.state.values())
        elif isinstance(each, torch.Tensor):
            yield from _of_tensor(each)
        elif isinstance(each, Mapping):
            yield from storages(*each.values())
        elif isinstance(each, (list, tuple, set, frozenset)):
            yield from storages(*each)


def _of_tensor(tensor: torch.Tensor) -> Iterator[torch.UntypedStorage]:
    if _wraps(type(tensor)):
        names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
        for name in names:
            yield from _of_tensor(getattr(tensor, name))
    else:
        with contextlib.suppress(RuntimeError, NotImplementedError):  # a tensor of another layout has no storage
            yield tensor.untyped_storage()
    if tensor.is_leaf and tensor.grad is not None:
        yield from _of_tensor(tensor.grad)
    state = getattr(tensor, "quant_state", None)  # of bitsandbytes: scales that are attributes of the weight
    if state is not None:
        yield from storages(*_tensors_of_state(state))


def _tensors_of_state(state: Any) -> list[torch.Tensor]:
    own = [value for value in vars(state).values() if isinstance(value, torch.Tensor)]
    nested = getattr(state, "state2", None)
    return own + (_tensors_of_state(nested) if nested is not None else [])


def _wraps(kind: type) -> bool:
    """Whether tensors of ``kind`` hold other tensors instead of a storage of their own."""
    return hasattr(kind, "__tensor_flatten__") and kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
