from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ltxtrain.learn.checkpoint import Checkpoint, save_checkpoint

IDENTITY = {"base model": "aa", "adapter": "bb", "set of clips": "cc"}


def checkpoint_of(step: int, run: float = 0.0) -> Checkpoint:
    """A small checkpoint whose every number says which step, and which run, it is of."""
    adapter = {"a.lora_A": torch.full((3, 4), float(step)), "a.lora_B": torch.full((5,), run)}
    optimizer = {f"exp_avg|{name}": tensor / 8 for name, tensor in adapter.items()}
    return Checkpoint(step, adapter, optimizer, {"identity": IDENTITY, "settings": {"learning_rate": 1e-4}})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return (one.step, one.state) == (other.step, other.state) and all(
        mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in ((one.adapter, other.adapter), (one.optimizer, other.optimizer))
    )


@pytest.fixture(name="checkpoint_of")
def _checkpoint_of() -> Callable[..., Checkpoint]:
    return checkpoint_of


@pytest.fixture(name="same")
def _same() -> Callable[[Checkpoint, Checkpoint], bool]:
    return same


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run's checkpoints at steps 10, 20 and 30."""
    for step in (10, 20, 30):
        save_checkpoint(tmp_path / "checkpoints", checkpoint_of(step))
    return tmp_path / "checkpoints"
