"""Where a run goes on: which checkpoint, and whether it belongs to this run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from ltxtrain.errors import CheckpointError
from ltxtrain.learn.checkpoint import (
    Checkpoint,
    checkpoint_name,
    list_checkpoints,
    load_checkpoint,
    newest_valid,
    quarantine,
    step_of,
)

MAX_TOLD = 8


def choose_checkpoint(
    folder: Path, wanted: str, identity: Mapping[str, Any] | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from, and sentences about what was found on the way.

    ``wanted`` is ``resume_from_checkpoint``: ``latest``, the name of a checkpoint, a step's number, a path, or empty to
    start afresh. Checkpoints that are no part of the history that goes on are put aside, not deleted: later ones, and
    all of them when the path is of another folder. Raises ``CheckpointError`` when a named one is absent, invalid or
    not of ``identity``, or when all are invalid: a run never starts over by itself. Then nothing is put aside.
    """
    if wanted == "latest":
        checkpoint, told = newest_valid(folder)
        aside = sum(1 for path in folder.glob("*-step-*") if path.is_dir()) if checkpoint is None else 0
        return checkpoint, [f"starting afresh; {aside} checkpoints were put aside earlier"] if aside else told
    if not wanted:
        aside = [quarantine(path, "superseded").name for path in list_checkpoints(folder)]
        return None, [f"starting afresh; earlier checkpoints are put aside as {', '.join(aside)}"] if aside else []
    named = folder / (checkpoint_name(int(wanted)) if wanted.isdecimal() else wanted)
    path = Path(wanted) if os.sep in wanted else named
    if not path.is_dir():
        there = ", ".join(found.name for found in list_checkpoints(folder)) or "none"
        raise CheckpointError(
            f"there is no checkpoint {path} (from resume_from_checkpoint)", hint=f"checkpoints of this run: {there}"
        )
    chosen = load_checkpoint(path)
    if identity is not None:
        check_same_run(chosen.state["identity"], identity, path)
    elsewhere = path.resolve().parent != folder.resolve()
    others = [found for found in list_checkpoints(folder) if elsewhere or step_of(found) > chosen.step]
    aside = [quarantine(found, "superseded").name for found in others]
    return chosen, [f"going on from {path.name}; others are put aside as {', '.join(aside)}"] if aside else []


def peek_state(folder: Path, wanted: str) -> Mapping[str, Any] | None:
    """The state in the checkpoint that ``choose_checkpoint`` would use, if it can be read; nothing is put aside."""
    found = list_checkpoints(folder)
    named = [path for path in found if wanted in (path.name, str(step_of(path)))]
    for path in found if wanted == "latest" else named:
        try:
            return load_checkpoint(path).state
        except CheckpointError:
            continue
    return None


def peek_step(folder: Path, wanted: str) -> int:
    """The step that ``choose_checkpoint`` would go on from, if that checkpoint is valid: only names are looked at."""
    if wanted == "latest":
        return max((step_of(path) for path in list_checkpoints(folder)), default=0)
    name = Path(wanted).name
    digits = name if name.isdecimal() else name.rpartition("-")[2]
    return int(digits) if digits.isdecimal() else 0


def put_aside_later(samples: Path, step: int) -> None:
    """Rename the videos of later steps: they are of a history that a run which goes back does not continue."""
    for path in list_checkpoints(samples):  # named like checkpoints
        if step_of(path) > step:
            path.rename(path.with_name(f"superseded-{path.name}-{uuid4().hex[:8]}"))


def check_same_run(saved: Mapping[str, Any], current: Mapping[str, Any], folder: Path) -> None:
    """Raise ``CheckpointError`` when base model, adapter or data are not those of the checkpoint."""
    differing = sorted(part for part in current if saved.get(part) != current[part])
    if differing:
        raise CheckpointError(
            f"{folder} holds a run with another {' and another '.join(differing)}",
            hint="name a new run with --run-name NAME, or start over in this one with --resume-from-checkpoint=",
        )


def check_not_past(done: int, steps: int, folder: Path) -> None:
    """Raise ``CheckpointError`` when the checkpoint is of a step that the plan does not reach."""
    if done > steps:
        raise CheckpointError(
            f"{folder} is at step {done} already, past the {steps} steps of this plan",
            hint=f"ask for more steps, or go back with --resume-from-checkpoint {steps}",
        )


def changed_settings(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """``["learning_rate 0.0001 -> 5e-05", ...]``: what applies now and was another value in the checkpoint."""
    changed = [
        f"{name} {saved[name]} -> {value}" for name, value in sorted(current.items()) if saved.get(name, value) != value
    ]
    return changed[:MAX_TOLD] + ([f"and {len(changed) - MAX_TOLD} more"] if len(changed) > MAX_TOLD else [])
