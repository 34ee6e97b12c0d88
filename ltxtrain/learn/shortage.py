"""What is said when a phase does not fit memory: what it needs by its estimate, what there was, and what would help."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ltxtrain.learn.memory import free_memory
from ltxtrain.plan.advice import help_most
from ltxtrain.plan.records import PhaseMemory, Plan
from ltxtrain.units import format_bytes

# Where the estimate knows of nothing that would help.
OTHERWISE = "free the device of other programs, or use a smaller preset, see: ltxtrain presets list"


def needs(plan: Plan, phase: str, device: torch.device) -> Callable[[], tuple[str, str]]:
    """Advice for ``memory_advice``. Nothing is worked out before it is asked for."""

    def advice() -> tuple[str, str]:
        return _numbers(estimate_of(plan, phase), free_memory(device)), ", or ".join(
            help_most(plan, phase)
        ) or OTHERWISE

    return advice


def estimate_of(plan: Plan, phase: str) -> PhaseMemory | None:
    return next((found for found in plan.memory if found.phase == phase), None)


def _numbers(estimate: PhaseMemory | None, free: int | None) -> str:
    told = [f"it needs about {format_bytes(estimate.total)}"] if estimate else []
    told += [f"{format_bytes(free)} could be had"] if free is not None else []
    return f" ({', '.join(told)})" if told else ""
