"""The device and its dtypes. accelerate decides where things run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import PartialState

from ltxtrain.errors import MachineError, OutOfMemoryError

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,  # what is not fp8, which is all but the products of the base's linear layers
    "fp32": torch.float32,
    "no": torch.float32,
}
# Not an option of a run: bench/gpu_check.py makes a large card as small as the one that a preset is for.
CAP = "LTX_DEVICE_MEMORY_GB"
# What is said where the type of the error does not tell: of main memory, and of the device's. In small letters.
MACHINE_WORDS = ("can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc")
DEVICE_WORDS = ("out of memory", "alloc_failed", "allocation_failed", "allocfailed", "status_memory_error")


def find_device(threads: int | None = None) -> torch.device:
    """The accelerator of this process. ``threads`` sets how many it computes with on the CPU; None leaves that.

    A CUDA device comes with its number, which some of torch's functions ask for, and is the one that is used where none
    is named. Raises ``MachineError`` when the process was started as one of several, and ``OutOfMemoryError`` when
    other programs have left nothing of the device.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    state = PartialState()
    if state.num_processes > 1:
        raise MachineError(
            f"training with {state.num_processes} processes is not built yet",
            hint="start one process: ltxtrain train ...",
        )
    device: torch.device = state.device
    with memory_advice("opening it", "free the device of other programs"):
        if device.type == "cuda":
            number = torch.cuda.current_device() if device.index is None else device.index
            device = torch.device("cuda", number)
            torch.cuda.set_device(device)
        cap_memory(device, os.environ.get(CAP, ""))
    return device


def cap_memory(device: torch.device, gigabytes: str) -> None:
    """Let this process take no more of a CUDA device than ``gigabytes`` of 1024^3 bytes, its context included.

    Empty means no cap. What is in use beside torch's own allocations counts as the context, so it belongs on a device
    that nothing else uses. Raises ``MachineError`` for what is no number, or leaves nothing.
    """
    if not gigabytes or device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    try:
        left = float(gigabytes) * 1024**3 - (total - free - torch.cuda.memory_reserved(device))
    except ValueError:
        left = 0.0
    if not left > 0:
        raise MachineError(f"{CAP} {gigabytes!r} leaves no memory on this device", hint=f"unset {CAP}")
    torch.cuda.set_per_process_memory_fraction(min(1.0, left / total), device)


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


def use_in_thread(device: torch.device) -> None:
    """To be called in each thread but the main one: which CUDA device is the current one is each thread's own."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def fetched(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of a small tensor in main memory. Nobody waits for a CUDA device: it is complete at the next ``Moment``.

    Raises ``MemoryError`` as ``page_locked`` does.
    """
    if tensor.device.type != "cuda":
        return tensor.to("cpu")
    return page_locked(torch.empty_like(tensor, device="cpu"), tensor.device).copy_(tensor, non_blocking=True)


class Moment:
    """When ``device`` is done with all that it was given so far. A CUDA device is behind the program; others were
    waited for."""

    def __init__(self, device: torch.device) -> None:
        self._event = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True, blocking=True)
            self._event.record(torch.cuda.current_stream(device))
        self._time = time.perf_counter()

    def wait(self) -> None:
        if self._event is not None:
            self._event.synchronize()

    def since(self, earlier: Moment) -> float:
        """Seconds of the device's own clock, once this moment was waited for."""
        if self._event is not None:
            return earlier._event.elapsed_time(self._event) / 1000
        return self._time - earlier._time


def page_locked(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Where a CUDA device can read it by itself; as it is for all others.

    Raises ``MemoryError`` where there is no main memory to lock: CUDA itself would say that it is out of memory.
    """
    if device.type != "cuda":
        return tensor
    try:
        return tensor.pin_memory()
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        raise MemoryError("main memory cannot be page-locked") from error


Advice = str | Callable[[], tuple[str, str]]


@contextmanager
def memory_advice(doing: str, advice: Advice) -> Iterator[None]:
    """Turn an out-of-memory of the device, or of the host, into one line that says what to change.

    ``advice`` is the hint, or gives the numbers and the hint once they are needed.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _shortage("device", doing, advice) from error
    except MemoryError as error:
        raise _shortage("machine", doing, advice) from error
    except RuntimeError as error:
        short = _short_of(error)
        if short is None:
            raise
        raise _shortage(short, doing, advice) from error


def _short_of(error: RuntimeError) -> str | None:
    """torch tells by type what its own allocator on a GPU has not got. What the libraries beside it, the driver and the
    host have not got is told by words alone; so is what a compiler wraps in an error of its own."""
    said = str(error).lower()
    if any(words in said for words in MACHINE_WORDS):
        return "machine"
    return "device" if any(words in said for words in DEVICE_WORDS) else None


def _shortage(place: str, doing: str, advice: Advice) -> OutOfMemoryError:
    numbers, hint = ("", advice) if isinstance(advice, str) else advice()
    return OutOfMemoryError(f"the {place} ran out of memory while {doing}{numbers}", hint=hint)
