"""One optimiser step: read, noise, predict, compare, clip, update.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S tokens, L text tokens, D width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ltxtrain.events import TRAINING, StepDone
from ltxtrain.learn.batch import Clean, Drawn, DrawRule, batches_ahead, draw_captions, draw_noise, read_batch
from ltxtrain.learn.device import memory_advice, sent
from ltxtrain.learn.draws import Place, dropout_seed
from ltxtrain.learn.metrics import told_losses
from ltxtrain.learn.objective import add_noise, refuse_non_finite, velocity_loss
from ltxtrain.learn.optimizers import clip_gradients, set_learning_rate
from ltxtrain.learn.schedule import rate_of
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.sigmas import shift_for
from ltxtrain.model.adapter import adapter_off
from ltxtrain.model.transformer import caption_mask, predict_velocity
from ltxtrain.plan.order import Batch
from ltxtrain.training.run import Run


def take_step(run: Run, step: int) -> StepDone:
    """One optimiser step: accumulate, clip, refuse what is not finite, update. Each of its samples counts the same.

    The device is waited for once, after all of its work but the update is on its way. A few optimisers wait for it in
    the update (``waits`` of ``config/optimizers.py``, and states that are paged).
    """
    plan = run.plan
    began = time.perf_counter()
    effective_batch = plan.config.data.train_batch_size * plan.accumulation
    rate = rate_of(plan.config.optimizer, plan.config.schedule, plan.steps, step, effective_batch)
    set_learning_rate(run.optimizer, rate)
    first = (step - 1) * plan.accumulation
    batches = [run.order[index] for index in range(first, min(first + plan.accumulation, run.batches))]
    waited = 0.0
    while True:
        sigmas, values, seconds = _gradients(run, step, batches)
        *losses, norm = values
        waited += seconds
        told = _by_sample(batches, sigmas, losses)
        for batch, losses_of_batch in zip(batches, told, strict=True):
            refuse_non_finite(step, "loss", sum(loss for _, _, loss in losses_of_batch), batch.names)
        if run.loss_scale is None or math.isfinite(norm) or not run.loss_scale.lower():
            break
        run.optimizer.zero_grad(set_to_none=True)
    refuse_non_finite(step, "gradient", norm, batches[-1].names)
    with memory_advice(*_doing(run, batches[-1])):  # the first update makes the optimiser's state
        run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    if run.loss_scale is not None:
        run.loss_scale.went_well()
    seconds = time.perf_counter() - began
    count = len(losses)
    return StepDone(
        step=step,
        total=plan.steps,
        epoch=batches[-1].epoch,
        lr=rate,
        grad_norm=norm,
        seconds=seconds,
        samples_per_second=count / seconds,
        memory_bytes=run.meter.tensors(TRAINING),
        data_seconds=waited,
        **told_losses([each for losses_of_batch in told for each in losses_of_batch]),
        **run.gauge.told(((batch, run.datasets[batch.dataset].regularisation) for batch in batches), seconds),
    )


def _gradients(run: Run, step: int, batches: Sequence[Batch]) -> tuple[list[float], list[float], float]:
    """Sum up the gradients of all batches and clip them. The sigmas of all samples; their losses, and then the norm of
    the gradients, read together; and the seconds that reading the batches took."""
    count = sum(len(batch.samples) for batch in batches)
    scale = run.loss_scale.value if run.loss_scale else None
    sigmas: list[float] = []
    read: list[torch.Tensor] = []
    waited = 0.0
    for micro, batch in enumerate(batches):
        waited += read_ahead(run, batch.index + batches_ahead(run.plan.config.speed))
        place = Place(run.plan.config.model.seed, step, micro)
        with dropout_seed(place, run.device), memory_advice(*_doing(run, batch)):
            loss_B, drawn, seconds = _losses(run, batch, place)
            loss = loss_B.mean() / (count / len(batch.samples))
            (loss if scale is None else loss * scale).backward()
        sigmas += drawn
        read.append(loss_B.detach())
        waited += seconds
    parameters = list(run.parameters.values())
    with memory_advice(*_doing(run, batches[-1])):
        if scale is not None:
            torch._foreach_mul_([each.grad for each in parameters if each.grad is not None], 1.0 / scale)
        norm = clip_gradients(parameters, run.plan.config.optimizer)
        return sigmas, torch.cat([*read, norm.float().reshape(1)]).tolist(), waited


def _by_sample(
    batches: Sequence[Batch], sigmas: Sequence[float], losses: Sequence[float]
) -> list[list[tuple[str, float, float]]]:
    """For each batch: data set, sigma and loss of each of its samples."""
    pairs = iter(zip(sigmas, losses, strict=True))
    return [[(batch.dataset, *next(pairs)) for _ in batch.samples] for batch in batches]


def _doing(run: Run, batch: Batch) -> tuple[str, Callable[[], tuple[str, str]]]:
    clips = f"{len(batch.samples)} x {batch.samples[0].bucket.key}"
    return f"training on {clips}", needs(run.plan, TRAINING, run.device)


def _losses(run: Run, batch: Batch, place: Place) -> tuple[torch.Tensor, list[float], float]:
    """The loss of each sample [B], the sigma that each was noised with, and the seconds that reading them took."""
    config, dataset = run.plan.config, run.datasets[batch.dataset]
    captions = draw_captions(batch, place, config.data.caption_dropout_probability)
    began = time.perf_counter()
    clean = read_batch(run.prepared, batch.samples, captions)
    waited = time.perf_counter() - began
    shift = shift_for(config.objective, batch.samples[0].bucket.tokens, run.scheduler)
    rule = DrawRule(config.objective, shift, dataset.timestep_offset)
    drawn = draw_noise(batch, place, clean.latents_BCFHW.shape[1:], rule)
    return compare(run, clean, drawn, with_base=dataset.regularisation), drawn.sigmas, waited


def compare(run: Run, clean: Clean, drawn: Drawn, *, with_base: bool = False) -> torch.Tensor:
    """The loss of each sample [B]: against the true velocity, or ``with_base`` against the untouched model's answer."""
    mask_BL = caption_mask(clean.mask_BL)
    stacked = [clean.latents_BCFHW, drawn.noise_BCFHW, clean.embeds_BLD.to(run.dtype)]
    stacked += [mask_BL] if mask_BL is not None else []
    latents_BCFHW, noise_BCFHW, embeds_BLD, *masks = sent(stacked, run.device)
    mask_BL = masks[0] if masks else None
    noised = add_noise(latents_BCFHW, noise_BCFHW, drawn.sigmas, drawn.conditioned)
    noisy_BCFHW, framerate = noised.noisy_BCFHW.to(run.dtype), run.plan.config.data.framerate
    given = (run.transformer, noisy_BCFHW, noised.sigma, embeds_BLD, mask_BL, framerate)
    with torch.autocast(run.device.type, dtype=run.dtype, enabled=run.dtype != torch.float32):
        if with_base:
            with torch.no_grad(), adapter_off(run.transformer):
                noised = replace(noised, target_BCFHW=predict_velocity(*given))
        velocity_BCFHW = predict_velocity(*given)
    return velocity_loss(velocity_BCFHW, noised)


def read_ahead(run: Run, index: int) -> float:
    """Begin to read what the batch with that number needs, if the run gets so far. Returns the seconds it took."""
    began = time.perf_counter()
    if index < run.batches:
        run.prepared.ahead(run.order[index].samples)
    return time.perf_counter() - began
