"""Combinations that cannot work and can be told from the configuration alone, each with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import get_args

from ltxtrain.config.attentions import ATTENTIONS
from ltxtrain.config.conflict import Conflict
from ltxtrain.config.entries import TableStrategy
from ltxtrain.config.explain import placed
from ltxtrain.config.formats import FORMATS, WORKING, in_float32
from ltxtrain.config.limits import size_faults
from ltxtrain.config.optimizer_conflicts import gradient_conflicts, optimizer_conflicts
from ltxtrain.config.schema import TrainConfig
from ltxtrain.errors import Fault


def conflict_faults(config: TrainConfig, sources: Mapping[str, str], skip: frozenset[str] = frozenset()) -> list[Fault]:
    """All conflicts of ``config`` as faults, but for those that touch a key in ``skip``."""
    faults = []
    for conflicts in (_named_data(config, sources), *(check(config) for check in _CHECKS)):
        for conflict in conflicts:
            if skip & set(conflict.keys):
                continue
            given = [key for key in conflict.keys if not sources.get(key, "default").startswith("default")]
            name = given[-1] if given else conflict.keys[-1]
            key, source = placed(name, sources.get(name, "default"))
            faults.append(Fault(key, conflict.problem, source, conflict.suggestion))
    return faults


def undone(config: TrainConfig, skip: frozenset[str] = frozenset()) -> set[str]:
    """Options that the conflicts of ``config`` say to take back; ``skip`` as above."""
    found = (conflict for check in _CHECKS for conflict in check(config))
    return {conflict.undoes for conflict in found if conflict.undoes and not skip & set(conflict.keys)}


def _named_data(config: TrainConfig, sources: Mapping[str, str]) -> Iterator[Conflict]:
    ways = ("instance_data_dir", "data_backend_config", "datasets")
    named = tuple(name for name in ways if getattr(config.data, name))
    if len(named) > 1:
        written = ", ".join(placed(name, sources.get(name, "default"))[0] for name in named)
        yield Conflict(named, f"data is named {len(named)} times: {written}", "keep one")


def _length(config: TrainConfig) -> Iterator[Conflict]:
    schedule = config.schedule
    if schedule.max_train_steps and schedule.num_train_epochs:
        yield Conflict(
            ("max_train_steps", "num_train_epochs"),
            f"both max_train_steps {schedule.max_train_steps} and num_train_epochs {schedule.num_train_epochs} are set",
            "set one of them to 0",
        )


def _learning_rate(config: TrainConfig) -> Iterator[Conflict]:
    schedule, optimizer = config.schedule, config.optimizer
    ends = ("polynomial", "cosine", "sine", "cosine_with_restarts", "cosine_half_period")
    peak = optimizer.peak_rate(config.data.train_batch_size * optimizer.gradient_accumulation_steps)
    if schedule.lr_scheduler in ends and schedule.lr_end >= peak:
        yield Conflict(
            ("lr_scheduler", "learning_rate", "lr_end"),
            f"{schedule.lr_scheduler} falls to lr_end {schedule.lr_end:g}, which is not below learning_rate "
            f"{peak:g}{' of lr_scale' if optimizer.lr_scale else ''}",
            "lower lr_end",
        )
    if schedule.lr_scheduler in ("linear", "polynomial") and 0 < schedule.max_train_steps < schedule.lr_warmup_steps:
        yield Conflict(
            ("max_train_steps", "lr_warmup_steps"),
            f"a warm-up of {schedule.lr_warmup_steps} steps is longer than the run of {schedule.max_train_steps}",
            "lower lr_warmup_steps",
        )
    if (optimizer.optimizer_beta1 is None) != (optimizer.optimizer_beta2 is None):
        yield Conflict(
            ("optimizer_beta1", "optimizer_beta2"),
            "optimizer_beta1 and optimizer_beta2 go together",
            "give both or neither",
        )
    if optimizer.lr_scale_sqrt and not optimizer.lr_scale:
        yield Conflict(("lr_scale_sqrt",), "lr_scale_sqrt needs lr_scale", "set lr_scale to true")


def _flow(config: TrainConfig) -> Iterator[Conflict]:
    flow = config.objective
    if flow.flow_schedule_auto_shift and flow.flow_schedule_shift:
        yield Conflict(
            ("flow_schedule_shift", "flow_schedule_auto_shift"),
            f"a fixed shift of {flow.flow_schedule_shift:g} and an automatic one exclude each other",
            "leave out flow_schedule_shift",
        )
    if flow.flow_use_uniform_schedule and flow.flow_use_beta_schedule:
        yield Conflict(
            ("flow_use_uniform_schedule", "flow_use_beta_schedule"), "sigma cannot be drawn in two ways", "keep one"
        )
    if flow.flow_custom_timesteps is not None and not flow.flow_custom_timesteps:
        yield Conflict(("flow_custom_timesteps",), "the list of timesteps is empty", "leave it out")
    if flow.flow_custom_timesteps and not all(0 < step <= 1000 for step in flow.flow_custom_timesteps):
        yield Conflict(("flow_custom_timesteps",), "a timestep must be above 0 and at most 1000")
    if flow.snr_gamma is not None:
        yield Conflict(
            ("snr_gamma",), "LTX-Video is a flow model: signal-to-noise weights do not apply", "leave it out"
        )
    if flow.masked_loss_probability > 0:
        yield Conflict(("masked_loss_probability",), "LTX-Video cannot train with a masked loss", "leave it out")
    if config.validation.evaluation_type == "clip":
        yield Conflict(("evaluation_type",), "CLIP scores do not apply to videos", "set it to none")
    if config.validation.validation_guidance_skip_layers:
        yield Conflict(
            ("validation_guidance_skip_layers",), "LTX-Video cannot skip layers while guiding", "leave it out"
        )


def _quantised(config: TrainConfig) -> Iterator[Conflict]:
    precision = config.precision
    base = precision.base_model_precision
    quantised = base != "no_change" or precision.quantization_config is not None
    for key, name in (
        ("base_model_precision", base),
        ("text_encoder_1_precision", precision.text_encoder_1_precision),
    ):
        verdict = FORMATS[name].verdict
        if verdict.refused:
            hint = f"use {verdict.instead}; these work: {', '.join(WORKING)}"
            yield Conflict((key,), f"{name} is refused: {verdict.why}", hint)
    if base == "nf4-bnb" and config.speed.dynamo_backend != "no":
        yield Conflict(
            ("base_model_precision", "dynamo_backend"),
            "NF4 does not work with torch.compile",
            "set dynamo_backend to no",
            undoes="dynamo_backend",
        )
    if quantised and config.model.model_type == "full":
        yield Conflict(
            ("base_model_precision", "model_type"),
            "a quantised base model cannot be trained in full",
            "train a LoRA",
            undoes="model_type",
        )
    if quantised and config.launch.fsdp_enable:
        yield Conflict(
            ("base_model_precision", "fsdp_enable"),
            "a quantised base model cannot be sharded by FSDP",
            "set fsdp_enable to false",
            undoes="fsdp_enable",
        )
    start = config.adapter.lora_init_type
    if quantised and start in ("pissa", "olora", "loftq"):
        yield Conflict(
            ("base_model_precision", "lora_init_type"),
            f"{start} starts from the weights of a base model that is not quantised",
            "leave out lora_init_type",
            undoes="lora_init_type",
        )
    if quantised and config.adapter.use_dora:
        yield Conflict(
            ("base_model_precision", "use_dora"),
            "DoRA measures the weights of a base model that is not quantised",
            "set use_dora to false",
            undoes="use_dora",
        )
    if precision.mixed_precision == "fp8" and base != "fp8-torchao":
        yield Conflict(
            ("mixed_precision", "base_model_precision"),
            "mixed_precision fp8 needs base_model_precision fp8-torchao",
            "set base_model_precision to fp8-torchao",
        )


def _memory(config: TrainConfig) -> Iterator[Conflict]:
    memory = config.memory
    ways = [
        name
        for name in ("enable_group_offload", "enable_model_cpu_offload", "ramtorch", "musubi_blocks_to_swap")
        if getattr(memory, name)
    ]
    if len(ways) > 1:
        yield Conflict(tuple(ways), f"{' and '.join(ways)} move the same weights", "keep one")
    if memory.gradient_checkpointing_interval and not memory.gradient_checkpointing:
        yield Conflict(
            ("gradient_checkpointing", "gradient_checkpointing_interval"),
            "an interval needs gradient_checkpointing",
            "set gradient_checkpointing to true",
        )
    if memory.musubi_blocks_to_swap and memory.musubi_block_swap_device != "cpu":
        yield Conflict(
            ("musubi_block_swap_device",),
            f"blocks are kept in main memory, and {memory.musubi_block_swap_device} is not that",
            "set musubi_block_swap_device to cpu",
        )
    interval, stride = memory.gradient_checkpointing_interval or 1, memory.gradient_checkpointing_segment_stride
    if memory.gradient_checkpointing_backend.endswith("-ffn") and interval > 1:
        yield Conflict(
            ("gradient_checkpointing_backend", "gradient_checkpointing_interval"),
            f"{memory.gradient_checkpointing_backend} recomputes the feed-forward of each block by itself",
            "leave out gradient_checkpointing_interval",
        )
    if stride is not None and stride < interval:
        yield Conflict(
            ("gradient_checkpointing_interval", "gradient_checkpointing_segment_stride"),
            f"recomputed pieces of {interval} blocks that begin {stride} apart would overlap",
            f"set gradient_checkpointing_segment_stride to {interval} or more",
        )
    if config.crepa.crepa_enabled and config.crepa.crepa_drop_vae_encoder and config.cache.vae_cache_ondemand:
        yield Conflict(
            ("crepa_drop_vae_encoder", "vae_cache_ondemand"),
            "without the VAE's encoder no clip can be encoded on demand",
            "set vae_cache_ondemand to false",
        )
    if config.launch.context_parallel_size > 1 and not config.launch.fsdp_enable:
        yield Conflict(("context_parallel_size",), "context_parallel_size needs fsdp_enable", "set fsdp_enable to true")


def _speed(config: TrainConfig) -> Iterator[Conflict]:
    speed, memory, precision = config.speed, config.memory, config.precision
    name, attention = speed.attention_mechanism, ATTENTIONS[speed.attention_mechanism]
    if attention.verdict.refused:
        why, instead = attention.verdict.why, attention.verdict.instead
        yield Conflict(("attention_mechanism",), f"{name} is refused: {why}", f"the nearest is {instead}")
    if attention.half and precision.mixed_precision == "no":
        yield Conflict(
            ("attention_mechanism", "mixed_precision"),
            f"{name} computes in 16 bits, and mixed_precision is no",
            "set mixed_precision to bf16, or attention_mechanism to diffusers",
        )
    elif attention.half and in_float32(precision.base_model_precision, precision.base_model_default_dtype):
        yield Conflict(
            ("attention_mechanism", "base_model_default_dtype"),
            f"{name} computes in 16 bits, and base_model_default_dtype fp32 lets a quantised base compute in float32",
            "set base_model_default_dtype to bf16, or attention_mechanism to diffusers",
        )
    if attention.compiled and speed.dynamo_backend != "inductor":
        yield Conflict(
            ("attention_mechanism", "dynamo_backend"),
            f"{name} has no fast kernel until it is compiled",
            "set dynamo_backend to inductor",
        )
    if not attention.trains and speed.sageattention_usage != "inference":
        yield Conflict(
            ("attention_mechanism", "sageattention_usage"),
            "SageAttention has no backward pass: nothing would be learned through attention",
            "set sageattention_usage to inference",
        )
    if speed.dynamo_mode is not None and speed.dynamo_backend not in ("no", "inductor"):
        yield Conflict(
            ("dynamo_backend", "dynamo_mode"), f"{speed.dynamo_backend} has no modes", "leave dynamo_mode out"
        )
    moving = [name for name in ("enable_group_offload", "musubi_blocks_to_swap") if getattr(memory, name)]
    if speed.dynamo_backend != "no" and moving:
        if not speed.dynamo_use_regional_compilation:
            yield Conflict(
                (moving[0], "dynamo_use_regional_compilation"),
                "weights cannot be moved in the middle of a transformer that is compiled as a whole",
                "set dynamo_use_regional_compilation to true",
            )
        elif memory.enable_group_offload and memory.group_offload_type == "leaf_level":
            yield Conflict(
                ("dynamo_backend", "group_offload_type"),
                "weights cannot be moved in the middle of a block that is compiled",
                "set group_offload_type to block_level",
            )


def _data(config: TrainConfig) -> Iterator[Conflict]:
    data = config.data
    if not data.datasets and data.data_backend_config is None:  # of a list, each entry is looked at by itself
        for key, problem, hint in size_faults(data):
            yield Conflict(("resolution_type", key), problem, hint)
    if data.video_windows_per_clip > 1 and data.video_window != "uniform":
        yield Conflict(
            ("video_windows_per_clip", "video_window"), "several windows need video_window uniform", "set video_window"
        )
    if data.video_window_stride is not None and data.video_window != "all":
        yield Conflict(("video_window_stride", "video_window"), "a stride needs video_window all", "set video_window")
    if data.caption_strategy in get_args(TableStrategy) and data.instance_data_dir is not None:
        yield Conflict(
            ("caption_strategy", "instance_data_dir"),
            f"{data.caption_strategy} needs a table, which a folder alone does not name",
            "list the data set in data_backend_config, with its table",
        )
    if data.caption_strategy == "instanceprompt" and not data.instance_prompt:
        yield Conflict(("caption_strategy", "instance_prompt"), "instanceprompt needs an instance_prompt")
    for name in ("only_instance_prompt", "prepend_instance_prompt"):
        if getattr(data, name) and not data.instance_prompt and not data.datasets and not data.data_backend_config:
            yield Conflict((name, "instance_prompt"), f"{name} needs an instance_prompt")


def _outputs(config: TrainConfig) -> Iterator[Conflict]:
    checkpoint = config.checkpoint
    if checkpoint.disk_low_action == "script" and not checkpoint.disk_low_script:
        yield Conflict(("disk_low_action", "disk_low_script"), "the action script needs disk_low_script")
    if config.validation.validation_method == "external-script" and not config.validation.validation_external_script:
        yield Conflict(("validation_method",), "external-script needs validation_external_script")
    if config.validation.validation_preview and config.tracking.webhook_config is None:
        yield Conflict(("validation_preview",), "previews are sent by webhook_config, which is not set")


Check = Callable[[TrainConfig], Iterator[Conflict]]

_CHECKS: tuple[Check, ...] = (
    _length,
    _learning_rate,
    optimizer_conflicts,
    gradient_conflicts,
    _flow,
    _quantised,
    _memory,
    _speed,
    _data,
    _outputs,
)
