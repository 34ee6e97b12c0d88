"""Where a run writes and what it tells others: checkpoints, publishing, tracking, and how processes are started."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ltxtrain.config.option import LocalPath, Section, option


def _plain_name(name: str) -> str:
    if not name or name in (".", "..") or name.startswith("-") or any(char in '/\\:*?"<>|\0\n\r\t' for char in name):
        raise ValueError("a run's name is one plain folder name")
    if len(name.encode()) > 80:
        raise ValueError("a run's name is at most 80 bytes")
    return name


Gigabytes = Annotated[str, Field(pattern=r"^\d+(\.\d+)?\s*([KMGT]i?)?B?$")]


class CheckpointConfig(Section):
    output_dir: LocalPath = option(
        Path("output"), "The folder that runs are written to.", documented="simpletuner-results"
    )
    run_name: Annotated[str, AfterValidator(_plain_name)] | None = option(
        None, "The run's folder in output_dir; not set means the last preset's name, or 'run'."
    )
    resume_from_checkpoint: str = option(
        "latest", "Go on from 'latest', from a named checkpoint or path; an empty text starts afresh."
    )
    checkpoint_step_interval: int = option(500, "Save each so many steps; 0 saves by time and at the end only.", ge=0)
    checkpoint_epoch_interval: int | None = option(None, "Save each so many epochs.", ge=1)
    checkpoint_minutes: float = option(10.0, "Save at least each so many minutes; 0 saves by steps only.", ge=0)
    checkpoints_total_limit: int = option(5, "Keep this many checkpoints; 0 keeps all.", ge=0)
    checkpointing_rolling_steps: int | None = option(None, "Save one overwritten checkpoint each so many steps.", ge=1)
    checkpointing_use_tempdir: bool = option(
        True, "Write a checkpoint beside its place and rename it. Always so here.", documented=False
    )
    delete_invalid_checkpoints: bool = option(False, "Delete damaged checkpoints when resuming.")
    export_dtype: Literal["fp32", "bf16", "fp16"] = option(
        "bf16", "The number format of the second exported file; the first is always float32."
    )
    disk_low_threshold: Gigabytes | None = option(None, "Act when less than this is free, such as '20GB'.")
    disk_low_action: Literal["stop", "wait", "script"] = option("stop", "What to do when the disk is nearly full.")
    disk_low_script: str | None = option(None, "The script to run when the disk is nearly full.")
    post_checkpoint_script: str | None = option(None, "A script to run after each checkpoint.")


class PublishingConfig(Section):
    push_to_hub: bool = option(False, "Upload the result to the Hugging Face Hub.")
    push_checkpoints_to_hub: bool = option(False, "Upload each checkpoint as well.")
    push_to_hub_background: bool = option(False, "Upload while training goes on.")
    hub_model_id: str | None = option(None, "The repository on the Hub: a name, or owner/name.")
    model_card_private: bool = option(True, "Make the repository private.")
    model_card_note: str | None = option(None, "A note for the model card.")
    publishing_config: dict[str, Any] | tuple[dict[str, Any], ...] | LocalPath | None = option(
        None, "Other places to publish to, as JSON or a JSON file."
    )
    post_upload_script: str | None = option(None, "A script to run after each upload.")


class TrackingConfig(Section):
    report_to: Literal[
        "simpletuner", "tensorboard", "wandb", "swanlab", "comet_ml", "custom-tracker", "all", "none"
    ] = option("none", "Where curves are sent, besides the run's own report.")
    tracker_project_name: str = option("simpletuner", "The project in the tracker.")
    tracker_run_name: str = option("simpletuner-testing", "The run's name in the tracker.")
    webhook_config: dict[str, Any] | tuple[dict[str, Any], ...] | LocalPath | None = option(
        None, "Where messages about the run are sent: a JSON file, object or list."
    )
    webhook_reporting_interval: int | None = option(None, "Send the state at most each so many seconds.", ge=30)


class LaunchConfig(Section):
    num_processes: int = option(1, "Processes on this machine, one for each GPU.", ge=1, le=1024)
    num_machines: int = option(1, "Machines that train together.", ge=1, le=1024)
    accelerate_config: LocalPath | None = option(None, "A configuration file of accelerate.")
    accelerate_extra_args: str | None = option(None, "More words for accelerate's launcher.")
    deepspeed_config: dict[str, Any] | LocalPath | None = option(None, "Settings of DeepSpeed.")
    fsdp_enable: bool = option(False, "Shard the model over GPUs (FSDP).", devices=("cuda",))
    fsdp_version: Literal["1", "2"] = option("2", "The version of FSDP.")
    fsdp_reshard_after_forward: bool = option(True, "Free gathered weights after the forward pass.")
    fsdp_state_dict_type: Literal["SHARDED_STATE_DICT", "FULL_STATE_DICT"] = option(
        "SHARDED_STATE_DICT", "How sharded weights are saved."
    )
    fsdp_cpu_ram_efficient_loading: bool = option(False, "Load weights in one process only.")
    fsdp_auto_wrap_policy: str = option("TRANSFORMER_BASED_WRAP", "How modules are grouped into shards.")
    fsdp_transformer_layer_cls_to_wrap: str | None = option(None, "The class of the modules that become shards.")
    context_parallel_size: int = option(1, "Split each video over this many GPUs.", ge=1, devices=("cuda",))
    context_parallel_comm_strategy: Literal["allgather", "alltoall"] = option(
        "allgather", "How the parts of a split video are exchanged."
    )
