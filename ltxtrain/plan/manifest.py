"""run.json: what is needed to say where a result came from, and what happened to the run."""

from __future__ import annotations

import json
import platform
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ltxtrain
from ltxtrain.config import dataset_settings
from ltxtrain.errors import CheckpointError
from ltxtrain.facts.digests import file_sha256, sha256_of
from ltxtrain.facts.image import image_facts
from ltxtrain.files import write_atomically
from ltxtrain.plan.fingerprint import samples_digest
from ltxtrain.plan.folder import RunFolder
from ltxtrain.plan.records import plain

if TYPE_CHECKING:
    from ltxtrain.plan.records import Plan

SCHEMA = 1
PACKAGES = (
    "accelerate",
    "av",
    "diffusers",
    "huggingface-hub",
    "numpy",
    "peft",
    "safetensors",
    "sentencepiece",
    "torch",
    "transformers",
)

# Options that say where something lies or what it is called.
PLACES = ("instance_data_dir", "data_backend_config", "cache_dir", "output_dir", "run_name", "resume_from_checkpoint")


def write_manifest(
    plan: Plan, folder: RunFolder, model: dict[str, Any], event: dict[str, Any], fingerprint: str | None = None
) -> None:
    """Write run.json. ``event`` (``{"event": "start", "step": 0, ...}``) gets the time and is added to those before.

    ``model`` is what the model room knows: name, revision, digests. ``fingerprint`` is the data's, where it is known
    already: the clips may be gone by the end of a run. Raises ``CheckpointError`` when the run.json that
    is there cannot be read: a run's history is not written over.
    """
    data = {
        "fingerprint": fingerprint or dataset_fingerprint(plan),
        "samples": len(plan.samples),
        "eval_samples": len(plan.eval_samples),
        "clips": plan.clips_used,
        "sets": [plain(dataset) for dataset in plan.settled],
    }
    events = [*read_events(folder), {"time": datetime.now(UTC).isoformat(timespec="seconds"), **event}]
    image = image_facts().facts
    manifest = {
        "schema": SCHEMA,
        "run_name": plan.run_name,
        "ltxtrain": ltxtrain.__version__,
        "git_commit": source_commit() or image.get("revision"),
        "lock_sha256": lock_sha256() or image.get("lock_sha256"),
        "image": image or None,
        "python": platform.python_version(),
        "packages": package_versions(),
        "machine": asdict(plan.machine),
        "model": model,
        "dataset": data,
        "seeds": {"training": plan.config.model.seed, "validation": plan.config.validation.validation_seed},
        "config": plan.config.model_dump(mode="json"),
        "sources": plan.sources,
        "events": events,
    }
    write_atomically(folder.run_json, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def read_events(folder: RunFolder) -> list[dict[str, Any]]:
    """What happened to the run so far, oldest first; empty for a new run."""
    try:
        manifest = json.loads(folder.run_json.read_text(encoding="utf-8"))
        return list(manifest["events"])
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder.run_json} is damaged: {error}", hint="move it away, or give the run another run_name"
        ) from error


def dataset_fingerprint(plan: Plan) -> str:
    """A digest of what is trained on, and of what is only measured."""
    return sha256_of(plan.clips_digest, samples_digest(plan.eval_samples, plan.cache_dir / "digests"))


def config_sha256(plan: Plan) -> str:
    """A digest of the settings that decide the result. Where files lie and what a run is called do not count."""
    values = plan.config.model_dump(mode="json")
    for name in PLACES:
        for section in values.values():
            section.pop(name, None)
    values["data"]["datasets"] = [dataset_settings(dataset) for dataset in plan.settled]
    return sha256_of("config-2", values)


def package_versions() -> dict[str, str]:
    """Installed versions of the libraries that decide the numbers; a missing one is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def source_commit() -> str | None:
    """The commit of the checkout that this program runs from, ``+changes`` when files differ; None outside of one."""
    root = _checkout()
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--", "ltxtrain", "presets")
    return f"{commit}+changes" if commit and changed else commit or None


def lock_sha256() -> str | None:
    """The digest of the list of exact versions in the checkout; None outside of one."""
    lock = _checkout() / "requirements" / "lock.txt"
    return file_sha256(lock) if lock.is_file() else None


def _checkout() -> Path:
    return Path(ltxtrain.__file__).resolve().parent.parent


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
