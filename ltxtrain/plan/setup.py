"""What the memory estimate needs to know of a configuration. Imports no numpy: doctor asks for this on any machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ltxtrain.plan.memory import TrainingSetup
from ltxtrain.plan.records import Bucket
from ltxtrain.plan.targets import lora_targets

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.plan.prompts import ValidationVideo

VALUE_BYTES = {"no": 4, "fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}


def training_setup(config: TrainConfig, device: str, videos: Sequence[ValidationVideo]) -> TrainingSetup:
    """What the memory estimate needs to know. ``device`` is the kind of the machine: cuda, rocm, mps or cpu."""
    shapes = [Bucket(video.width, video.height, video.frames) for video in videos]
    return TrainingSetup(
        rank=config.adapter.lora_rank,
        targets=lora_targets(config.adapter),
        weight_bytes=VALUE_BYTES[config.precision.mixed_precision],
        vae_bytes=VALUE_BYTES[config.precision.vae_dtype],
        batch_size=config.data.train_batch_size,
        checkpointing=config.memory.gradient_checkpointing,
        tiling=config.cache.vae_enable_tiling,
        accelerator=device,
        validation=max(shapes, key=lambda shape: shape.tokens) if shapes else None,
    )
