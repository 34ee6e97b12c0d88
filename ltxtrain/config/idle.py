"""Options that are accepted and do nothing here, each told with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ltxtrain.config.attentions import ATTENTIONS
from ltxtrain.config.catalogue import options, value_of
from ltxtrain.config.compute import PrecisionConfig
from ltxtrain.config.formats import FORMATS
from ltxtrain.config.idle_entries import idle_words
from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.config.option import search_words
from ltxtrain.config.schema import TrainConfig

WITHOUT_MASTER: Final[Mapping[str, tuple[str, ...]]] = {
    "lora_type": ("lycoris_config", "validation_lycoris_strength"),
    "assistant_lora_path": ("assistant_lora_strength",),
    "gradient_checkpointing": (
        "gradient_checkpointing_interval",
        "gradient_checkpointing_backend",
        "gradient_checkpointing_segment_stride",
        "gradient_checkpointing_free_blocks",
        "gradient_checkpointing_offload_prefetch",
    ),
    "base_model_precision": ("base_model_default_dtype",),
    "enable_group_offload": (
        "group_offload_type",
        "group_offload_blocks_per_group",
        "group_offload_use_stream",
        "group_offload_to_disk_path",
        "group_offload_text_encoder",
        "group_offload_vae",
    ),
    "musubi_blocks_to_swap": ("musubi_block_swap_device",),
    "ramtorch": (
        "ramtorch_target_modules",
        "ramtorch_transformer_percent",
        "ramtorch_text_encoder",
        "ramtorch_vae",
    ),
    "optimizer_cpu_offload_method": ("optimizer_offload_gradients",),
    "dynamo_backend": ("dynamo_mode", "dynamo_fullgraph", "dynamo_dynamic", "dynamo_use_regional_compilation"),
    "dataloader_prefetch": ("dataloader_prefetch_qlen",),
    "flow_custom_timesteps": ("flow_timesteps_mode",),
    "flow_use_beta_schedule": ("flow_beta_schedule_alpha", "flow_beta_schedule_beta"),
    "ltx_protect_first_frame": ("ltx_partial_noise_fraction",),
    "loss_type": ("huber_c", "huber_schedule"),
    "input_perturbation": ("input_perturbation_steps",),
    "crepa_enabled": tuple(name for name, option in options().items() if option.section == "crepa")[1:],
    "scheduled_sampling_max_step_offset": tuple(
        name for name, option in options().items() if option.section == "rollout"
    )[1:],
    "use_ema": tuple(name for name, option in options().items() if option.section == "ema")[1:],
    "validation_adapter_path": (
        "validation_adapter_name",
        "validation_adapter_strength",
        "validation_adapter_mode",
    ),
    "validation_input": ("validation_stitch_input_location",),
    "validation_method": ("validation_external_script", "validation_external_background"),
    "validation_image_format": ("validation_image_quality",),
    "validation_preview": ("validation_preview_steps",),
    "disk_low_threshold": ("disk_low_action", "disk_low_script"),
    "push_to_hub": (
        "push_checkpoints_to_hub",
        "push_to_hub_background",
        "hub_model_id",
        "model_card_private",
        "model_card_note",
        "post_upload_script",
    ),
    "report_to": ("tracker_project_name", "tracker_run_name"),
    "webhook_config": ("webhook_reporting_interval",),
    "num_processes": ("validation_multigpu",),
    "fsdp_enable": tuple(name for name in options() if name.startswith("fsdp_") and name != "fsdp_enable"),
    "context_parallel_size": ("context_parallel_comm_strategy",),
}
"""Options that do something only while their master asks for it."""

NO_EFFECT: Final[Mapping[str, str]] = {
    "strict_epoch_limit": "a run ends at exactly the step that its plan says",
    "offload_during_startup": "each phase always holds only the model that it needs",
    "lora_format": "both layouts are always written",
    "checkpointing_use_tempdir": "checkpoints are always written beside their place and renamed",
    "override_dataset_config": "caches are keyed by content, so nothing old is ever used",
    "vae_cache_scan_behaviour": "entries that do not fit are always made again",
    "validation_disable_unconditional": "the empty prompt is never rendered for LTX-Video",
    "validation_guidance_real": "LTX-Video has no such guidance",
    "preserve_data_backend_cache": "folders are always read anew; what is known of each file is remembered",
    "metadata_update_interval": "facts about clips are not written beside them",
    "read_batch_size": "clips are read ahead of their use, as far as memory allows",
    "image_processing_batch_size": "clips are prepared ahead of their use, as far as memory allows",
    "aspect_bucket_worker_count": "buckets are worked out from the clips' headers",
    "max_workers": "clips are read by one process for each core, eight at most",
    "delete_unwanted_images": "clips that do not fit are listed in the plan, and no file is ever deleted",
}
"""Documented options that are accepted and told to have no effect here, each with the reason."""

IDLE_WHILE: Final[tuple[tuple[str, tuple[Any, ...], tuple[str, ...]], ...]] = (
    ("lr_scheduler", ("constant", "constant_with_warmup", "linear"), ("lr_end",)),
    (
        "lr_scheduler",
        tuple(name for name in options()["lr_scheduler"].choices if name != "polynomial"),
        ("lr_power",),
    ),
    (
        "lr_scheduler",
        tuple(name for name in options()["lr_scheduler"].choices if name != "cosine_with_restarts"),
        ("lr_num_cycles",),
    ),
    ("max_grad_norm", (0.0,), ("grad_clip_method",)),
    (
        "attention_mechanism",
        tuple(name for name, attention in ATTENTIONS.items() if attention.trains),
        ("sageattention_usage",),
    ),
    (
        "optimizer",
        tuple(name for name, facts in OPTIMIZERS.items() if not facts.clips),
        ("max_grad_norm", "grad_clip_method"),
    ),
    ("gradient_checkpointing_backend", ("torch", "torch-ffn"), ("gradient_checkpointing_offload_prefetch",)),
    ("flow_use_uniform_schedule", (True,), ("flow_sigmoid_scale",)),
    ("flow_use_beta_schedule", (True,), ("flow_sigmoid_scale",)),
    ("ltx_train_mode", ("t2v",), ("ltx_i2v_prob",)),
    ("pretrained_transformer_model_name_or_path", (None,), ("pretrained_transformer_subfolder",)),
    ("allow_dataset_oversubscription", (True,), ("disable_bucket_pruning",)),
    (
        "eval_loss_disable",
        (True,),
        ("eval_steps_interval", "eval_epoch_interval", "num_eval_images", "eval_timesteps", "eval_dataset_pooling"),
    ),
    (
        "validation_disable",
        (True,),
        (
            "validation_prompt",
            "user_prompt_library",
            "num_validation_images",
            "validation_step_interval",
            "validate_after_step",
            "validation_on_startup",
            "disable_benchmark",
        ),
    ),
)
"""(master, values of it, options that do nothing while it has one of these values)."""

SMALL_BUCKETS: Final = ("disable_bucket_pruning", "allow_dataset_oversubscription")
"""What to do with small buckets; the documented rules, which hold for a list of data sets."""

BETAS: Final = ("optimizer_beta1", "optimizer_beta2")
"""Not every optimiser has them; both are given or neither."""

GUIDED: Final = ("validation_negative_prompt", "validation_guidance_rescale")
"""What shapes guidance, which there is none of at 1 and below."""


def idle_notices(config: TrainConfig, sources: Mapping[str, str]) -> list[str]:
    """One notice for each master under which options that are set do nothing, and one for each option without effect.

    An option counts as set when its value is not the default.
    """
    tree = {name: value_of(config, name) for name in options()}
    given = {
        name for name, value in tree.items() if sources.get(name) != "default" and value != options()[name].default
    }
    notices = []
    for master, under in WITHOUT_MASTER.items():
        value = tree[master]
        idle = [name for name in under if name in given]
        if idle and _is_off(master, value):
            notices.append(_idle(idle, f"while {master} is {_word(value)}"))
    by_reason: dict[str, list[str]] = {}
    for master, values, under in IDLE_WHILE:
        if tree[master] in values:
            by_reason.setdefault(f"while {master} is {_word(tree[master])}", []).extend(
                name for name in under if name in given
            )
    notices += [_idle(idle, why) for why, idle in by_reason.items() if idle]
    idle = [name for name in SMALL_BUCKETS if name in given]
    if idle and not _listed(config):
        notices.append(_idle(idle, "for a folder named alone: its small buckets are always kept, as short batches"))
    if "train_batch_size" in given and config.data.train_batch_tokens:
        notices.append(_idle(["train_batch_size"], "while train_batch_tokens is set"))
    if "target_downsample_size" in given and config.data.maximum_image_size is None and not _listed(config):
        notices.append(_idle(["target_downsample_size"], "while maximum_image_size is not set"))
    idle = [name for name in BETAS if name in given]
    if idle and OPTIMIZERS[config.optimizer.optimizer].betas is None:
        notices.append(_idle(idle, f"while optimizer is {config.optimizer.optimizer}"))
    if "quantize_via" in given and not _quantises(config.precision):
        notices.append(_idle(["quantize_via"], "while nothing is quantised"))
    words = idle_words(search_words(config.data.skip_file_discovery))
    notices += [f"skip_file_discovery {word} has no effect: {reason}" for word, reason in words]
    idle = [name for name in GUIDED if name in given]
    if idle and config.validation.validation_guidance <= 1:
        notices.append(_idle(idle, f"while validation_guidance is {_word(config.validation.validation_guidance)}"))
    notices += [f"{name} has no effect: {reason}" for name, reason in NO_EFFECT.items() if name in given]
    return notices


def _listed(config: TrainConfig) -> bool:
    return bool(config.data.datasets) or config.data.data_backend_config is not None


def _quantises(section: PrecisionConfig) -> bool:
    names = (section.base_model_precision, section.text_encoder_1_precision)
    return any(FORMATS[name].quantised for name in names)


def _is_off(master: str, value: object) -> bool:
    return value in (options()[master].default, False, None, 0) and not (master == "gradient_checkpointing" and value)


def _idle(names: list[str], why: str) -> str:
    return f"{', '.join(names)} {'has' if len(names) == 1 else 'have'} no effect {why}"


def _word(value: object) -> str:
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
