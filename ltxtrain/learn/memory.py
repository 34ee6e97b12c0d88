"""What a phase really took: the peaks of the device's memory and of main memory, and what there is to be had."""

from __future__ import annotations

import gc
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from ltxtrain.facts.machine import memory_limit_bytes

PROCESS = Path("/proc/self")
FORGET_PEAK = "5"  # written to clear_refs: proc(5)
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True)
class Peak:
    """Bytes. ``allocated`` stand in tensors, ``reserved`` are what torch has taken for them; both are None where torch
    does not count, which is on the CPU. ``used`` is all of it: on a GPU with the context and what other programs hold,
    on the CPU what is resident of this process.
    """

    allocated: int | None
    reserved: int | None
    used: int

    @property
    def tensors(self) -> int:
        """What stands in tensors, or all that is used where that is not counted."""
        return self.used if self.allocated is None else self.allocated

    def larger(self, other: Peak) -> Peak:
        return Peak(
            _larger(self.allocated, other.allocated),
            _larger(self.reserved, other.reserved),
            max(self.used, other.used),
        )


class Meter:
    """Peaks of one device, phase by phase. One phase is under way at a time; it may be left and entered again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._peaks: dict[str, Peak] = {}
        self._phase: str | None = None

    def enter(self, phase: str) -> None:
        """From now on peaks are those of ``phase``."""
        self.leave()
        forget_peaks(self.device)
        self._phase = phase

    def leave(self) -> None:
        if self._phase is not None:
            self.peak(self._phase)
            self._phase = None

    def restart(self, phase: str) -> None:
        """Enter ``phase`` as if it had never been."""
        self.leave()
        self._peaks.pop(phase, None)
        self.enter(phase)

    def known(self, phase: str) -> Peak | None:
        """The peak of a phase that was left, None where it never was."""
        return self._peaks.get(phase)

    def peak(self, phase: str) -> Peak:
        """The peak of ``phase`` so far. Raises ``KeyError`` for one that was never entered.

        What was seen once is remembered: Apple's GPU keeps no peaks, so the largest of what was looked at is all there
        is to know.
        """
        if phase == self._phase:
            now = read_peaks(self.device)
            self._peaks[phase] = now.larger(self._peaks[phase]) if phase in self._peaks else now
        return self._peaks[phase]

    def tensors(self, phase: str) -> int:
        """``peak(phase).tensors`` of the phase under way, without asking the driver: cheap enough for each step."""
        if self.device.type != "cuda":
            return self.peak(phase).tensors
        now = int(torch.cuda.max_memory_allocated(self.device))
        return max(now, self._peaks[phase].tensors) if phase in self._peaks else now


def forget_peaks(device: torch.device) -> None:
    """Peaks that are read after this begin with what is held now, as far as the system can forget the old ones."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        forget_host_peak()


def read_peaks(device: torch.device) -> Peak:
    """Peaks since they were last forgotten; on Apple's GPU, which keeps none, what is held now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        beside = total - free - torch.cuda.memory_reserved(device)
        reserved = int(torch.cuda.max_memory_reserved(device))
        return Peak(int(torch.cuda.max_memory_allocated(device)), reserved, reserved + beside)
    if device.type == "mps":
        held = int(torch.mps.driver_allocated_memory())
        return Peak(int(torch.mps.current_allocated_memory()), held, held)
    return Peak(None, None, host_peak())


def forget_host_peak() -> None:
    """Linux can forget how large a process has been; elsewhere, and where it is forbidden, the old peak stays."""
    try:
        (PROCESS / "clear_refs").write_text(FORGET_PEAK)
    except OSError:
        return


def host_peak() -> int:
    """The most that was resident of this process, in bytes."""
    found = _kilobytes(PROCESS / "status", "VmHWM:")
    if found is not None:
        return found
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def free_memory(device: torch.device) -> int | None:
    """What this process could have of the device, with what it holds for tensors already; None where nobody tells."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        ours = torch.cuda.memory_reserved(device)
        cap = int(torch.cuda.get_per_process_memory_fraction(device) * total)
        return min(free + ours, cap)
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory())
    return _free_host_memory()


def _free_host_memory() -> int | None:
    """The least of what the machine has left, the container's or the job's limit, and this process's own limit."""
    available, resident = _kilobytes(MEMORY, "MemAvailable:"), _kilobytes(PROCESS / "status", "VmRSS:") or 0
    if available is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    # It is on addresses: those of files and libraries that are mapped and not resident are no memory to be had.
    mapped = (_kilobytes(PROCESS / "status", "VmSize:") or 0) - resident
    own = [] if limit == resource.RLIM_INFINITY else [max(0, limit - mapped)]
    return min(available + resident, memory_limit_bytes(), *own)


def release_memory(device: torch.device) -> None:
    """Give back what a finished phase held. Call it after the last reference is gone."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def _larger(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else max(one, other)


def _kilobytes(path: Path, name: str) -> int | None:
    """``VmHWM:     1234 kB`` of such a file, in bytes; None where it is not told."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(name)]
    return int(values[0]) * 1024 if values else None
