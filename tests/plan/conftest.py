"""Folders of real clips, tiny and fast to make, and configurations that point at them."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ltxtrain.config import LoadedConfig, load_config
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.records import Plan

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]
Planned = Callable[..., Plan]
GIB = 1024**3
CUDA = Machine("Linux", "a CPU", 8, 64 * GIB, "cuda", (Gpu("a card", 24 * GIB, "8.9"),))


@pytest.fixture
def machine() -> Machine:
    return Machine(os="Linux", cpu="a CPU", cores=2, memory_bytes=64 * GIB, device="cpu")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    return folder


@pytest.fixture
def add_clip(clips: Path) -> AddClip:
    """Write a clip and its caption; ``caption=None`` leaves the caption out."""

    def add(
        name: str,
        frames: int = 25,
        fps: float = 25,
        size: tuple[int, int] = (64, 48),
        caption: str | None = "a caption",
    ) -> Path:
        path = clips / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = av.VideoFrame.from_ndarray(np.zeros((size[1], size[0], 3), np.uint8), format="rgb24")
        with av.open(str(path), "w") as container:
            stream = container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1001))
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            for index in range(frames):
                picture.pts = index
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        if caption is not None:
            path.with_suffix(".txt").write_text(caption)
        return path

    return add


@pytest.fixture
def load(clips: Path, tmp_path: Path) -> Load:
    """A configuration on the tiny model; ``datasets`` stand in place of the folder."""

    def load_flags(*, presets: tuple[str, ...] = (), **flags: object) -> LoadedConfig:
        basis: dict[str, object] = {
            "pretrained_model_name_or_path": "ltxtrain/tiny",
            "output_dir": str(tmp_path / "output"),
            "cache_dir": str(tmp_path / "cache"),
            "resolution": 64,
        }
        if "datasets" not in flags and "data_backend_config" not in flags:
            basis["instance_data_dir"] = str(clips)
        return load_config(presets, env={}, flags=basis | flags)

    return load_flags


@pytest.fixture
def planned(load: Load, add_clip: AddClip) -> Planned:
    """The plan of a release for four clips in batches of one, on an NVIDIA card where no other machine is named."""
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        add_clip(name)

    def plan(machine: Machine = CUDA, **flags: object) -> Plan:
        basis = {"pretrained_model_name_or_path": "Lightricks/LTX-Video-0.9.5", "train_batch_size": 1}
        return make_plan(load(**(basis | flags)), machine)

    return plan


@pytest.fixture
def documented(clips: Path) -> Callable[..., dict[str, object]]:
    """One documented data set on the clips: ``video`` settings first, then other keys."""

    def build(video: dict[str, object], **keys: object) -> dict[str, object]:
        return {"id": "d", "instance_data_dir": str(clips), "crop_style": "center", "video": video} | keys

    return build
