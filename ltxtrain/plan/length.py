"""How long the run is, in optimiser steps and in epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ltxtrain.errors import ConfigError, Fault
from ltxtrain.plan.order import BatchOrder
from ltxtrain.plan.records import Plan

DEFAULT_STEPS = 2000


@dataclass(frozen=True)
class RunLength:
    """``steps_per_epoch`` is the first epoch's, rounded up; ``epochs`` is how often the clips are gone through."""

    steps: int
    steps_per_epoch: int
    epochs: float


def run_length(
    order: BatchOrder, accumulation: int, max_train_steps: int | None, num_train_epochs: int | None
) -> RunLength:
    """Steps from steps, or from epochs, or ``DEFAULT_STEPS``. Raises ``ConfigError`` when both are given, and when no
    data set is active up to the last step.

    Batches of the next epoch fill up an accumulation that an epoch's end leaves open. Only the run's last step may be
    short: a run of so many epochs shows exactly those.
    """
    if max_train_steps and num_train_epochs:
        problem = f"both max_train_steps ({max_train_steps}) and num_train_epochs ({num_train_epochs}) are given"
        raise ConfigError([Fault("max_train_steps", problem, suggestion="set one of them to 0")])
    batches = order.batches_of(num_train_epochs or 0) or (max_train_steps or DEFAULT_STEPS) * accumulation
    per_epoch = max(1, math.ceil(order.batches_of(1) / accumulation))
    return RunLength(math.ceil(batches / accumulation), per_epoch, float(order.progress(batches)))


def batches_of_run(plan: Plan, order: BatchOrder) -> int:
    """All batches that the plan's steps are made of."""
    epochs = plan.config.schedule.num_train_epochs
    return order.batches_of(epochs) if epochs else plan.steps * plan.accumulation
