"""What the phases of a run took, as records beside the plan's estimates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ltxtrain.events import LOADING, MAIN_MEMORY, MemoryMeasured
from ltxtrain.learn.memory import Meter, Peak, host_peak
from ltxtrain.learn.metrics import append_memory
from ltxtrain.learn.shortage import estimate_of
from ltxtrain.plan.folder import RunFolder
from ltxtrain.plan.records import Plan

NEWS = 1.01  # a phase that is gone through again is told again when it took more than 1 % more


def measured(plan: Plan, phase: str, meter: Meter, where: str = "run", detail: str = "") -> MemoryMeasured:
    """The peak of ``phase`` so far, as ``meter`` has it."""
    return _record(plan, phase, meter.device.type, meter.peak(phase), where, detail)


def measured_loading(plan: Plan, device: torch.device) -> list[MemoryMeasured]:
    """What loading took of main memory so far, where that is not the device's own."""
    if device.type == "cpu":
        return []
    return [_record(plan, LOADING, MAIN_MEMORY, Peak(None, None, host_peak()), "run", "")]


def is_news(before: Peak | None, now: Peak) -> bool:
    return before is None or now.tensors > before.tensors * NEWS


def recorded(folder: RunFolder, found: Sequence[MemoryMeasured]) -> Iterator[MemoryMeasured]:
    """Keep what was measured in the run folder, and tell it."""
    append_memory(folder.memory_jsonl, found)
    yield from found


def _record(plan: Plan, phase: str, device: str, peak: Peak, where: str, detail: str) -> MemoryMeasured:
    estimate = estimate_of(plan, phase)
    return MemoryMeasured(
        phase=phase,
        device=estimate.device if estimate else device,
        estimate=estimate.total if estimate else None,
        allocated=peak.allocated,
        reserved=peak.reserved,
        device_used=peak.used,
        where=where,
        detail=detail,
    )
