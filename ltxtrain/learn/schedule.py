"""Learning-rate schedules: each a pure function of the step, so resuming needs no state.

``step`` counts optimiser steps already done, from 0. ``cosine`` has a true warm-up; the documented half-period curve,
which starts at the full rate and climbs back after ``lr_warmup_steps``, is ``cosine_half_period``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ltxtrain.config.optim import OptimizerConfig, ScheduleConfig

# Used by the half-period curves when lr_warmup_steps is 0, as documented.
DEFAULT_HALF_PERIOD = 1000


@dataclass(frozen=True)
class Curve:
    """``base`` is learning_rate, ``end`` lr_end; ``warmup`` lr_warmup_steps; ``total`` the run's steps."""

    base: float
    end: float
    warmup: int
    total: int
    power: float
    cycles: int

    def progress(self, step: int) -> float:
        """0 at the end of the warm-up, 1 at the end of the run."""
        return min(1.0, max(0.0, (step - self.warmup) / max(1, self.total - self.warmup)))

    def falling(self, part: float) -> float:
        """``base`` where ``part`` is 1, ``end`` where it is 0."""
        return self.end + (self.base - self.end) * part

    def half_period(self) -> int:
        return self.warmup if self.warmup > 0 else DEFAULT_HALF_PERIOD


def _constant(curve: Curve, step: int) -> float:
    return curve.base


def _linear(curve: Curve, step: int) -> float:
    return curve.base * (1.0 - curve.progress(step))


def _cosine(curve: Curve, step: int) -> float:
    return curve.falling((1.0 + math.cos(math.pi * curve.progress(step))) / 2.0)


def _cosine_with_restarts(curve: Curve, step: int) -> float:
    turned = curve.progress(step) * curve.cycles
    within = turned - math.floor(turned) if curve.progress(step) < 1.0 else 1.0
    return curve.falling((1.0 + math.cos(math.pi * within)) / 2.0)


def _polynomial(curve: Curve, step: int) -> float:
    return curve.falling((1.0 - curve.progress(step)) ** curve.power)


def _cosine_half_period(curve: Curve, step: int) -> float:
    return curve.falling((1.0 + math.cos(math.pi * step / curve.half_period())) / 2.0)


def _sine(curve: Curve, step: int) -> float:
    return curve.falling((1.0 + math.sin(math.pi * step / curve.half_period())) / 2.0)


SCHEDULES: dict[str, Callable[[Curve, int], float]] = {
    "constant": _constant,
    "constant_with_warmup": _constant,
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "cosine_half_period": _cosine_half_period,
    "polynomial": _polynomial,
    "sine": _sine,
}
WITHOUT_WARMUP = frozenset({"constant", "cosine_half_period", "sine"})


def learning_rate(name: str, curve: Curve, step: int) -> float:
    """The rate of the step after ``step`` steps. A warm-up rises to the full rate and never gives a step of rate 0."""
    if name not in WITHOUT_WARMUP and step < curve.warmup:
        return curve.base * (step + 1) / (curve.warmup + 1)
    return SCHEDULES[name](curve, step)


def rate_of(
    optimizer: OptimizerConfig, schedule: ScheduleConfig, total: int, step: int, effective_batch: int = 1
) -> float:
    """The rate of the ``step``-th of ``total`` steps, which count from 1. ``effective_batch`` is for ``lr_scale``."""
    return learning_rate(schedule.lr_scheduler, curve_of(optimizer, schedule, total, effective_batch), step - 1)


def curve_of(optimizer: OptimizerConfig, schedule: ScheduleConfig, total: int, effective_batch: int = 1) -> Curve:
    """``effective_batch`` is the clips of one step: batch size times accumulation times processes. ``lr_scale``
    multiplies the highest rate by it, with ``lr_scale_sqrt`` by its root; ``lr_end`` stays."""
    return Curve(
        base=optimizer.peak_rate(effective_batch),
        end=schedule.lr_end,
        warmup=schedule.lr_warmup_steps,
        total=total,
        power=schedule.lr_power,
        cycles=schedule.lr_num_cycles,
    )
