"""Where a model's weights lie while it is used: all on the device, or most of them at home and in for their turn.

Only frozen weights ever leave the device. What is trained stays, and so do gradients and the optimiser's state; so
training is the same bit for bit. Weights go from home to the device and never back.

    group offload, block_level     a few transformer blocks at a time
    group offload, leaf_level      one layer at a time
    blocks to swap                 the last blocks, one at a time; the others stay
    model offload                  the model as a whole

A group is fetched when one of its modules is called, and when gradients reach a module's output: before its backward
pass, whether its activations were kept or are recomputed. It leaves when another one is entered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLLTXVideo
from torch import nn

from ltxtrain.config.compute import MemoryConfig
from ltxtrain.errors import MachineError, ModelError
from ltxtrain.model.offload_group import Group, Home, disk, main_memory, movable

Part = Literal["transformer", "text_encoder", "vae"]
LEAF_BYTES = 8192  # what is smaller, norms above all, would cost more calls than it saves memory
Modules = Sequence[nn.Module]


def loading_device(part: Part, device: torch.device, memory: MemoryConfig) -> torch.device:
    """Where to load the part: into main memory, if it is to stay at home, else straight onto ``device``."""
    return torch.device("cpu") if _way(part, memory) != "whole" else device


def place_transformer(transformer: nn.Module, device: torch.device, memory: MemoryConfig) -> Offload:
    """Bring the transformer to ``device`` as ``memory`` says. To be called after the adapter is attached.

    Raises ``MachineError`` where the device cannot take turns or its home cannot be made, and ``ModelError`` for more
    blocks to swap than there are.
    """
    return _place("transformer", transformer, device, memory)


def place_text_encoder(encoder: nn.Module, device: torch.device, memory: MemoryConfig) -> Offload:
    return _place("text_encoder", encoder.requires_grad_(False), device, memory)


def place_vae(vae: nn.Module, device: torch.device, memory: MemoryConfig) -> Offload:
    return _place("vae", vae.requires_grad_(False), device, memory)


@contextmanager
def taking_turns(*offloads: Offload) -> Iterator[None]:
    """Inside, a model whose weights have a home leaves the device when another one of these is used.

    So the transformer is away while the VAE decodes. Afterwards only the first is used on.
    """
    for offload in offloads:
        offload.others = [other for other in offloads if other is not offload]
    try:
        yield
    finally:
        for offload in offloads:
            offload.others = []
        for offload in offloads[1:]:
            offload.release()


@dataclass
class Offload:
    """The groups of one model, in the order of its modules; none for a model that lies on the device as a whole."""

    groups: Sequence[Group] = ()
    stream: torch.cuda.Stream | None = None
    ahead: bool = False
    others: list[Offload] = field(default_factory=list)
    order: Order = field(default_factory=lambda: Order())
    _here: set[int] = field(default_factory=set)

    @property
    def resident_bytes(self) -> int:
        """Of what has a home: what is on the device now."""
        return sum(group.size for group in self.groups if group.here)

    def enter(self, number: int) -> None:
        """Have that group on the device, let go of the others, and begin to fetch the one that comes next."""
        for other in self.others:
            other.release()
        coming = self.order.after(number) if self.ahead else None
        for gone in self._here - {number, coming}:
            self.groups[gone].release()
        self._here = {number} if coming is None else {number, coming}
        self.groups[number].fetch()
        self.groups[number].wait()
        if coming is not None:
            self.groups[coming].fetch(self.stream)

    def release(self) -> None:
        """Let go of all groups. They come back by themselves."""
        for number in self._here:
            self.groups[number].release()
        self._here = set()


class Order:
    """In which order groups are used. It is the same in each pass of its kind, with gradients or without, so what comes
    next is read off the pass before, whatever is recomputed and in which order."""

    def __init__(self) -> None:
        self._known: dict[object, list[int]] = {}
        self._now: list[int] = []
        self._kind: object = None

    def begin(self, model: nn.Module) -> None:
        """A forward pass of the whole model begins, or of the encoder or the decoder of one that has both."""
        self._known[self._kind] = self._now
        self._now, self._kind = [], (id(model), torch.is_grad_enabled())

    def after(self, number: int) -> int | None:
        """Note that ``number`` is used now, and tell what was used next the last time, if it went like this."""
        if self._now[-1:] != [number]:
            self._now.append(number)
        known, at = self._known.get(self._kind, []), len(self._now)
        return known[at] if known[at - 1 : at] == [number] and at < len(known) else None


def _way(part: Part, memory: MemoryConfig) -> str:
    """How a part is placed: ``whole``, ``model``, ``swap``, ``block_level`` or ``leaf_level``."""
    if memory.enable_model_cpu_offload and part != "text_encoder":  # which is alone while it is used, anyway
        return "model"
    if part == "transformer" and memory.musubi_blocks_to_swap:
        return "swap"
    asked = {"text_encoder": memory.group_offload_text_encoder, "vae": memory.group_offload_vae}
    return memory.group_offload_type if memory.enable_group_offload and asked.get(part, True) else "whole"


def _place(part: Part, model: nn.Module, device: torch.device, memory: MemoryConfig) -> Offload:
    way = _way(part, memory)
    offload = Offload()
    if way != "whole":
        if device.type == "mps":
            raise MachineError(
                "weights cannot be offloaded on this device: it has no memory but the main memory",
                hint="leave out enable_group_offload, enable_model_cpu_offload and musubi_blocks_to_swap",
            )
        parts = _GROUPED[way](part, model, memory)
        path = memory.group_offload_to_disk_path if way.endswith("_level") else None
        home = disk(path, _bytes(parts)) if path else main_memory(device)
        # A copy from a file's pages is none that a stream could do beside: the program is held until they are read.
        streams = way.endswith("_level") and path is None and _is_cuda(device)
        ahead = streams and memory.group_offload_use_stream
        offload = offload_groups(model, parts, device, home, ahead=ahead)
    model.to(device)
    return offload


def _is_cuda(device: torch.device) -> bool:
    """An NVIDIA GPU: PyTorch gives AMD's the same name. Elsewhere the plan tells that no stream is used."""
    return device.type == "cuda" and torch.version.hip is None


