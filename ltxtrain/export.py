"""From a checkpoint to files that other programs load: diffusers' layout and ComfyUI's, float32 and another dtype."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from ltxtrain import __version__
from ltxtrain.errors import CheckpointError
from ltxtrain.events import Event, Exported, Notice
from ltxtrain.facts.models import public_name
from ltxtrain.files import room_at, with_sorted_metadata, write_atomically
from ltxtrain.learn.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, newest_valid
from ltxtrain.learn.device import DTYPES
from ltxtrain.model.layouts import comfyui_layout, diffusers_layout, diffusers_metadata
from ltxtrain.plan.folder import RunFolder

DIFFUSERS_NAME = "pytorch_lora_weights"


def iter_export(run_dir: Path, *, dtype: str = "bf16", checkpoint: Path | None = None) -> Generator[Event, None, None]:
    """Write the adapter of ``run_dir``'s newest valid checkpoint, or of ``checkpoint``, into ``run_dir/export``.

        pytorch_lora_weights.safetensors        diffusers, float32
        NAME_comfyui.safetensors                ComfyUI, float32, with alpha
        ..._bf16.safetensors                    both once more in ``dtype`` (bf16, fp16; nothing more for fp32)

    The same checkpoint always gives the same bytes. Raises ``CheckpointError`` when there is none.
    """
    folder = RunFolder(run_dir)
    chosen, told = _chosen(folder, checkpoint)
    for sentence in told:
        yield Notice(sentence, "warning")
    about = chosen.state["about"]
    comfyui_name = f"{_plain(about['run'], folder)}_comfyui"
    for kind in dict.fromkeys(("fp32", dtype)):
        suffix = "" if kind == "fp32" else f"_{kind}"
        adapter = _converted(chosen.adapter, kind)
        metadata = _metadata(chosen, kind)
        diffusers = diffusers_layout(adapter)
        comfyui = comfyui_layout(adapter, about["alpha"])
        yield _write(folder.export / f"{DIFFUSERS_NAME}{suffix}.safetensors", diffusers, metadata, f"diffusers {kind}")
        yield _write(folder.export / f"{comfyui_name}{suffix}.safetensors", comfyui, metadata, f"comfyui {kind}")


def _chosen(folder: RunFolder, checkpoint: Path | None) -> tuple[Checkpoint, list[str]]:
    """The checkpoint to export, and what is to be told of others that were not valid."""
    if checkpoint is not None:
        return load_checkpoint(checkpoint), []
    if not list_checkpoints(folder.checkpoints):
        raise CheckpointError(
            f"{folder.root} has no checkpoint to export", hint="train first, or name the run's folder"
        )
    newest, told = newest_valid(folder.checkpoints)
    assert newest is not None  # newest_valid raises when there are checkpoints and none is valid
    return newest, told


def _plain(run_name: str, folder: RunFolder) -> str:
    """The run's name as part of a file's name. It is read from a checkpoint, which may come from somebody else."""
    if not run_name or any(char in "/\\" or not char.isprintable() for char in run_name):
        raise CheckpointError(
            f"the checkpoint in {folder.root} is of a run called {run_name!r}, which cannot be part of a file's name",
            hint="export a checkpoint that ltxtrain wrote",
        )
    return run_name


def _converted(adapter: Mapping[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    converted = {name: tensor.to(DTYPES[kind]) for name, tensor in adapter.items()}
    for name, tensor in converted.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} is too large for {kind}", hint="export with --dtype bf16 or fp32")
    return converted


def _write(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], kind: str) -> Exported:
    """Write the bytes ourselves: ``save_file`` would give mode 0600 whatever the umask says, and does not sync."""
    content = with_sorted_metadata(save(dict(tensors), dict(metadata)))
    with room_at(path.parent, len(content), path.name):
        write_atomically(path, content)
    return Exported(kind, str(path))


def _metadata(checkpoint: Checkpoint, kind: str) -> dict[str, str]:
    """What the file says of itself, in ModelSpec 1.0.1 fields where there are any. It tells no time and no place."""
    about: dict[str, Any] = checkpoint.state["about"]
    libraries = {name: version(name) for name in ("torch", "diffusers", "peft", "safetensors")}
    return {
        "format": "pt",
        "lora_adapter_metadata": diffusers_metadata(about["peft_config"]),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "ltx-video/lora",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": about["run"],
        "modelspec.resolution": ", ".join(about["resolutions"]),
        "base_model": public_name(about["base_model"], about["base_model_revision"]),
        "base_model_revision": about["base_model_revision"] or "",
        "base_model_transformer_sha256": about["base_model_sha256"],
        "rank": str(about["rank"]),
        "alpha": f"{about['alpha']:g}",
        "adapter_dtype": about.get("adapter_dtype", "float32"),  # earlier checkpoints knew no other
        "step": str(checkpoint.step),
        "dtype": kind,
        "config_sha256": about["config_sha256"],
        "ltxtrain_version": __version__,
        "library_versions": json.dumps(libraries, sort_keys=True),
    }
