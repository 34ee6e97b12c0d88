"""The evaluation loss: data sets that are held out, at the sigmas of inference, always with the same noise.

So its values are comparable from step to step and from run to run, which those of training are not. It reads no random
state and leaves none changed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltxtrain.config.validation import ValidationConfig
from ltxtrain.errors import LtxtrainError
from ltxtrain.events import EVALUATION, POOLED, EvalLoss, Event, StageDone, StageProgress, StageStarted
from ltxtrain.learn.batch import Clean, Drawn, Reader, read_batch
from ltxtrain.learn.draws import Place
from ltxtrain.learn.metrics import append_evaluations, evaluated
from ltxtrain.learn.sigmas import automatic_mu
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.filling import FillRule, sizes_of
from ltxtrain.plan.order import Batch, BatchOrder, eval_batches
from ltxtrain.plan.records import Bucket, Plan

SEED = 0  # whatever the run's seed is
Measured = list[tuple[float, float]]  # sigma and loss, for each sample at each sigma
Losses = Callable[[Clean, Drawn], torch.Tensor]  # [B]


@dataclass(frozen=True)
class Measuring:
    """What measuring takes. ``sigmas_of`` gives the noise levels for a number of tokens; ``path`` is of the file that
    keeps what was measured."""

    reader: Reader
    sigmas_of: Callable[[int], list[float]]
    losses: Losses
    path: Path


def evaluate(
    measuring: Measuring, plan: Plan, due: Mapping[str, Sequence[Batch]], step: int, stop: StopFlag
) -> Generator[Event, None, None]:
    """Measure the data sets that are ``due`` after ``step``, as ``sets_due`` gives them, and not in the file already.

    Leaves early, without any of them, when ``stop`` is set: the next start makes it up. The figure of all together is
    left out where some were measured by an earlier start. Raises ``LtxtrainError`` for a loss that is not finite.
    """
    before = evaluated(measuring.path, step)
    sets = {name: batches for name, batches in due.items() if name not in before}
    if stop.requested or not sets:
        return
    yield StageStarted(EVALUATION, sum(map(len, sets.values())), 0, "batches")
    started = time.perf_counter()
    found = yield from measure_sets(sets, measuring, step, stop)
    if found is None:
        return
    events = evaluation_events(step, found, pooled=plan.config.validation.eval_dataset_pooling and not before)
    append_evaluations(measuring.path, events)
    yield from events
    yield StageDone(EVALUATION, time.perf_counter() - started, f"step {step}")


def sets_due(plan: Plan, order: BatchOrder, step: int) -> dict[str, tuple[Batch, ...]]:
    """The data sets that are to be measured after ``step``."""

    def progress(steps: int) -> Fraction:
        return order.progress(steps * plan.accumulation)

    return evaluation_sets(plan) if evaluation_due(plan.config.validation, step, plan.steps, progress) else {}


def evaluation_sets(plan: Plan) -> dict[str, tuple[Batch, ...]]:
    """The batches of each data set that is measured, by its id; empty when none is."""
    section = plan.config.validation
    if section.eval_loss_disable:
        return {}
    names = [found.id for found in plan.datasets if found.role == "eval"]
    wanted = [name for name in names if section.eval_dataset_id in (None, name)]
    sizes, found = sizes_of(plan.config.data, plan.settled), {}
    for name in wanted:
        size_of = partial(_size, sizes, name)
        if batches := eval_batches(plan.eval_samples, name, size_of, section.num_eval_images):
            found[name] = batches
    return found


def _size(sizes: FillRule, dataset: str, bucket: Bucket) -> int:
    return sizes.batch_size_of((dataset, bucket))


def evaluation_due(section: ValidationConfig, step: int, total: int, progress: Callable[[int], Fraction]) -> bool:
    """Before the first step and after the last, and at each interval: of steps, of epochs, or of both.

    ``progress`` is how many epochs a number of steps are.
    """
    if step in (0, total):
        return True
    if section.eval_steps_interval and step % section.eval_steps_interval == 0:
        return True
    if not section.eval_epoch_interval:
        return False
    interval = Fraction(str(section.eval_epoch_interval))
    return progress(step) // interval > progress(step - 1) // interval


def inference_sigmas(scheduler: Any, settings: Mapping[str, float], count: int, tokens: int) -> list[float]:
    """The noise levels that a video of that length goes through when it is rendered in ``count`` steps."""
    if count == 1:
        return [1.0]  # the scheduler's stretch to its last level would divide nothing by nothing
    even = np.linspace(1.0, 1.0 / count, count)
    scheduler.set_timesteps(sigmas=even, mu=automatic_mu(tokens, settings))
    return [float(sigma) for sigma in scheduler.sigmas[:-1]]


def measure_sets(
    sets: Mapping[str, Sequence[Batch]], measuring: Measuring, step: int, stop: StopFlag
) -> Generator[StageProgress, None, dict[str, tuple[Measured, float]] | None]:
    """What each data set measured, and the seconds that it took; None when ``stop`` came in between."""
    found, done = {}, 0
    for name, batches in sets.items():
        began = time.perf_counter()
        measured: Measured = []
        for batch in batches:
            if stop.requested:
                return None
            sigmas = measuring.sigmas_of(batch.samples[0].bucket.tokens)
            pairs = measure(batch, measuring.reader, sigmas, measuring.losses)
            _refuse_non_finite(step, batch, pairs)
            measured += pairs
            done += 1
            yield StageProgress(EVALUATION, done, name)
        found[name] = (measured, time.perf_counter() - began)
    return found


def _refuse_non_finite(step: int, batch: Batch, pairs: Measured) -> None:
    for sigma, loss in pairs:
        if not math.isfinite(loss):
            raise LtxtrainError(
                f"the evaluation loss of {batch.dataset} after step {step} is {loss} at sigma {sigma:.3f} "
                f"(batch: {batch.names})",
                hint="go back to a checkpoint before this step, with a lower learning_rate; "
                "--eval-loss-disable goes on without measuring",
            )


@torch.no_grad()
def measure(batch: Batch, reader: Reader, sigmas: Sequence[float], losses: Losses) -> Measured:
    """Each sample's loss at each sigma, with its first caption and without first-frame conditioning."""
    clean = read_batch(reader, batch.samples, [sample.captions[0] for sample in batch.samples])
    count, *shape = clean.latents_BCFHW.shape
    measured: Measured = []
    for number, sigma in enumerate(sigmas):
        place = Place(SEED, 0, number)
        noise = torch.stack([place.noise("evaluation", sample.id, tuple(shape)) for sample in batch.samples])
        loss_B = losses(clean, Drawn(noise, [sigma] * count, [False] * count))
        measured += [(sigma, loss) for loss in loss_B.tolist()]
    return measured


def evaluation_events(step: int, found: Mapping[str, tuple[Measured, float]], *, pooled: bool) -> list[EvalLoss]:
    """One event a data set out of what was measured and the seconds it took; with ``pooled`` one more for all."""
    events = [_event(step, name, measured, seconds) for name, (measured, seconds) in found.items()]
    if pooled and found:
        together = [pair for measured, _ in found.values() for pair in measured]
        events.append(_event(step, POOLED, together, sum(seconds for _, seconds in found.values())))
    return events


def _event(step: int, dataset: str, measured: Measured, seconds: float) -> EvalLoss:
    by_sigma: dict[str, list[float]] = {}
    for sigma, loss in sorted(measured):
        by_sigma.setdefault(f"{sigma:.3f}", []).append(loss)
    means = {sigma: sum(losses) / len(losses) for sigma, losses in by_sigma.items()}
    return EvalLoss(step, dataset, sum(loss for _, loss in measured) / len(measured), means, seconds)
