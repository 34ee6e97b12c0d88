"""Checkpoints: written so that a kill or a power loss at any instant leaves the one before usable.

    checkpoints/step-00000500/  adapter.safetensors  optimizer.safetensors  state.json  MANIFEST.json

The order is: temporary folder, each file written and synced, MANIFEST.json with every file's size and SHA-256, sync of
the folder, rename, sync of the parent. Only then is the checkpoint announced, and only then are older ones removed.
Safetensors and JSON only: no pickle is read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import load, save

from ltxtrain.errors import CheckpointError
from ltxtrain.files import sync_folder, write_atomically

PREFIX = "step-"
MANIFEST = "MANIFEST.json"
ADAPTER, OPTIMIZER, STATE = "adapter.safetensors", "optimizer.safetensors", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """All that training needs to go on. ``step`` steps are done; ``state`` is plain JSON."""

    step: int
    adapter: Mapping[str, torch.Tensor]
    optimizer: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


def checkpoint_name(step: int) -> str:
    return f"{PREFIX}{step:08d}"


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> tuple[Path, int]:
    """Commit ``checkpoint`` below ``folder``; returns its path and size. Raises ``CheckpointError`` for non-finite weights."""
    for name, tensor in checkpoint.adapter.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{name} has NaN or infinity: step {checkpoint.step} is not saved")
    contents = {
        ADAPTER: save(dict(checkpoint.adapter)),
        OPTIMIZER: save(dict(checkpoint.optimizer)),
        STATE: json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1, sort_keys=True).encode(),
    }
    files = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in contents.items()}
    manifest = {"format": 1, "step": checkpoint.step, "files": files}
    final = folder / checkpoint_name(checkpoint.step)
    unfinished = folder / f".{final.name}.{uuid4().hex[:8]}.tmp"
    unfinished.mkdir(parents=True)
    for name, data in contents.items():
        write_atomically(unfinished / name, data)
    write_atomically(unfinished / MANIFEST, json.dumps(manifest, indent=1))
    if final.exists():  # an older try at this step, already superseded or invalid
        quarantine(final)
    os.rename(unfinished, final)
    sync_folder(folder)
    return final, sum(size for size, _ in files.values())


def list_checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoints, newest first. Whether they are valid is known only after ``load_checkpoint``."""
    if not folder.is_dir():
        return []
    named = [
        p for p in folder.iterdir() if p.is_dir() and p.name.startswith(PREFIX) and p.name[len(PREFIX) :].isdigit()
    ]
    return sorted(named, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after verifying every file. Raises ``CheckpointError`` with the first thing that is wrong."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files: dict[str, list[Any]] = manifest["files"]
        contents = {name: (path / name).read_bytes() for name in files}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is incomplete: {Path(error.filename).name} is missing") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    for name, (size, digest) in files.items():
        if len(contents[name]) != size or hashlib.sha256(contents[name]).hexdigest() != digest:
            raise CheckpointError(f"{path} is damaged: {name} is not the file that was saved")
    state = json.loads(contents[STATE])
    return Checkpoint(state.pop("step"), load(contents[ADAPTER]), load(contents[OPTIMIZER]), state)


def newest_valid(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint and a sentence about each invalid one, which is put aside (renamed, never deleted).

    Raises ``CheckpointError`` when there are checkpoints but none is valid: the run never starts over silently.
    """
    told: list[str] = []
    found = list_checkpoints(folder)
    for path in found:
        try:
            return load_checkpoint(path), told
        except CheckpointError as error:
            aside = quarantine(path)
            told.append(f"{error.message}; put aside as {aside.name}")
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is valid: " + "; ".join(told),
            hint='to train from the beginning, say so: --resume_from_checkpoint ""',
        )
    return None, told


def quarantine(path: Path, why: str = "invalid") -> Path:
    """Rename a checkpoint so that it is neither used nor pruned, and nothing is lost."""
    aside = path.with_name(f"{why}-{path.name}-{uuid4().hex[:8]}")
    os.rename(path, aside)
    sync_folder(path.parent)
    return aside


def prune_checkpoints(folder: Path, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints (0 keeps all) and whatever an earlier removal or save left behind."""
    if not folder.is_dir():
        return []
    surplus = list_checkpoints(folder)[keep:] if keep > 0 else []
    for path in surplus:
        os.rename(path, path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp"))
    for leftover in folder.glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    return surplus
