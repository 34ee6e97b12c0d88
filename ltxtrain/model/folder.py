"""From the name of a model to its components: the built-in tiny model, a diffusers folder, or a repository of the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import T5EncoderModel, T5Tokenizer
from transformers.utils import logging as transformers_logging

from ltxtrain.config.model import ModelConfig
from ltxtrain.errors import ModelError
from ltxtrain.facts.digests import files_sha256
from ltxtrain.facts.models import TINY_MODEL

diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()

COMPONENTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
Component = TypeVar("Component")


@dataclass(frozen=True)
class ModelFolder:
    """Where each component lies, as folders in diffusers' layout, and what the digests of its files are."""

    name: str
    revision: str | None
    folders: dict[str, Path]
    memo: Path

    def digest(self, component: str) -> str:
        """SHA-256 over the component's configuration, weights and vocabulary."""
        kept = {".json", ".safetensors", ".model"}
        files = [self.folders[component]] if self.folders[component].is_file() else self.folders[component].iterdir()
        return files_sha256((f for f in files if f.suffix in kept), self.memo)


def locate_model(section: ModelConfig, cache_dir: Path) -> ModelFolder:
    """Find or fetch the model that ``section`` names. Raises ``ModelError`` when a part is missing or out of reach."""
    name = section.pretrained_model_name_or_path
    root = _root_of(name, section.revision, cache_dir, COMPONENTS)
    folders = {component: root / component for component in COMPONENTS}
    if section.pretrained_vae_model_name_or_path not in (None, name):
        other = str(section.pretrained_vae_model_name_or_path)
        vae_root = _root_of(other, None, cache_dir, ("vae",))
        folders["vae"] = vae_root / "vae" if (vae_root / "vae").is_dir() else vae_root
    if section.pretrained_transformer_model_name_or_path:
        other = section.pretrained_transformer_model_name_or_path
        inside = section.pretrained_transformer_subfolder or "transformer"
        inside = "" if inside.lower() == "none" else inside
        other_root = _root_of(other, None, cache_dir, (inside,))
        folders["transformer"] = other_root if other_root.is_file() else other_root / inside
    for component, folder in folders.items():
        if not folder.exists():
            raise ModelError(
                f"{name} has no {component} (looked for {folder})",
                hint="name a complete diffusers folder or repository with pretrained_model_name_or_path",
            )
    return ModelFolder(name, _revision_of(root), folders, cache_dir / "digests")


def _root_of(name: str, revision: str | None, cache_dir: Path, wanted: tuple[str, ...]) -> Path:
    if name == TINY_MODEL:
        from ltxtrain.model.tiny import tiny_folder

        return tiny_folder(cache_dir / "models")
    local = Path(name).expanduser()
    if local.exists():
        return local
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"the model folder {name} does not exist", hint="check pretrained_model_name_or_path")
    patterns = ["*.json"] if "" in wanted else ["model_index.json"]
    patterns += [f"{part}/*" if part else "*.safetensors" for part in wanted]
    return _download(name, revision, patterns)


def _download(name: str, revision: str | None, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{name} asks you to accept its licence first",
            hint=f"accept it on the model's page, then set HF_TOKEN to a token that may read {name}",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision}", hint="leave revision out, or name a commit") from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is neither a folder nor a repository that this machine may read",
            hint="check the spelling of pretrained_model_name_or_path; private repositories need HF_TOKEN",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name} is not on this disk and cannot be downloaded ({reason})",
            hint="check the network, set HF_ENDPOINT to a mirror, or name a local folder",
        ) from error


def _revision_of(root: Path) -> str | None:
    """The commit of a hub snapshot, which is the name of its folder; None for any other folder."""
    return root.name if root.parent.name == "snapshots" else None


def load_transformer(model: ModelFolder, dtype: torch.dtype) -> LTXVideoTransformer3DModel:
    source = model.folders["transformer"]
    if source.is_file():
        base = model.folders["scheduler"].parent
        return LTXVideoTransformer3DModel.from_single_file(  # type: ignore[no-any-return]
            str(source), config=str(base), subfolder="transformer", torch_dtype=dtype
        )
    return _load(LTXVideoTransformer3DModel, source, torch_dtype=dtype)


def load_vae(model: ModelFolder, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
    return _load(AutoencoderKLLTXVideo, model.folders["vae"], torch_dtype=dtype).eval()


def load_text_encoder(model: ModelFolder, dtype: torch.dtype) -> tuple[T5EncoderModel, T5Tokenizer]:
    encoder = _load(T5EncoderModel, model.folders["text_encoder"], dtype=dtype).eval()
    return encoder, _load(T5Tokenizer, model.folders["tokenizer"])


def load_scheduler(model: ModelFolder) -> FlowMatchEulerDiscreteScheduler:
    return _load(FlowMatchEulerDiscreteScheduler, model.folders["scheduler"])


def scheduler_config(model: ModelFolder) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((model.folders["scheduler"] / "scheduler_config.json").read_text())
    return config


def _load(kind: type[Component], folder: Path, **options: Any) -> Component:
    weights = {} if kind in (T5Tokenizer, FlowMatchEulerDiscreteScheduler) else {"use_safetensors": True}
    try:
        return kind.from_pretrained(str(folder), local_files_only=True, **weights, **options)  # type: ignore[attr-defined,no-any-return]
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{folder} cannot be loaded as {kind.__name__}: {reason}", hint="check the folder") from error
