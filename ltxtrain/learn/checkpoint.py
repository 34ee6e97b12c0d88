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
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors.torch import load, save

from ltxtrain.config.outputs import CheckpointConfig
from ltxtrain.errors import CheckpointError
from ltxtrain.facts.digests import sha256_of
from ltxtrain.files import FULL, sync_folder, write_atomically
from ltxtrain.units import format_bytes

PREFIX = "step-"
NAME = re.compile(rf"{PREFIX}[0-9]{{8,}}")
MANIFEST = "MANIFEST.json"
FORMAT = 1
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


def checkpoint_due(section: CheckpointConfig, step: int, total: int, seconds_since: float) -> bool:
    """By steps, by minutes since the last one, and at the end."""
    by_steps = section.checkpoint_step_interval and step % section.checkpoint_step_interval == 0
    by_time = section.checkpoint_minutes and seconds_since >= section.checkpoint_minutes * 60
    return bool(by_steps or by_time or step == total)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> tuple[Path, int]:
    """Commit ``checkpoint`` below ``folder``; returns its path and size.

    Raises ``CheckpointError`` for tensors that are not finite and when the disk takes no more; earlier ones are kept.
    """
    for name, tensor in (*checkpoint.adapter.items(), *checkpoint.optimizer.items()):
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{name} has NaN or infinity: step {checkpoint.step} is not saved",
                hint="lower learning_rate, or look at optimizer_config",
            )
    contents = {
        ADAPTER: save(dict(checkpoint.adapter)),
        OPTIMIZER: save(dict(checkpoint.optimizer)),
        STATE: json.dumps({"step": checkpoint.step, **checkpoint.state}, indent=1, sort_keys=True).encode(),
    }
    final = folder / checkpoint_name(checkpoint.step)
    unfinished = folder / f".{final.name}.{uuid4().hex[:8]}.tmp"
    try:
        for name, data in contents.items():
            write_atomically(unfinished / name, data)
        write_atomically(unfinished / MANIFEST, _manifest(checkpoint.step, contents))
        _verified(unfinished)  # what is announced has been read back
        if final.exists():  # from another try at this step, whose place this one takes
            quarantine(final, "superseded")
        os.rename(unfinished, final)
        sync_folder(folder)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        size = format_bytes(sum(len(data) for data in contents.values()))
        needs = f" (it needs {size})" if error.errno in FULL else ""
        raise CheckpointError(
            f"step {checkpoint.step} could not be saved in {folder}: {error.strerror or error}{needs}",
            hint="make room there; the checkpoints before this one are kept",
        ) from error
    return final, sum(len(data) for data in contents.values())


def _manifest(step: int, contents: Mapping[str, bytes]) -> bytes:
    """MANIFEST.json: size and SHA-256 of each file, and a digest of all that, so that damage to itself is seen."""
    files = {name: [len(data), hashlib.sha256(data).hexdigest()] for name, data in sorted(contents.items())}
    manifest: dict[str, Any] = {"format": FORMAT, "step": step, "files": files}
    return json.dumps(manifest | {"sha256": sha256_of(manifest)}, indent=1).encode()


def list_checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoints, newest first. Whether they are valid is known only after ``load_checkpoint``."""
    if not folder.is_dir():
        return []
    named = [path for path in folder.iterdir() if NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(named, key=step_of, reverse=True)


def step_of(path: Path) -> int:
    return int(path.name.removeprefix(PREFIX))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint after verifying every file. Raises ``CheckpointError`` with the first thing that is wrong."""
    contents = _verified(path)
    state = json.loads(contents[STATE])
    return Checkpoint(state.pop("step"), load(contents[ADAPTER]), load(contents[OPTIMIZER]), state)


def _verified(path: Path) -> dict[str, bytes]:
    try:
        found = (path / MANIFEST).read_bytes()
        contents = {name: (path / name).read_bytes() for name in (ADAPTER, OPTIMIZER, STATE)}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is incomplete: {Path(error.filename).name} is missing") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        manifest = json.loads(found)
        body = {name: manifest[name] for name in ("format", "step", "files")}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path} is damaged: {MANIFEST} is not the file that was saved") from error
    if manifest.get("sha256") != sha256_of(body):
        raise CheckpointError(f"{path} is damaged: {MANIFEST} is not the file that was saved")
    if body["format"] != FORMAT:
        raise CheckpointError(f"{path} is of format {body['format']}, which this version of ltxtrain does not read")
    for name, data in contents.items():
        if body["files"].get(name) != [len(data), hashlib.sha256(data).hexdigest()]:
            raise CheckpointError(f"{path} is damaged: {name} is not the file that was saved")
    if NAME.fullmatch(path.name) and step_of(path) != body["step"]:
        raise CheckpointError(f"{path} is not what its name says: it holds step {body['step']}")
    return contents


def newest_valid(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint and a sentence about each newer one, which is put aside (renamed, never deleted).

    Raises ``CheckpointError`` when there are checkpoints but none is valid. They stay where they are, so that the next
    start raises it again: the run never starts over by itself.
    """
    found = list_checkpoints(folder)
    faults: list[str] = []
    for position, path in enumerate(found):
        try:
            checkpoint = load_checkpoint(path)
        except CheckpointError as error:
            faults.append(error.message)
            continue
        aside = [quarantine(invalid).name for invalid in found[:position]]
        return checkpoint, [f"{fault}; put aside as {name}" for fault, name in zip(faults, aside, strict=True)]
    if found:
        raise CheckpointError(
            f"none of the {len(found)} checkpoints in {folder} is valid: " + "; ".join(faults),
            hint='to train from the beginning, say so: --resume-from-checkpoint ""',
        )
    return None, []


def quarantine(path: Path, why: str = "invalid") -> Path:
    """Rename a checkpoint so that it is neither used nor pruned, and nothing is lost."""
    aside = path.with_name(f"{why}-{path.name}-{uuid4().hex[:8]}")
    os.rename(path, aside)
    sync_folder(path.parent)
    return aside


def prune_checkpoints(folder: Path, keep: int) -> list[Path]:
    """Remove all but the newest ``keep`` checkpoints (0 keeps all), and what an earlier removal or save left behind.

    Nothing is removed unless one of those kept is valid, which costs a reading of the newest.
    """
    found = list_checkpoints(folder)
    surplus = found[keep:] if any(_is_valid(path) for path in found[:keep]) else []
    for path in surplus:
        os.rename(path, path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp"))
    for leftover in folder.glob(f".{PREFIX}*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    return surplus


def _is_valid(path: Path) -> bool:
    try:
        _verified(path)
    except CheckpointError:
        return False
    return True
