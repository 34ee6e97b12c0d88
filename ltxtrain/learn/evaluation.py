"""The evaluation loss: data sets that are held out, at the sigmas of inference, always with the same noise.

So its values are comparable from step to step and from run to run, which those of training are not. It reads no random
state and leaves none changed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from ltxtrain.config.validation import ValidationConfig
from ltxtrain.events import POOLED, EvalLoss, StageProgress
from ltxtrain.learn.batch import Clean, Drawn, Reader, read_batch
from ltxtrain.learn.draws import Place
from ltxtrain.learn.sigmas import automatic_mu
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.order import Batch, BatchOrder, eval_batches
from ltxtrain.plan.records import Plan

SEED = 0  # whatever the run's seed is
Measured = list[tuple[float, float]]  # sigma and loss, for each sample at each sigma
Losses = Callable[[Clean, Drawn], torch.Tensor]  # [B]


def evaluation_sets(plan: Plan) -> dict[str, tuple[Batch, ...]]:
    """The batches of each data set that is measured, by its id; empty when none is."""
    section = plan.config.validation
    if section.eval_loss_disable:
        return {}
    names = [found.id for found in plan.datasets if found.role == "eval"]
    wanted = [name for name in names if section.eval_dataset_id in (None, name)]
    found = {name: eval_batches(plan.eval_samples, name, plan.batch_size, section.num_eval_images) for name in wanted}
    return {name: batches for name, batches in found.items() if batches}


def sets_due(plan: Plan, order: BatchOrder, step: int) -> dict[str, tuple[Batch, ...]]:
    """The data sets that are to be measured after ``step``."""

    def progress(steps: int) -> Fraction:
        return order.progress(steps * plan.accumulation)

    return evaluation_sets(plan) if evaluation_due(plan.config.validation, step, plan.steps, progress) else {}


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
    sets: Mapping[str, Sequence[Batch]],
    reader: Reader,
    sigmas_of: Callable[[int], list[float]],
    losses: Losses,
    stop: StopFlag,
) -> Generator[StageProgress, None, dict[str, tuple[Measured, float]] | None]:
    """What each data set measured, and the seconds that it took; None when ``stop`` came in between.

    ``sigmas_of`` gives the noise levels for a number of tokens.
    """
    found, done = {}, 0
    for name, batches in sets.items():
        began = time.perf_counter()
        measured: Measured = []
        for batch in batches:
            if stop.requested:
                return None
            measured += measure(batch, reader, sigmas_of(batch.samples[0].bucket.tokens), losses)
            done += 1
            yield StageProgress("evaluation", done, name)
        found[name] = (measured, time.perf_counter() - began)
    return found


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
