"""Optimiser steps: noise, predict, compare, clip, update. Each is launched before what the last one gave is read.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S tokens, L text tokens, D width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from ltxtrain.events import TRAINING, StepDone
from ltxtrain.learn.device import Moment, fetched, memory_advice
from ltxtrain.learn.draws import dropout_seed
from ltxtrain.learn.loss_scale import LossScale
from ltxtrain.learn.metrics import append_step, told_losses
from ltxtrain.learn.objective import add_noise, refuse_non_finite, velocity_loss
from ltxtrain.learn.optimizers import clip_gradients, set_learning_rate
from ltxtrain.learn.schedule import rate_of
from ltxtrain.learn.shortage import needs
from ltxtrain.model.adapter import adapter_off
from ltxtrain.model.transformer import predict_velocity
from ltxtrain.plan.order import Batch
from ltxtrain.training.feed import Feed, Ready, place_of
from ltxtrain.training.run import Run

NAMED = 20  # clips in one sentence


@dataclass(frozen=True)
class Launched:
    """A step that the device was given. ``values`` are the loss of each sample and the norm of the gradients, in main
    memory once it is ``done``; ``waited`` is how long the program waited for data, in seconds: a CUDA device may have
    computed the step before meanwhile."""

    step: int
    batches: Sequence[Batch]
    sigmas: Sequence[float]
    rate: float
    waited: float
    values: torch.Tensor
    done: Moment


class Steps:
    """Steps, launched one after the other; what one gave is read while the next one is computed, so that the device
    never waits for that. ``settle`` reads it at once: to be called before a weight is used for anything else.

    Reading raises ``LtxtrainError`` for what is not finite, and writes the step's line of metrics.jsonl.
    """

    def __init__(self, run: Run, feed: Feed) -> None:
        self._run, self._feed = run, feed
        self._last: Launched | None = None
        self._since: Moment | None = None  # where the time of the step that is read next begins

    def launch(self, step: int) -> Iterator[StepDone]:
        if self._since is None:
            self._since = Moment(self._run.device)
        try:
            launched = _launch(self._run, step, self._feed)
        finally:  # whatever became of this one, the one before is read
            yield from self._read()
        self._last = launched

    def settle(self) -> Iterator[StepDone]:
        """The time until the next ``launch`` is no step's."""
        yield from self._read()
        self._since = None

    def _read(self) -> Iterator[StepDone]:
        last, self._last = self._last, None
        if last is not None:
            last.done.wait()
            event = _told(self._run, last, last.done.since(self._since))
            self._since = last.done
            append_step(self._run.folder.metrics_jsonl, event)
            yield event


def _launch(run: Run, step: int, feed: Feed) -> Launched:
    """Accumulate, clip, update. Each of the step's samples counts the same.

    The device is waited for in float16 alone, where an overflow has to be known before the update, and by the updates
    of a few optimisers (``waits`` of ``config/optimizers.py``), of states that are paged, and in main memory.
    """
    plan = run.plan
    effective_batch = plan.config.data.train_batch_size * plan.accumulation
    rate = rate_of(plan.config.optimizer, plan.config.schedule, plan.steps, step, effective_batch)
    set_learning_rate(run.optimizer, rate)
    first = (step - 1) * plan.accumulation
    batches = [run.order[index] for index in range(first, min(first + plan.accumulation, run.batches))]
    waited = 0.0
    while True:
        sigmas, values, seconds = _gradients(run, feed, batches)
        waited += seconds
        if run.loss_scale is None or not _overflowed(run.loss_scale, values):
            break
        run.optimizer.zero_grad(set_to_none=True)
    with memory_advice(*_doing(run, batches[-1])):  # the first update makes the optimiser's state
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.loss_scale is not None:
        run.loss_scale.went_well()
    return Launched(step, batches, sigmas, rate, waited, fetched(values), Moment(run.device))


