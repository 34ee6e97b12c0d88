"""What the plan has to say in sentences about the run: its length, its videos, its machine."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from ltxtrain.config import parse_resolutions
from ltxtrain.config.optimizers import OPTIMIZERS, SMALLEST_PAGED
from ltxtrain.facts.machine import Machine
from ltxtrain.facts.models import RANDOM_MODELS, target_layers
from ltxtrain.plan.filling import Filled
from ltxtrain.plan.length import RunLength
from ltxtrain.plan.order import BatchOrder
from ltxtrain.plan.prompts import render_size
from ltxtrain.plan.records import BucketPlan, Sample
from ltxtrain.plan.targets import lora_targets

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.config.optim import ScheduleConfig
    from ltxtrain.config.validation import ValidationConfig
    from ltxtrain.facts.models import TransformerFacts
    from ltxtrain.plan.prompts import ValidationVideo

FEW_CLIPS = 4
MANY_EPOCHS = 400
NAMED = 5  # buckets in one sentence
LOOKED_AT = 20_000  # batches


def bucket_notices(filled: Filled) -> list[str]:
    """Buckets that hold fewer clips than one step draws, and what is done about it."""
    notices = []
    if filled.short:
        notices.append(f"fewer clips than one step draws in {_keys(filled.short)}: batches of them are short")
    if filled.padded:
        raised = ", ".join(f"{_key(plan)} to {plan.uses // plan.samples - 1}" for plan in filled.padded[:NAMED])
        more = f" and {len(filled.padded) - NAMED} more" if len(filled.padded) > NAMED else ""
        notices.append(f"allow_dataset_oversubscription raises repeats of buckets too small for a step: {raised}{more}")
    return notices


def token_notices(filled: Filled, budget: int, sized: Collection[str]) -> list[str]:
    """Buckets of which one clip alone is above ``train_batch_tokens``. Sets in ``sized`` have a size of their own."""
    over = [plan for plan in filled.buckets if 0 < budget < plan.bucket.tokens and plan.dataset not in sized]
    if not over:
        return []
    most = max(plan.bucket.tokens for plan in over)
    return [f"one clip is above train_batch_tokens {budget} (up to {most} tokens), batches hold one: {_keys(over)}"]


def length_notices(length: RunLength, samples: Sequence[Sample], steps_given: bool) -> list[str]:
    notices = []
    if not steps_given:
        notices.append(f"neither max_train_steps nor num_train_epochs sets a length: {length.steps} steps")
    if len(samples) < FEW_CLIPS:
        count = "one training sample" if len(samples) == 1 else f"{len(samples)} training samples"
        notices.append(f"only {count}: the adapter will learn what is in there and little else")
    if length.epochs > MANY_EPOCHS:
        notices.append(f"each sample is seen about {length.epochs:.0f} times: fewer steps may look better")
    return notices


def undrawn_warnings(order: BatchOrder, batches: int) -> list[str]:
    """Data sets that supply none of a run's batches, by their schedule or by chance: their clips are encoded for
    nothing. Of a very long run the beginning is looked at; what comes later is taken to be drawn from."""
    if not batches:
        return []
    last_step = (batches - 1) // order.rule.accumulation + 1
    epochs = math.ceil(order.progress(batches))
    trained = [found for found in order.rule.datasets if found.role == "train" and found.schedule.weight > 0]
    left = {found.id for found in trained}
    never = {each.id for each in trained if each.schedule.start_step > last_step or each.schedule.start_epoch > epochs}
    for index in range(min(batches, LOOKED_AT)):
        if left <= never:
            break
        left.discard(order[index].dataset)
    names = never if batches > LOOKED_AT else left
    return [
        f"{each.id}: no batch of the run is drawn from it, and its clips are encoded for nothing: "
        "look at its start_step, start_epoch and probability, or set disabled"
        for each in trained
        if each.id in names
    ]


def schedule_warnings(schedule: ScheduleConfig, steps: int) -> list[str]:
    """A warm-up as long as the run. With ``cosine`` the guides mean another curve by that, which is named."""
    name, warmup = schedule.lr_scheduler, schedule.lr_warmup_steps
    if name in ("constant", "sine", "cosine_half_period") or warmup < steps:
        return []
    text = f"the learning rate never reaches its highest value: lr_warmup_steps is {warmup}, the run has {steps} steps"
    if name == "cosine":
        text += (
            "; lr_scheduler cosine warms up here, and the curve of the guides, which only falls over that many steps, "
            "is lr_scheduler cosine_half_period"
        )
    return [text]


def machine_notices(machine: Machine) -> list[str]:
    """Hardware that lies idle."""
    if len(machine.gpus) < 2:
        return []
    return [f"one of {len(machine.gpus)} GPUs is used: a run is one process"]


def validation_notices(section: ValidationConfig, videos: Sequence[ValidationVideo]) -> list[str]:
    """Sizes and lengths that are rounded, and captions in place of prompts."""
    asked = parse_resolutions(section.validation_resolution)
    rounded = [f"{w}x{h} as {rendered[0]}x{rendered[1]}" for w, h in asked if (rendered := render_size(w, h)) != (w, h)]
    notices = [f"validation_resolution: {', '.join(rounded)}: sides are multiples of 32"] if rounded and videos else []
    frames = section.validation_num_video_frames
    if videos and frames is not None and videos[0].frames != frames:
        notices.append(f"validation_num_video_frames: {frames} as {videos[0].frames}: frame counts are 8k+1")
    return notices + _caption_notices(section, videos)


def _caption_notices(section: ValidationConfig, videos: Sequence[ValidationVideo]) -> list[str]:
    if section.validation_disable or section.validation_prompt or section.user_prompt_library:
        return []
    many = "the captions of two clips are" if len({video.prompt for video in videos}) > 1 else "a clip's caption is"
    return [f"no validation_prompt is given: {many} rendered instead"] if videos else []


def _keys(plans: Sequence[BucketPlan]) -> str:
    more = f" and {len(plans) - NAMED} buckets more" if len(plans) > NAMED else ""
    return ", ".join(_key(plan) for plan in plans[:NAMED]) + more


def _key(plan: BucketPlan) -> str:
    return f"{plan.bucket.key} of {plan.dataset}"


def model_notices(name: str) -> list[str]:
    if name not in RANDOM_MODELS:
        return []
    return [f"{name} has random weights: it is for measuring memory and speed, and what it learns means nothing"]


def paging_notices(config: TrainConfig, transformer: TransformerFacts | None, machine: Machine) -> list[str]:
    """A paged optimiser that pages nothing, as all that it trains is small. A CPU has nothing to page."""
    name = config.optimizer.optimizer
    if not OPTIMIZERS[name].paged or transformer is None or machine.device == "cpu":
        return []
    sides = (max(shape) for shape in target_layers(transformer, lora_targets(config.adapter)).values())
    largest = config.adapter.lora_rank * max(sides, default=0)
    if config.model.model_type == "full" or largest >= SMALLEST_PAGED:
        return []
    return [
        f"{name} pages the states of tensors from {SMALLEST_PAGED:,} values on, and the adapter's largest has "
        f"{largest:,}: all states stay on the GPU"
    ]
