"""From the name of a model to its components: a built-in model, a diffusers folder, or a repository of the Hub.

Weights are read from safetensors and nothing else (``model/loading.py``), and no code that comes with a model is ever
run.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import get_token, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ltxtrain.config.model import ModelConfig
from ltxtrain.config.secrets import first_line
from ltxtrain.errors import MachineError, ModelError
from ltxtrain.facts.digests import files_sha256
from ltxtrain.facts.hub_login import TOKEN_LETTERS, hub_endpoint
from ltxtrain.facts.models import BUILT_IN, TINY_MODEL, model_facts
from ltxtrain.files import FULL, system_error
from ltxtrain.plan.disk import hub_cache
from ltxtrain.units import format_bytes

diffusers_logging.disable_progress_bar()
transformers_logging.disable_progress_bar()

# Each component, and files of which it has one at least. Without these the libraries go on with defaults.
COMPONENTS = {
    "transformer": ("config.json",),
    "vae": ("config.json",),
    "text_encoder": ("config.json",),
    "tokenizer": ("tokenizer.json", "spiece.model"),
    "scheduler": ("scheduler_config.json",),
}
# What a component is made of: settings, weights, vocabulary. The rest of a repository is left where it is.
KEPT = (".json", ".safetensors", ".model", ".txt")
BASE_KEY = "pretrained_model_name_or_path"
VAE_KEY = "pretrained_vae_model_name_or_path"
TRANSFORMER_KEY = "pretrained_transformer_model_name_or_path"
# What the libraries raise for files that are absent, damaged, or of another model.
LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
Component = TypeVar("Component")


@dataclass(frozen=True)
class ModelFolder:
    """Where each component lies: a folder in diffusers' layout, or a single file that takes its settings from ``base``.

    ``revision`` is the commit of a Hub repository. ``memo`` is where digests of files are remembered.
    """

    name: str
    revision: str | None
    base: Path
    folders: dict[str, Path]
    memo: Path

    def digest(self, component: str) -> str:
        """SHA-256 over the component's settings, weights and vocabulary."""
        place = self.folders[component]
        if place.is_file():
            return files_sha256([place, self.base / component / "config.json"], self.memo)
        return files_sha256((file for file in place.iterdir() if file.suffix in KEPT), self.memo)


def locate_model(section: ModelConfig, cache_dir: Path) -> ModelFolder:
    """Find or fetch the model that ``section`` names. Raises ``ModelError`` when a part is missing or out of reach."""
    name = section.pretrained_model_name_or_path
    vae, transformer = section.pretrained_vae_model_name_or_path, section.pretrained_transformer_model_name_or_path
    elsewhere = {part for part, other in (("vae", vae), ("transformer", transformer)) if other}
    patterns = ["model_index.json", *(f"{part}/config.json" for part in elsewhere)]
    patterns += [pattern for part in COMPONENTS if part not in elsewhere for pattern in _patterns(part)]
    base = _find(BASE_KEY, name, cache_dir, patterns, section.revision)
    if base.is_file():
        raise ModelError(
            f"{name} is a single file ({BASE_KEY})",
            hint=f"name the file with {TRANSFORMER_KEY}, and a diffusers folder or repository with {BASE_KEY}",
        )
    folders = {part: base / part for part in COMPONENTS}
    if vae:
        found = _find(VAE_KEY, vae, cache_dir, [*_patterns("vae"), *_patterns("")])
        folders["vae"] = found / "vae" if (found / "vae").is_dir() else found
    if transformer:
        subfolder = section.pretrained_transformer_subfolder
        inside = "" if subfolder.lower() == "none" else subfolder
        found = _find(TRANSFORMER_KEY, transformer, cache_dir, _patterns(inside))
        folders["transformer"] = found if found.is_file() else found / inside
    for part, place in folders.items():
        home = base / part if place.is_file() else place
        if not any((home / file).is_file() for file in COMPONENTS[part]):
            raise ModelError(
                f"{name} has no {part}: {' or '.join(COMPONENTS[part])} is missing in {home}",
                hint="name a complete diffusers folder or repository",
            )
    return ModelFolder(name, _revision_of(base), base, folders, cache_dir / "digests")


