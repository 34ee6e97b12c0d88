"""One optimiser step: read, noise, predict, compare, clip, update.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S tokens, L text tokens, D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from accelerate.utils import send_to_device

from ltxtrain.events import StepDone
from ltxtrain.learn.batch import Clean, Drawn, DrawRule, batches_ahead, draw_captions, draw_noise, read_batch
from ltxtrain.learn.device import memory_advice
from ltxtrain.learn.draws import Place, dropout_seed
from ltxtrain.learn.metrics import told_losses
from ltxtrain.learn.objective import add_noise, refuse_non_finite, velocity_loss
from ltxtrain.learn.optimizers import clip_gradients, set_learning_rate
from ltxtrain.learn.schedule import rate_of
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.sigmas import shift_for
from ltxtrain.model.adapter import adapter_off
from ltxtrain.model.transformer import predict_velocity
from ltxtrain.plan.order import Batch
from ltxtrain.training.run import TRAINING, Run


def take_step(run: Run, step: int) -> StepDone:
    """One optimiser step: accumulate, refuse what is not finite, clip, update. Each of its samples counts the same."""
    plan, section = run.plan, run.plan.config.optimizer
    began = time.perf_counter()
    effective_batch = plan.config.data.train_batch_size * plan.accumulation
    rate = rate_of(section, plan.config.schedule, plan.steps, step, effective_batch)
    set_learning_rate(run.optimizer, rate)
    first = (step - 1) * plan.accumulation
    batches = [run.order[index] for index in range(first, min(first + plan.accumulation, run.batches))]
    count = sum(len(batch.samples) for batch in batches)
    losses: list[tuple[str, float, float]] = []  # data set, sigma and loss of each sample
    waited = 0.0
    for micro, batch in enumerate(batches):
        waited += read_ahead(run, first + micro + batches_ahead(plan.config.speed))
        place = Place(plan.config.model.seed, step, micro)
        with dropout_seed(place, run.device), memory_advice(*_doing(run, batch)):
            loss_B, sigmas, seconds = _losses(run, batch, place)
            (loss_B.mean() / (count / len(batch.samples))).backward()
        losses += [(batch.dataset, sigma, loss) for sigma, loss in zip(sigmas, loss_B.tolist(), strict=True)]
        waited += seconds
        refuse_non_finite(step, "loss", sum(loss_B.tolist()), batch.names)
    norm = float(clip_gradients(list(run.parameters.values()), section))
    refuse_non_finite(step, "gradient", norm, batch.names)
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - began
    return StepDone(
        step=step,
        total=plan.steps,
        epoch=batch.epoch,
        lr=rate,
        grad_norm=norm,
        seconds=seconds,
        samples_per_second=count / seconds,
        memory_bytes=run.meter.tensors(TRAINING),
        data_seconds=waited,
        **told_losses(losses),
    )


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
    stacked = (clean.latents_BCFHW, drawn.noise_BCFHW, clean.embeds_BLD.to(run.dtype), clean.mask_BL)
    latents_BCFHW, noise_BCFHW, embeds_BLD, mask_BL = send_to_device(stacked, run.device)
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