def offload_groups(
    model: nn.Module, parts: Sequence[Modules], device: torch.device, home: Home, *, ahead: bool
) -> Offload:
    """Send the frozen weights of ``parts`` home, each part as one group, and have them come when they are used.

    With ``ahead``, the group that comes next is fetched while one computes: two are on the device at a time. What
    belongs to two parts, and what no group can hold, stays where it is, to be moved with the rest of the model.
    """
    owned = [_movable_tensors(part) for part in parts]
    owners = Counter(key for tensors in owned for key in tensors)
    groups: list[Group] = []
    stream = torch.cuda.Stream(device) if ahead and device.type == "cuda" else None
    offload = Offload(groups, stream, ahead)
    for part, tensors in zip(parts, owned, strict=True):
        single = [tensor for key, tensor in tensors.items() if owners[key] == 1]
        if single:
            for module in part:
                _enter_with(module, _entering(offload, len(groups)))
            groups.append(Group(single, device, home))
    for called in _called(model):
        called.register_forward_pre_hook(lambda module, _: offload.order.begin(module), prepend=True)
    return offload


def _entering(offload: Offload, number: int) -> Callable[[], None]:
    return lambda: offload.enter(number)


def _enter_with(module: nn.Module, enter: Callable[[], None]) -> None:
    """Call ``enter`` before the module's forward pass, and before the backward pass of what it returned."""

    def before(*_: object) -> None:
        enter()

    def after(_: nn.Module, given: Any, returned: Any) -> None:
        for tensor in returned if isinstance(returned, tuple) else (returned,):
            if isinstance(tensor, torch.Tensor) and tensor.requires_grad:
                tensor.register_hook(lambda grad: enter())

    module.register_forward_pre_hook(before)
    module.register_forward_hook(after)


def _movable_tensors(part: Modules) -> dict[int, torch.Tensor]:
    """What a group can hold of the modules: parameters and buffers, each once."""
    found = (tensor for module in part for tensor in (*module.parameters(), *module.buffers()))
    return {id(tensor): tensor for tensor in found if movable(tensor)}


def _bytes(parts: Sequence[Modules]) -> int:
    return sum(tensor.nbytes for part in parts for tensor in _movable_tensors(part).values())


def _blocks(part: Part, model: nn.Module) -> list[nn.Module]:
    """What a model computes with, one after the other."""
    if part == "transformer":
        return list(model.transformer_blocks)
    if part == "text_encoder":
        return list(model.encoder.block)
    encoder, decoder = model.encoder, model.decoder  # one of them where only that half is loaded
    first = [*encoder.down_blocks, encoder.mid_block] if encoder is not None else []
    return first + ([decoder.mid_block, *decoder.up_blocks] if decoder is not None else [])


def _by_block(part: Part, model: nn.Module, memory: MemoryConfig) -> list[Modules]:
    blocks, count = _blocks(part, model), memory.group_offload_blocks_per_group
    return [blocks[start : start + count] for start in range(0, len(blocks), count)]


def _by_leaf(part: Part, model: nn.Module, memory: MemoryConfig) -> list[Modules]:
    leaves = [module for module in model.modules() if not list(module.children())]
    return [[leaf] for leaf in leaves if _bytes([[leaf]]) >= LEAF_BYTES]


def _last_blocks(part: Part, model: nn.Module, memory: MemoryConfig) -> list[Modules]:
    blocks, count = _blocks(part, model), memory.musubi_blocks_to_swap
    if count > len(blocks):
        raise ModelError(
            f"musubi_blocks_to_swap is {count}, and the transformer has {len(blocks)} blocks",
            hint=f"give {len(blocks)} at most",
        )
    return [[block] for block in blocks[-count:]]


def _as_a_whole(part: Part, model: nn.Module, memory: MemoryConfig) -> list[Modules]:
    return [[called] for called in _called(model)]


def _called(model: nn.Module) -> list[nn.Module]:
    """What a pass begins with: the VAE is never called itself."""
    if isinstance(model, AutoencoderKLLTXVideo):
        return [half for half in (model.encoder, model.decoder) if half is not None]
    return [model]


_GROUPED: Mapping[str, Callable[[Part, nn.Module, MemoryConfig], list[Modules]]] = {
    "block_level": _by_block,
    "leaf_level": _by_leaf,
    "swap": _last_blocks,
    "model": _as_a_whole,
}
