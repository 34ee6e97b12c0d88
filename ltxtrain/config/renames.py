"""The documented second names of options, in one place. Nothing else has an alias."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Rename:
    """What an old name means. With ``inverted`` true means false. ``short`` names are ours and not remarked on."""

    new: str
    inverted: bool = False
    short: bool = False


RENAMED: Final[dict[str, Rename]] = {
    "vae_cache_preprocess": Rename("vae_cache_ondemand", inverted=True),
    "save_total_limit": Rename("checkpoints_total_limit"),
    "validation_steps": Rename("validation_step_interval"),
    "checkpointing_steps": Rename("checkpoint_step_interval"),
    "ignore_final_epochs": Rename("strict_epoch_limit", inverted=True),
    "crepa_model": Rename("crepa_encoder"),
    "data": Rename("instance_data_dir", short=True),
    "cache": Rename("cache_dir", short=True),
    "output": Rename("output_dir", short=True),
}

RENAMED_VALUES: Final[dict[tuple[str, str], str]] = {
    ("lr_scheduler", "cosine_with_warmup"): "cosine",
    ("caption_strategy", "instance_prompt"): "instanceprompt",
}

OBSOLETE_VALUES: Final[dict[tuple[str, str], str]] = {
    ("optimizer", "adafactor"): "torch-adafactor",
    ("optimizer", "adamw8bit"): "bnb-adamw8bit",
    ("optimizer", "dadaptation"): "prodigy",
}
"""Names that the guides refuse as obsolete, each with what does the same now."""

RENAMED_ENTRY_KEYS: Final[dict[str, str]] = {"is_regularization_data": "is_regularisation_data"}

IGNORED: Final[frozenset[str]] = frozenset(
    {
        "aspect_ratio_bucketing",
        "aspect_ratio_bucket_min",
        "aspect_ratio_bucket_max",
        "repeats",
        "ez_model_type",
        "__disabled_fields__",
        "__active_tab__",
    }
)
"""Keys that the guides' own program passes over in silence. Here each is told about, and has no effect."""

FLAGS_ALONE: Final[dict[str, str]] = {
    "preset": "--preset NAME",
    "presets": "--preset NAME",
    "config": "--config FILE",
    "set_aside_unbuilt": "--set-aside-unbuilt",
}
"""What is said on the command line only, because it decides what is read; keys of these names are refused."""

NOT_THE_NAME: Final[dict[str, str]] = {
    "hub_model_name": "hub_model_id",
    "batch_size": "train_batch_size",
    "lr": "learning_rate",
    "rank": "lora_rank",
    "epochs": "num_train_epochs",
    "steps": "max_train_steps",
    "max_steps": "max_train_steps",
    "prompt": "validation_prompt",
    "negative_prompt": "validation_negative_prompt",
    "fps": "framerate",
    "frames": "num_frames",
    "video_num_frames": "num_frames",
    "model": "pretrained_model_name_or_path",
    "model_name": "pretrained_model_name_or_path",
    "dataset": "instance_data_dir",
    "dataset_dir": "instance_data_dir",
    "weight_decay": "optimizer_config",
    "quantization": "base_model_precision",
    "quantize": "base_model_precision",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "warmup_steps": "lr_warmup_steps",
    "scheduler": "lr_scheduler",
    "ema": "use_ema",
    "crepa": "crepa_enabled",
    "save_steps": "checkpoint_step_interval",
    "resume": "resume_from_checkpoint",
    "torch_compile": "dynamo_backend",
    "compile": "dynamo_backend",
    "validation_torch_compile": "dynamo_backend",
}
"""Names that people try, with what they mean. They are refused, and the suggestion is the right name."""
