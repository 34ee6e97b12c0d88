"""The one list of documented options that are not built yet. Whoever builds one takes it from here.

An option is listed with the values that do work; asking for any other value is refused by name. Options that only
shape an option listed here stand in ``idle.py``: they have no effect while their master is off, and that is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ltxtrain.config.catalogue import options, value_of
from ltxtrain.config.explain import placed
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.secrets import shown
from ltxtrain.errors import Fault

BUILT_CAPTIONS: Final = ("textfile", "filename", "instanceprompt", "parquet", "csv", "jsonl", "huggingface")

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
    "caption_strategy": BUILT_CAPTIONS,
    "vae_enable_patch_conv": (False,),
    "vae_enable_temporal_roll": (False,),
    "keep_vae_loaded": (False,),
    # precision, memory, speed
    "quantization_config": (None,),
    "text_encoder_2_precision": ("no_change",),
    "text_encoder_3_precision": ("no_change",),
    "text_encoder_4_precision": ("no_change",),
    "gradient_checkpointing_offload_attention": (False,),
    "offload_during_save": (False,),
    "delete_model_after_load": (False,),
    "ramtorch": (False,),
    "dynamo_backend": ("no", "eager", "aot_eager", "inductor"),
    "dynamo_mode": (None, "default", "max-autotune-no-cudagraphs"),
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
    "adam_beta1": (0.9,),
    "adam_beta2": (0.999,),
    "adam_epsilon": (1e-8,),
    "adam_weight_decay": (1e-2,),
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


def asked_unbuilt(config: TrainConfig, sources: Mapping[str, str]) -> dict[str, Fault]:
    """The options of ``config`` that ask for something that is not built yet, each as a fault."""
    asked = {}
    for name, built in UNBUILT.items():
        option = options()[name]
        value = value_of(config, name)
        if not any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in built):
            instead = " or ".join(shown(name, known) for known in built if known is not None)
            suggestion = f"built: {instead}" if instead and option.kinds != {"bool"} else "leave it out"
            key, source = placed(name, sources.get(name, "default"))
            asked[name] = Fault(key, f"{shown(name, value)} is not built yet", source, suggestion)
    return asked