def _patterns(part: str) -> list[str]:
    """The files of one component in a repository; the empty name stands for the top folder, which holds much else."""
    if not part:
        return ["config.json", "diffusion_pytorch_model*.json", "diffusion_pytorch_model*.safetensors"]
    return [f"{part}/*{suffix}" for suffix in KEPT]


def _find(key: str, name: str, cache_dir: Path, patterns: list[str], revision: str | None = None) -> Path:
    """The folder or file that ``name``, the value of the option ``key``, stands for."""
    if name in BUILT_IN:
        return _built_in(name, cache_dir / "models")
    local = Path(name).expanduser()
    if local.is_file() and local.suffix != ".safetensors":
        raise ModelError(f"{name} is not a safetensors file ({key})", hint="other formats are not read")
    if local.exists():
        return local
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(f"the model {name} does not exist", hint=f"check {key}")
    return _download(key, name, revision, patterns)


def _built_in(name: str, models: Path) -> Path:
    if name == TINY_MODEL:
        from ltxtrain.model.tiny import tiny_folder

        return tiny_folder(models)
    from ltxtrain.model.random_model import SPECS, random_folder

    return random_folder(models, SPECS[name])


def _download(key: str, name: str, revision: str | None, patterns: list[str]) -> Path:
    hub_endpoint()
    try:
        # With other letters the request would fail with a message that shows the token.
        if (token := get_token()) and not TOKEN_LETTERS.fullmatch(token):
            raise ModelError(
                "the token for the Hub holds letters that no token has",
                hint="set HF_TOKEN to the token alone, without quotes, blanks or braces",
            )
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except GatedRepoError as error:
        raise ModelError(
            f"{name} asks you to accept its licence first",
            hint=f"accept it on the model's page, then set HF_TOKEN to a token that may read {name}",
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision}", hint="leave revision out, or name a commit") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(
            f"{name} is neither a folder nor a repository that this machine may read",
            hint=f"check the spelling of {key}; private repositories need HF_TOKEN",
        ) from error
    except (HTTPError, OSError, RuntimeError, XetDownloadError) as error:
        if (found := system_error(error)) and found.errno in FULL:
            facts = model_facts(name)
            size = f" (it needs about {format_bytes(facts.file_bytes)})" if facts else ""
            raise MachineError(
                f"there is no room left at {hub_cache(os.environ)} for {name}{size}: {found.strerror}",
                hint="make room there, or let HF_HOME name a folder on another disk",
            ) from error
        raise ModelError(
            f"{name} is not on this disk and cannot be downloaded ({first_line(error)})",
            hint="check the network, set HF_ENDPOINT to a mirror, or name a local folder",
        ) from error


def _revision_of(root: Path) -> str | None:
    """The commit of a Hub snapshot, which is the name of its folder; None for any other folder."""
    return root.name if root.parent.name == "snapshots" else None


def load_scheduler(model: ModelFolder) -> FlowMatchEulerDiscreteScheduler:
    return load_settings(FlowMatchEulerDiscreteScheduler, model.folders["scheduler"])


def scheduler_config(model: ModelFolder) -> dict[str, Any]:
    return dict(load_scheduler(model).config)


def load_settings(kind: type[Component], folder: Path) -> Component:
    """A component without weights. Raises ``ModelError``."""
    try:
        return kind.from_pretrained(str(folder), local_files_only=True)  # type: ignore[attr-defined,no-any-return]
    except LOADING_ERRORS as error:
        raise not_loadable(folder, kind, first_line(error)) from error


def not_loadable(place: Path, kind: type, reason: str) -> ModelError:
    return ModelError(
        f"{place} cannot be loaded as {kind.__name__}: {reason}",
        hint="download or copy it again, or name another model",
    )
