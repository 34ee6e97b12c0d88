"""Memory of the host that was freed, back to the system."""

from __future__ import annotations

import ctypes


def give_back_freed() -> None:
    """Ask the C library for what it keeps of freed memory. Where it cannot be asked (only glibc can), nothing is done.

    glibc keeps freed pieces of up to 32 MiB for later. Loading frees a piece of another size for each weight that is
    cast or quantised: left alone, that adds up to half of the model's size.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