def _gradients(run: Run, feed: Feed, batches: Sequence[Batch]) -> tuple[list[float], torch.Tensor, float]:
    """Sum up the gradients of all batches and clip them. The sigmas of all samples; their losses, and then the norm of
    the gradients, on the device; and the seconds that were waited for data."""
    count = sum(len(batch.samples) for batch in batches)
    scale = run.loss_scale.value if run.loss_scale else None
    sigmas: list[float] = []
    found: list[torch.Tensor] = []
    waited = 0.0
    for batch in batches:
        with memory_advice(*_doing(run, batch)):
            began = time.perf_counter()
            ready = feed.take(batch)
            waited += time.perf_counter() - began
            with dropout_seed(place_of(run, batch), run.device):
                loss_B = compare(run, ready, with_base=run.datasets[batch.dataset].regularisation)
                loss = loss_B.mean() / (count / len(batch.samples))
                (loss if scale is None else loss * scale).backward()
        sigmas += ready.sigmas
        found.append(loss_B.detach())
    parameters = list(run.parameters.values())
    with memory_advice(*_doing(run, batches[-1])):
        if scale is not None:
            torch._foreach_mul_([each.grad for each in parameters if each.grad is not None], 1.0 / scale)
        norm = clip_gradients(run.optimizer, run.plan.config.optimizer)
        return sigmas, torch.cat([*found, norm.float().reshape(1)]), waited


def _overflowed(scale: LossScale, values: torch.Tensor) -> bool:
    """Whether the gradients are to be computed again, with half the scale. What that does not help is refused later."""
    *losses, norm = values.tolist()
    return all(map(math.isfinite, losses)) and not math.isfinite(norm) and scale.lower()


def _told(run: Run, launched: Launched, seconds: float) -> StepDone:
    step, batches = launched.step, launched.batches
    *losses, norm = launched.values.tolist()
    pairs = iter(zip(launched.sigmas, losses, strict=True))
    told = [[(batch.dataset, *next(pairs)) for _ in batch.samples] for batch in batches]
    for batch, losses_of_batch in zip(batches, told, strict=True):
        refuse_non_finite(step, "loss", sum(loss for _, _, loss in losses_of_batch), batch.names)
    refuse_non_finite(step, "gradient", norm, _names(batches))
    return StepDone(
        step=step,
        total=run.plan.steps,
        epoch=batches[-1].epoch,
        lr=launched.rate,
        grad_norm=norm,
        seconds=seconds,
        samples_per_second=len(losses) / seconds,
        memory_bytes=run.meter.tensors(TRAINING),
        data_seconds=min(launched.waited, seconds),
        **told_losses([each for losses_of_batch in told for each in losses_of_batch]),
        **run.gauge.told(((batch, run.datasets[batch.dataset].regularisation) for batch in batches), seconds),
    )


def _names(batches: Sequence[Batch]) -> str:
    """The clips of all that were accumulated, each once; beyond ``NAMED`` they are counted."""
    names = sorted({sample.id for batch in batches for sample in batch.samples})
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _doing(run: Run, batch: Batch) -> tuple[str, Callable[[], tuple[str, str]]]:
    clips = f"{len(batch.samples)} x {batch.samples[0].bucket.key}"
    return f"training on {clips}", needs(run.plan, TRAINING, run.device)


def compare(run: Run, ready: Ready, *, with_base: bool = False) -> torch.Tensor:
    """The loss of each sample [B]: against the true velocity, or ``with_base`` against the untouched model's answer."""
    there = ready.sent(run.device)
    noised = add_noise(there.latents_BCFHW, there.noise_BCFHW, there.sigma_BF, there.conditioned_B)
    noisy_BCFHW, framerate = noised.noisy_BCFHW.to(run.dtype), run.plan.config.data.framerate
    given = (run.transformer, noisy_BCFHW, noised.sigma, there.embeds_BLD, there.mask_BL, framerate)
    with torch.autocast(run.device.type, dtype=run.dtype, enabled=run.dtype != torch.float32):
        if with_base:
            with torch.no_grad(), adapter_off(run.transformer):
                noised = replace(noised, target_BCFHW=predict_velocity(*given))
        velocity_BCFHW = predict_velocity(*given)
    return velocity_loss(velocity_BCFHW, noised)
