"""Memory of the host: page-locked for a device to read and write, and back to the system once it is freed."""

from __future__ import annotations

import ctypes

import torch


def room_like(tensor: torch.Tensor, *, locked: bool) -> torch.Tensor:
    """Main memory for a copy of ``tensor``, its values undefined.

    Raises ``MemoryError`` where there is none to lock: CUDA itself would say that it is out of memory.
    """
    try:
        return torch.empty_like(tensor, device="cpu", pin_memory=locked)
    except RuntimeError as error:
        if not locked or "out of memory" not in str(error):
            raise
        raise MemoryError("main memory cannot be page-locked") from error


def give_back_freed() -> None:
    """Ask the C library for what it keeps of freed memory. Where it cannot be asked (only glibc can), nothing is done.

    glibc keeps freed pieces of up to 32 MiB for later. Loading frees a piece of another size for each weight that is
    cast or quantised: left alone, that adds up to half of the model's size.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
