"""Runs of the smoke preset: real model classes, real clips, a cache that the session's tests share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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
        named = (
            {}
            if "data_backend_config" in options
            else {"instance_data_dir": data or next((shared / "clips").iterdir())}
        )
        flags = {
            **QUICK,
            **{name: str(path) for name, path in named.items()},
            "cache_dir": str(shared / "cache"),
            "output_dir": str(tmp_path / output),
            **{name: str(value) for name, value in options.items()},
        }
        return make_plan(load_config(("smoke",), env={}, flags=flags))

    return build


@pytest.fixture(scope="session")
def homes(shared: Path) -> dict[str, Path]:
    """Three clips, five clips, and three pictures."""
    stills = shared / "stills"
    stills.mkdir()
    for index, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (96 + index, 96), colour).save(stills / f"{colour}.png")
        (stills / f"{colour}.txt").write_text(f"plain {colour}\n")
    three, five = make_clips(shared / "more", 3), make_clips(shared / "more", 5)
    return {"clips": three, "cut": three, "stills": stills, "late": five, "held": five}


@pytest.fixture
def list_for(homes: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """``list_for(clips={...}, held={...})``: the guides' JSON list, with these keys for these data sets."""

    def build(**sets: Mapping[str, Any]) -> Path:
        entries = [
            {"id": name, "type": "local", "dataset_type": "video", "instance_data_dir": str(homes[name])} | settings
            for name, settings in sets.items()
        ]
        path = tmp_path / f"list-{len(list(tmp_path.glob('list-*')))}.json"
        path.write_text(json.dumps(entries))
        return path

    return build
