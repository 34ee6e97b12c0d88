"""The one list of documented options that are not built yet. Whoever builds one takes it from here.

An option is listed with the values that do work; asking for any other value is refused by name. Options that only
shape an option listed here stand in ``WITHOUT_MASTER``: they have no effect while their master is off, and that is
told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ltxtrain.config.catalogue import options
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.explain import placed
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.secrets import shown
from ltxtrain.errors import Fault

UNBUILT: Final[Mapping[str, tuple[Any, ...]]] = {
    # model and adapter
    "model_type": ("lora",),
    "lora_type": ("standard",),
    "seed_for_each_device": (True,),
    "t5_padding": ("unmodified",),
    "lora_init_type": ("default", "gaussian"),
    "use_dora": (False,),
    "peft_lora_mode": ("standard",),
    "init_lora": (None,),
    "init_lora_step": (None,),
    "init_lora_ema": (None,),
    "assistant_lora_path": (None,),
    # data and cache
    "maximum_image_size": (None,),
    "target_downsample_size": (None,),
    "data_backend_sampling": ("auto-weighting",),
    "vae_enable_patch_conv": (False,),
    "vae_enable_temporal_roll": (False,),
    "keep_vae_loaded": (False,),
    "vae_batch_size": (1,),
    "text_encoder_batch_size": (1,),
    "vae_cache_ondemand": (False,),
    "vae_cache_disable": (False,),
    "text_cache_ondemand": (False,),
    "text_cache_disable": (False,),
    # precision, memory, speed
    "mixed_precision": ("no", "bf16"),
    "base_model_precision": ("no_change",),
    "quantization_config": (None,),
    "text_encoder_1_precision": ("no_change",),
    "text_encoder_2_precision": ("no_change",),
    "text_encoder_3_precision": ("no_change",),
    "text_encoder_4_precision": ("no_change",),
    "disable_tf32": (False,),
    "gradient_checkpointing_interval": (None, 1),
    "gradient_checkpointing_backend": ("torch",),
    "gradient_checkpointing_segment_stride": (None,),
    "gradient_checkpointing_offload_attention": (False,),
    "gradient_checkpointing_offload_prefetch": (False,),
    "offload_during_save": (False,),
    "delete_model_after_load": (False,),
    "enable_model_cpu_offload": (False,),
    "enable_group_offload": (False,),
    "musubi_blocks_to_swap": (0,),
    "ramtorch": (False,),
    "attention_mechanism": ("diffusers",),
    "dynamo_backend": ("no",),
    "dataloader_prefetch": (False,),
    # objective
    "flow_custom_timesteps": (None,),
    "flow_cubic_schedule_weights": (None,),
    "mixflow_enabled": (False,),
    "ltx_protect_first_frame": (False,),
    "loss_type": ("l2",),
    "input_perturbation": (0.0,),
    "distillation_config": (None,),
    "crepa_enabled": (False,),
    "scheduled_sampling_max_step_offset": (0,),
    # optimiser and schedule
    "optimizer": ("torch-adamw",),
    "optimizer_release_gradients": (False,),
    "optimizer_cpu_offload_method": ("none",),
    "optimizer_offload_gradients": (False,),
    "fuse_optimizer": (False,),
    "adam_beta1": (0.9,),
    "adam_beta2": (0.999,),
    "adam_epsilon": (1e-8,),
    "adam_weight_decay": (1e-2,),
    "lr_scale": (False,),
    "lr_scale_sqrt": (False,),
    "use_ema": (False,),
    # validation
    "validation_prompt_library": (False,),
    "validation_seed_source": ("cpu",),
    "validation_randomize": (False,),
    "validation_epoch_interval": (None,),
    "validate_after_epoch": (None,),
    "validation_noise_scheduler": (None,),
    "validation_using_datasets": (False,),
    "validation_input": (None,),
    "validation_adapter_path": (None,),
    "validation_adapter_config": (None,),
    "validation_method": ("simpletuner-local",),
    "validation_image_format": ("png",),
    "validation_preview": (False,),
    "eval_steps_interval": (None,),
    "eval_epoch_interval": (None,),
    # checkpoints, publishing, tracking, launch
    "checkpoint_epoch_interval": (None,),
    "checkpointing_rolling_steps": (None,),
    "delete_invalid_checkpoints": (False,),
    "disk_low_threshold": (None,),
    "post_checkpoint_script": (None,),
    "push_to_hub": (False,),
    "publishing_config": (None,),
    "report_to": ("none",),
    "webhook_config": (None,),
    "num_processes": (1,),
    "num_machines": (1,),
    "accelerate_config": (None,),
    "accelerate_extra_args": (None,),
    "deepspeed_config": (None,),
    "fsdp_enable": (False,),
    "context_parallel_size": (1,),
}

WITHOUT_MASTER: Final[Mapping[str, tuple[str, ...]]] = {
    "lora_type": ("lycoris_config", "validation_lycoris_strength"),
    "assistant_lora_path": ("assistant_lora_strength",),
    "gradient_checkpointing": ("gradient_checkpointing_interval",),
    "base_model_precision": ("base_model_default_dtype", "quantize_via"),
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
    "dynamo_backend": ("dynamo_mode", "dynamo_fullgraph", "dynamo_dynamic", "dynamo_use_regional_compilation"),
    "dataloader_prefetch": ("dataloader_prefetch_qlen",),
    "attention_mechanism": ("sageattention_usage",),
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
    "eval_steps_interval": (
        "num_eval_images",
        "eval_timesteps",
        "eval_dataset_id",
        "eval_dataset_pooling",
        "eval_loss_disable",
    ),
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
    "vae_enable_slicing": "clips are always encoded one by one",
    "offload_during_startup": "each phase always holds only the model that it needs",
    "lora_format": "both layouts are always written",
    "checkpointing_use_tempdir": "checkpoints are always written beside their place and renamed",
    "override_dataset_config": "caches are keyed by content, so nothing old is ever used",
    "vae_cache_scan_behaviour": "entries that do not fit are always made again",
    "validation_disable_unconditional": "the empty prompt is never rendered for LTX-Video",
    "validation_guidance_real": "LTX-Video has no such guidance",
    "skip_file_discovery": "folders are always read anew",
    "preserve_data_backend_cache": "folders are always read anew",
    "metadata_update_interval": "facts about clips are not written beside them",
    "read_batch_size": "clips are read one after the other, ahead of their use",
    "image_processing_batch_size": "clips are prepared one after the other, ahead of their use",
    "aspect_bucket_worker_count": "buckets are worked out from the clips' headers",
    "max_workers": "clips are read one after the other, ahead of their use",
    "write_batch_size": "cache entries are written as they are made",
    "delete_unwanted_images": "clips that do not fit are listed in the plan, and no file is ever deleted",
}
"""Documented options that are accepted and told to have no effect here, each with the reason."""


def asked_unbuilt(config: TrainConfig, sources: Mapping[str, str]) -> dict[str, Fault]:
    """The options of ``config`` that ask for something that is not built yet, each as a fault."""
    asked = {}
    for name, built in UNBUILT.items():
        option = options()[name]
        value = getattr(getattr(config, option.section), name)
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in built):
            instead = " or ".join(shown(name, known) for known in built if known is not None)
            suggestion = f"built: {instead}" if instead and option.kinds != {"bool"} else "leave it out"
            key, source = placed(name, sources.get(name, "default"))
            asked[name] = Fault(key, f"{shown(name, value)} is not built yet", source, suggestion)
    return asked


def idle_notices(config: TrainConfig, sources: Mapping[str, str]) -> list[str]:
    """One notice for each master that is off while options under it are set, and one for each option without effect."""
    tree = {name: getattr(getattr(config, option.section), name) for name, option in options().items()}
    given = {
        name for name, value in tree.items() if sources.get(name) != "default" and value != options()[name].default
    }
    notices = []
    for master, under in WITHOUT_MASTER.items():
        option = options()[master]
        idle = [name for name in under if name in given]
        value = tree[master]
        if idle and value in (option.default, False, None, 0) and not (master == "gradient_checkpointing" and value):
            verb = "has" if len(idle) == 1 else "have"
            notices.append(f"{', '.join(idle)} {verb} no effect while {master} is {_word(value)}")
    notices += [f"{name} has no effect: {reason}" for name, reason in NO_EFFECT.items() if name in given]
    return notices


def _word(value: object) -> str:
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


UNBUILT_ENTRY: Final[Mapping[str, tuple[Any, ...]]] = {
    "type": ("local",),
    "train_batch_size": (None,),
    "maximum_image_size": (None,),
    "target_downsample_size": (None,),
    "max_upscale_threshold": (None,),
    "crop_style": ("random", "center", "centre", "corner"),
    "crop_aspect": ("square", "preserve"),
    "crop_aspect_buckets": (None,),
    "caption_strategy": (None, "textfile", "filename", "instanceprompt"),
    "caption_shuffle": (None,),
    "caption_filter_list": (None,),
    "metadata_backend": ("discovery",),
    "probability": (1.0,),
    "start_epoch": (0, 1),
    "start_step": (0,),
    "end_epoch": (None, 0),
    "end_step": (None, 0),
    "disable_after_epoch_step": (None,),
    "is_regularisation_data": (False,),
    "slider_strength": (None,),
    "timestep_sampling_offset": (0.0,),
    "conditioning": (None,),
    "conditioning_data": (None,),
    "vae_cache_clear_each_epoch": (False,),
    "vae_cache_ondemand": (False,),
    "vae_cache_disable": (False,),
    "text_cache_ondemand": (False,),
    "text_cache_disable": (False,),
    "delete_nsfw_images": (False,),
    "image_embeds": (None,),
    "conditioning_image_embeds": (None,),
    "audio": (None,),
    "grounding": (None,),
}

UNBUILT_DATASET_TYPES: Final = (
    "image",
    "audio",
    "image_embeds",
    "conditioning_image_embeds",
    "conditioning",
    "eval",
    "caption",
)


def unbuilt_entry_faults(entry: DatasetEntry, place: str) -> list[Fault]:
    """The keys of a data set that ask for something that is not built yet."""
    if entry.dataset_type in UNBUILT_DATASET_TYPES:
        if entry.conditioning_type in ("mask", "segmentation"):
            return [
                Fault(
                    f"{entry.id}.conditioning_type", "LTX-Video cannot train with a masked loss", place, "leave it out"
                )
            ]
        problem = f"{entry.dataset_type} is not built yet"
        return [Fault(f"{entry.id}.dataset_type", problem, place, "built: video, text_embeds; or set disabled")]
    if entry.dataset_type == "text_embeds":
        return []
    only_with_crop = () if entry.crop else ("maximum_image_size", "target_downsample_size", "crop_style", "crop_aspect")
    return [
        Fault(f"{entry.id}.{key}", f"{shown(key, getattr(entry, key))} is not built yet", place, "leave it out")
        for key, built in UNBUILT_ENTRY.items()
        if key not in only_with_crop and getattr(entry, key) not in built
    ]
