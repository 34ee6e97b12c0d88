"""Runs of the smoke preset: real model classes, real clips, a cache that the session's tests share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.config import load_config
from ltxtrain.data.made import make_clips
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.records import Plan

QUICK = {
    "validation_disable": "true",
    "checkpoint_step_interval": "2",
    "checkpoint_minutes": "0",
    "max_train_steps": "4",
    "lr_warmup_steps": "0",
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four made clips and the cache; entries are keyed by content, so tests may share them."""
    folder = tmp_path_factory.mktemp("shared")
    make_clips(folder / "clips", 4)
    return folder


@pytest.fixture
def plan_for(shared: Path, tmp_path: Path) -> Callable[..., Plan]:
    """``plan_for(max_train_steps=6, ...)``: the smoke preset, quick, into this test's own output folder."""

    def build(*, output: str = "out", data: Path | None = None, **options: Any) -> Plan:
        flags = {
            **QUICK,
            "instance_data_dir": str(data or next((shared / "clips").iterdir())),
            "cache_dir": str(shared / "cache"),
            "output_dir": str(tmp_path / output),
            **{name: str(value) for name, value in options.items()},
        }
        return make_plan(load_config(("smoke",), env={}, flags=flags))

    return build
