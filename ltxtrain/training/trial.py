"""A trial of the largest batch before the first real step, so that what does not fit is known at once.

It computes with made-up latents all that a step does, the optimiser's update included, and leaves nothing changed: the
adapter gets its weights back, the optimiser is one of its own, and no random state is used that training uses.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterable

import torch

from ltxtrain.errors import LtxtrainError
from ltxtrain.events import TRAINING, Event, MemoryMeasured, StageDone, StageProgress, StageStarted
from ltxtrain.learn.batch import Clean, Drawn
from ltxtrain.learn.device import memory_advice
from ltxtrain.learn.draws import Place, dropout_seed
from ltxtrain.learn.memory import release_memory
from ltxtrain.learn.optimizers import clip_gradients, let_go, make_optimizer, take_over
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.text import MAX_TOKENS
from ltxtrain.plan.records import Bucket, Plan
from ltxtrain.training.feed import made_ready
from ltxtrain.training.memory import measured
from ltxtrain.training.run import Run
from ltxtrain.training.step import compare

STAGE = "trial of the largest batch"


def try_largest(run: Run, stop: StopFlag) -> Generator[Event, None, MemoryMeasured]:
    """Two steps: the second one finds the optimiser's state there, as all but the first do.

    Raises ``LtxtrainError`` for a loss that is no number, and for an update that makes the weights none.
    """
    section = run.plan.config.optimizer
    bucket, clips = largest_batch(run.plan)
    detail = f"{clips} x {bucket.key}"
    yield StageStarted(STAGE, 2, 0, "steps")
    started = time.perf_counter()
    kept = {name: parameter.detach().to("cpu", copy=True) for name, parameter in run.parameters.items()}
    let_go(run.optimizer)
    optimizer = make_optimizer(run.parameters, section, run.plan.config.model.seed)
    if getattr(optimizer, "is_paged", False):
        optimizer.is_paged = False  # bitsandbytes never gives back what it has paged
    advice = needs(run.plan, TRAINING, run.device)
    with stop.at_once("training has not begun"), memory_advice(f"trying to train on {detail}", advice):
        for number, micros in enumerate((1, min(2, run.plan.accumulation)), 1):
            for micro in range(micros):
                place = Place(run.plan.config.model.seed, 0, micro)
                with dropout_seed(place, run.device):
                    loss = compare(run, made_ready(run, *_made_up(run, bucket, clips, place))).mean()
                    loss.backward()
            value, norm = loss.item(), clip_gradients(optimizer, section).item()
            if run.loss_scale is not None and math.isfinite(value) and not math.isfinite(norm):
                # In float16 training goes by its loss scale. An update by zeros makes the state and changes little.
                torch._foreach_zero_([each.grad for each in run.parameters.values() if each.grad is not None])
                norm = 0.0
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            _refuse_non_finite(run, number, value, norm)
            yield StageProgress(STAGE, number)
    with torch.no_grad():
        for name, parameter in run.parameters.items():
            parameter.copy_(kept[name])
    found = measured(run.plan, TRAINING, run.meter, "probe", detail)
    let_go(optimizer)
    take_over(run.optimizer)
    del optimizer
    release_memory(run.device)
    run.meter.restart(TRAINING)
    yield StageDone(STAGE, time.perf_counter() - started, detail)
    return found


def _refuse_non_finite(run: Run, number: int, loss: float, norm: float) -> None:
    """After update ``number``. What was finite in the first step and is not in the second, the first update broke."""
    config = run.plan.config
    finite = math.isfinite(loss) and math.isfinite(norm)
    if finite and _finite(run.parameters.values()):
        return
    if not finite and number == 1:
        what, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
        raise LtxtrainError(
            f"the {what} of a trial batch is {value} (mixed_precision {config.precision.mixed_precision}, "
            f"base_model_precision {config.precision.base_model_precision})",
            hint="set mixed_precision to bf16 and base_model_precision to no_change, or name another model",
        )
    settings = config.optimizer.optimizer_config
    raise LtxtrainError(
        f"a trial update of {config.optimizer.optimizer} made weights that cannot be computed with (learning_rate "
        f"{config.optimizer.learning_rate:g}{f', optimizer_config {settings}' if settings else ''})",
        hint="lower learning_rate" + (", or leave out optimizer_config" if settings else ""),
    )


def _finite(parameters: Iterable[torch.nn.Parameter]) -> bool:
    """A sum is NaN or infinite where one of its values is, and takes no memory."""
    return bool(torch.stack([parameter.detach().sum().float() for parameter in parameters]).isfinite().all())


def largest_batch(plan: Plan) -> tuple[Bucket, int]:
    """The bucket whose batches have the most tokens, and the number of clips in one."""
    sizes = [(planned.bucket, min(planned.batch_size, planned.uses)) for planned in plan.buckets]
    return max(sizes, key=lambda size: size[0].tokens * size[1])


def _made_up(run: Run, bucket: Bucket, clips: int, place: Place) -> tuple[Clean, Drawn]:
    """A batch of that size. Where first frames are given clean now and then, they are here: such tokens each have a
    noise level of their own, which takes more. Half of each caption is padding."""
    settings = run.transformer.config
    shape = (settings.in_channels, bucket.latent_frames, bucket.latent_height, bucket.latent_width)
    noise_BCFHW = torch.stack([place.noise("trial", str(number), shape) for number in range(clips)])
    mask_BL = torch.arange(MAX_TOKENS).expand(clips, MAX_TOKENS) < MAX_TOKENS // 2
    embeds_BLD = torch.zeros(clips, MAX_TOKENS, settings.caption_channels)
    clean = Clean(torch.zeros_like(noise_BCFHW), embeds_BLD, mask_BL)
    return clean, Drawn(noise_BCFHW, [0.5] * clips, [_shows_first_frames(run.plan)] * clips)


def _shows_first_frames(plan: Plan) -> bool:
    objective = plan.config.objective
    asked = objective.ltx_train_mode == "i2v" and objective.ltx_i2v_prob > 0
    return asked and any(sample.i2v for sample in plan.samples)
