"""Frozen weights that come to the device together and leave it together.

A group is one stretch of memory on the device and one at home, in main memory or in a file; its tensors are views of
the first. Only the stretch is emptied and filled: the tensors stay the same objects, so what autograd has saved of them
is there again for the backward pass, and nothing is ever copied home.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ltxtrain.errors import MachineError
from ltxtrain.files import room_at, system_error
from ltxtrain.units import format_bytes

ALIGNMENT = 256  # bytes, that of the allocator's own stretches


@dataclass(frozen=True)
class Home:
    """``keep`` takes a stretch of bytes in main memory and returns it as it is to be kept; ``end`` undoes that."""

    keep: Callable[[torch.Tensor], torch.Tensor]
    end: Callable[[torch.Tensor], None]


@dataclass(frozen=True)
class _Place:
    """Where a tensor lies in its group's stretch: a view of ``shape`` and ``stride``, from the byte ``offset``."""

    offset: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    def view(self, stretch: torch.Tensor) -> torch.Tensor:
        values = stretch[self.offset : self.offset + self.shape.numel() * self.dtype.itemsize].view(self.dtype)
        return values.as_strided(self.shape, self.stride)


class Group:
    """``tensors`` are moved home at once; from then on their values are there between ``fetch`` and ``release`` only.

    Nothing may read them at other times, not even to print them.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], device: torch.device, home: Home) -> None:
        places, self.size = _layout(tensors)
        self._there = torch.empty(self.size, dtype=torch.uint8, device=device)
        self._storage = self._there.untyped_storage()
        stretch = _whole_pages(self.size)
        for tensor, place in zip(tensors, places, strict=True):
            place.view(stretch).copy_(tensor)
            tensor.data = place.view(self._there)  # one by one: what it held before is free now
        self._storage.resize_(0)
        self.home = home.keep(stretch)
        # Given the stretch as well, so that it is still there when its keeping ends; the driver may not be, at exit.
        weakref.finalize(self, home.end, self.home).atexit = False
        self._copied: torch.cuda.Event | None = None

    @property
    def here(self) -> bool:
        return self._storage.nbytes() > 0

    def fetch(self, stream: torch.cuda.Stream | None = None) -> None:
        """Copy the weights to the device, on ``stream`` if one is given: then ``wait`` before they are used.

        The memory is that of the computing stream, in whose order it was given back before; so the copy has to wait for
        what that stream was given so far.
        """
        if self.here:
            return
        self._storage.resize_(self.size)
        if stream is None:
            self._there.copy_(self.home, non_blocking=True)
            return
        stream.wait_stream(torch.cuda.current_stream(self._there.device))
        with torch.cuda.stream(stream):
            self._there.copy_(self.home, non_blocking=True)
            self._copied = stream.record_event()

    def wait(self) -> None:
        """Let what the device is given from now on find the weights in place."""
        if self._copied is not None:
            torch.cuda.current_stream(self._there.device).wait_event(self._copied)
            self._copied = None

    def release(self) -> None:
        """Give the device's memory back, behind what the device was given so far."""
        self.wait()
        self._storage.resize_(0)


def _layout(tensors: Sequence[torch.Tensor]) -> tuple[list[_Place], int]:
    """The place of each tensor, one behind the other, and the bytes of all."""
    places, end = [], 0
    for tensor in tensors:
        places.append(_Place(end, tensor.shape, tensor.stride(), tensor.dtype))
        end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    return places, end


def _whole_pages(size: int) -> torch.Tensor:
    """``size`` bytes of main memory on pages of their own: page-locking two stretches of one page would fail."""
    with_room = torch.empty(size + 2 * mmap.PAGESIZE, dtype=torch.uint8)
    start = -with_room.data_ptr() % mmap.PAGESIZE
    return with_room[start : start + size]


def movable(tensor: torch.Tensor) -> bool:
    """Whether a group can hold it: frozen, an ordinary tensor, without gaps in memory."""
    ordinary = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not ordinary or tensor.requires_grad or not tensor.nbytes:
        return False
    extent = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return extent == tensor.numel()


def main_memory(device: torch.device) -> Home:
    """Page-locked where ``device`` is a CUDA device: it reads such memory by itself."""
    return Home(_locked, _unlocked) if device.type == "cuda" else Home(lambda stretch: stretch, lambda stretch: None)


def _locked(stretch: torch.Tensor) -> torch.Tensor:
    # Where it lies: torch's own way would round each stretch up to a power of two.
    if int(torch.cuda.cudart().cudaHostRegister(stretch.data_ptr(), stretch.nbytes, 0)):
        raise MachineError(
            f"the system does not lock {format_bytes(stretch.nbytes)} of main memory for offloaded weights",
            hint="raise its limit with ulimit -l unlimited, or give group_offload_to_disk_path",
        )
    return stretch


def _unlocked(stretch: torch.Tensor) -> None:
    torch.cuda.synchronize()
    torch.cuda.cudart().cudaHostUnregister(stretch.data_ptr())


def disk(parent: Path, need_bytes: int) -> Home:
    """Files in ``parent``, mapped into memory. They lose their names at once, so that no other run can ever read them,
    and the system itself gives their room back when this one ends, however it ends.

    Keeping raises ``MachineError`` where the folder cannot be written, or has no room for ``need_bytes`` in all.
    """

    def keep(stretch: torch.Tensor) -> torch.Tensor:
        try:
            with room_at(parent, need_bytes, "what is offloaded"):
                return _mapped(parent, stretch)
        except OSError as error:
            raise MachineError(
                f"{parent} cannot be written ({error.strerror}, from group_offload_to_disk_path)",
                hint="name another folder in group_offload_to_disk_path",
            ) from error

    return Home(keep, lambda stretch: None)


def _mapped(parent: Path, stretch: torch.Tensor) -> torch.Tensor:
    parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="offload-", dir=parent))
    file = folder / "weights.safetensors"
    try:
        save_file({"weights": stretch}, file)
        with safe_open(file, "pt") as mapped:
            return mapped.get_tensor("weights")
    except SafetensorError as error:
        raise system_error(error) or error from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
