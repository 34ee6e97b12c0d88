"""Device, dtypes and memory. accelerate decides where things run."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState

from ltxtrain.errors import MachineError, OutOfMemoryError

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32, "no": torch.float32}
OUT_OF_MEMORY_WORDS = ("can't allocate memory", "MPS backend out of memory")


def find_device(threads: int | None = None) -> torch.device:
    """The accelerator of this process. ``threads`` sets how many it computes with on the CPU; None leaves that.

    Raises ``MachineError`` when it was started as one of several.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    state = PartialState()
    if state.num_processes > 1:
        raise MachineError(
            f"training with {state.num_processes} processes is not built yet",
            hint="start one process: ltxtrain train ...",
        )
    return state.device  # type: ignore[no-any-return]


def check_dtype(device: torch.device, mixed_precision: str, vae_dtype: str) -> torch.dtype:
    """The dtype of the frozen base model. Raises ``MachineError`` for bf16 on a GPU that does not have it.

    ``vae_dtype`` is the other option that may ask for bf16; the error names all that have to be changed.
    """
    asked = {"--mixed-precision no": mixed_precision, "--vae-dtype fp32": vae_dtype}
    changes = [change for change, named in asked.items() if named == "bf16"]
    if changes and device.type == "cuda" and not torch.cuda.is_bf16_supported(False):
        name = torch.cuda.get_device_name(device)
        raise MachineError(f"{name} has no bfloat16", hint=f"give {' '.join(changes)}")
    return DTYPES[mixed_precision]


def peak_memory(device: torch.device) -> int:
    """Peak bytes so far: allocated on the GPU, or resident in this process on the CPU. On Apple's, bytes held now."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if device.type == "mps":
        return int(torch.mps.driver_allocated_memory())
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def release_memory(device: torch.device) -> None:
    """Give back what a finished phase held. Call it after the last reference is gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def memory_advice(doing: str, advice: str) -> Iterator[None]:
    """Turn an out-of-memory of the device, or of the host, into one line that says what to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(f"the device ran out of memory while {doing}", hint=advice) from error
    except RuntimeError as error:  # torch tells an accelerator's shortage by type, the others' by words alone
        if not any(words in str(error) for words in OUT_OF_MEMORY_WORDS):
            raise
        raise OutOfMemoryError(f"the machine ran out of memory while {doing}", hint=advice) from error
