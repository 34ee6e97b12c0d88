"""How long the run is, in optimiser steps and in epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ltxtrain.errors import ConfigError, Fault
from ltxtrain.plan.order import BatchOrder

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

    Batches of the next epoch fill up an accumulation that an epoch's end leaves open, so ``epochs`` counts batches.
    """
    if max_train_steps and num_train_epochs:
        problem = f"both max_train_steps ({max_train_steps}) and num_train_epochs ({num_train_epochs}) are given"
        raise ConfigError([Fault("max_train_steps", problem, suggestion="set one of them to 0")])
    steps = max_train_steps or _steps(order, accumulation, num_train_epochs or 0) or DEFAULT_STEPS
    per_epoch = max(1, _steps(order, accumulation, 1))
    return RunLength(steps, per_epoch, float(order.progress(steps * accumulation)))


def _steps(order: BatchOrder, accumulation: int, epochs: int) -> int:
    """Each epoch's steps rounded up, as documented."""
    return sum(math.ceil(length / accumulation) * count for length, count in order.lengths(epochs))
