"""How long the run is, in optimiser steps and in epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ltxtrain.errors import ConfigError, Fault
from ltxtrain.plan.records import BucketPlan

DEFAULT_STEPS = 2000


@dataclass(frozen=True)
class RunLength:
    """``steps_per_epoch`` is rounded up; ``epochs`` is how often the clips are gone through, a fraction as a rule."""

    steps: int
    steps_per_epoch: int
    epochs: float


def run_length(
    buckets: Sequence[BucketPlan], accumulation: int, max_train_steps: int | None, num_train_epochs: int | None
) -> RunLength:
    """Steps from steps, or from epochs, or ``DEFAULT_STEPS``. Raises ``ConfigError`` when both are given.

    Batches of the next epoch fill up an accumulation that an epoch's end leaves open, so ``epochs`` counts batches.
    """
    if max_train_steps and num_train_epochs:
        problem = f"both max_train_steps ({max_train_steps}) and num_train_epochs ({num_train_epochs}) are given"
        raise ConfigError([Fault("max_train_steps", problem, suggestion="set one of them to 0")])
    batches = sum(bucket.batches for bucket in buckets)
    per_epoch = max(1, math.ceil(batches / accumulation))
    steps = max_train_steps or (num_train_epochs or 0) * per_epoch or DEFAULT_STEPS
    return RunLength(steps, per_epoch, steps * accumulation / max(1, batches))
