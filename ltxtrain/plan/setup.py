"""What the memory estimate needs to know of a configuration. Imports no numpy: doctor asks for this on any machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ltxtrain.config.formats import in_float32
from ltxtrain.config.optimizers import adapter_dtype
from ltxtrain.facts.machine import OWN_MEMORY
from ltxtrain.facts.models import ModelFacts, TransformerFacts, model_facts, transformer_facts
from ltxtrain.plan.memory import Offload, Recompute, TrainingSetup
from ltxtrain.plan.records import Bucket, BucketPlan, Sample
from ltxtrain.plan.targets import lora_targets

if TYPE_CHECKING:
    from ltxtrain.config import CacheRule, TrainConfig
    from ltxtrain.config.compute import MemoryConfig, PrecisionConfig
    from ltxtrain.plan.prompts import ValidationVideo

VALUE_BYTES = {"no": 4, "fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}


def training_setup(config: TrainConfig, device: str, videos: Sequence[ValidationVideo]) -> TrainingSetup:
    """What the memory estimate needs to know. ``device`` is the kind of the machine: cuda, rocm, mps or cpu."""
    shapes = [Bucket(video.width, video.height, video.frames) for video in videos]
    precision, cache, optimizer = config.precision, config.cache, config.optimizer
    objective = config.objective
    offloaded = optimizer.optimizer_cpu_offload_method != "none"
    return TrainingSetup(
        rank=config.adapter.lora_rank,
        targets=lora_targets(config.adapter),
        weight_bytes=_weight_bytes(precision),
        vae_bytes=VALUE_BYTES[precision.vae_dtype],
        batch_size=config.data.train_batch_size,
        checkpointing=config.memory.gradient_checkpointing,
        tiling=cache.vae_enable_tiling,
        accelerator=device,
        validation=max(shapes, key=lambda shape: shape.tokens) if shapes else None,
        precision=precision.base_model_precision,
        text_precision=precision.text_encoder_1_precision,
        text_bytes=VALUE_BYTES[precision.mixed_precision],
        text_half=precision.mixed_precision == "fp16",
        texts=cache.text_encoder_batch_size,
        recompute=_recompute(config.memory),
        offload=_offload(config.memory, device),
        framewise=cache.vae_enable_framewise_encoding,
        slicing=cache.vae_enable_slicing,
        timed=objective.ltx_train_mode == "i2v" and objective.ltx_i2v_prob > 0,
        full=config.model.model_type == "full",
        dropout=config.adapter.lora_dropout > 0,
        accumulation=optimizer.gradient_accumulation_steps,
        adapter_bytes=2 if adapter_dtype(optimizer.optimizer) == "bfloat16" else 4,
        optimizer=optimizer.optimizer,
        optimizer_config=optimizer.optimizer_config,
        updates_in_main_memory=offloaded,
        gradients_early=optimizer.optimizer_release_gradients or (offloaded and optimizer.optimizer_offload_gradients),
        guided=config.validation.validation_guidance > 1,
    )


def _weight_bytes(precision: PrecisionConfig) -> int:
    """What is not quantised in a quantised model has a dtype of its own."""
    if in_float32(precision.base_model_precision, precision.base_model_default_dtype):
        return VALUE_BYTES["fp32"]
    return VALUE_BYTES[precision.mixed_precision]


def _recompute(memory: MemoryConfig) -> Recompute:
    backend = memory.gradient_checkpointing_backend
    return Recompute(
        interval=memory.gradient_checkpointing_interval or 1,
        stride=memory.gradient_checkpointing_segment_stride,
        free_blocks=memory.gradient_checkpointing_free_blocks,
        feed_forward=backend.endswith("-ffn"),
        moved=backend.startswith("unsloth"),
        ahead=memory.gradient_checkpointing_offload_prefetch,
    )


def _offload(memory: MemoryConfig, device: str) -> Offload:
    """What waits elsewhere: nothing on a device whose memory is the main memory."""
    if device not in OWN_MEMORY:
        return Offload()
    grouped = memory.enable_group_offload
    disk = grouped and memory.group_offload_to_disk_path is not None
    return Offload(
        group=memory.group_offload_blocks_per_group if grouped else 0,
        leaves=grouped and memory.group_offload_type == "leaf_level",
        swapped=memory.musubi_blocks_to_swap,
        ahead=grouped and not disk and memory.group_offload_use_stream and device == "cuda",
        disk=disk,
        text_encoder=grouped and memory.group_offload_text_encoder,
        vae=grouped and memory.group_offload_vae,
        models=memory.enable_model_cpu_offload,
    )


def with_batches(
    setup: TrainingSetup,
    plans: Sequence[BucketPlan],
    samples: Sequence[Sample],
    rules: Mapping[str, CacheRule],
) -> TrainingSetup:
    """``setup`` with what the data sets say: clips in a batch, clips and captions encoded at one time, what is encoded
    on demand. ``rules`` are those of the data sets, by their names."""
    batches: dict[Bucket, int] = {}
    for plan in plans:
        batches[plan.bucket] = max(batches.get(plan.bucket, 1), min(plan.batch_size, plan.uses))
    encoded: dict[Bucket, int] = {}
    for sample in samples:
        encoded[sample.bucket] = max(encoded.get(sample.bucket, 1), rules[sample.dataset].batch_size)
    return replace(
        setup,
        batches=batches,
        encoded=encoded,
        texts=max([setup.texts, *(rule.text.batch_size for rule in rules.values())]),
        latents_on_demand=any(rule.ondemand or rule.redrawn or not rule.written for rule in rules.values()),
        texts_on_demand=any(rule.text.ondemand or not rule.text.written for rule in rules.values()),
    )


def base_facts(config: TrainConfig) -> ModelFacts | None:
    """Sizes of the base model, with another transformer in it where one is named and its sizes are known."""
    model = model_facts(config.model.pretrained_model_name_or_path)
    if model is None or not config.model.pretrained_transformer_model_name_or_path:
        return model
    return replace(model, transformer=base_transformer(config) or model.transformer)


def base_transformer(config: TrainConfig) -> TransformerFacts | None:
    """The transformer that is trained, where it is known for certain."""
    other = config.model.pretrained_transformer_model_name_or_path
    if other:
        subfolder = config.model.pretrained_transformer_subfolder
        return transformer_facts(other, "" if subfolder.lower() == "none" else subfolder)
    model = model_facts(config.model.pretrained_model_name_or_path)
    return model.transformer if model else None
