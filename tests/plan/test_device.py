"""A real model without a GPU: warned of, and refused in an image that is made for one, before anything is fetched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltxtrain.data.made import make_clips
from ltxtrain.facts.machine import Gpu, Machine, has_gpu_files
from ltxtrain.facts.models import TINY_MODEL
from ltxtrain.plan.device import device_warnings

REAL = "Lightricks/LTX-Video-0.9.5"
CPU = Machine("Linux", "a CPU", 4, 64 * 1024**3, "cpu")
CUDA = Machine("Linux", "a CPU", 4, 64 * 1024**3, "cuda", (Gpu("A10", 24 * 1024**3, "8.6"),))
no_gpu_here = pytest.mark.skipif(
    has_gpu_files("cuda") or has_gpu_files("rocm"), reason="this machine has a GPU, which is found"
)


def image(folder: Path, kind: str) -> dict[str, str]:
    (folder / "image.json").write_text(f'{{"kind": "{kind}"}}')
    return {"LTX_IMAGE": str(folder / "image.json")}


def test_without_a_gpu_the_weeks_are_told(tmp_path: Path) -> None:
    for env in ({}, image(tmp_path, "cpu")):
        [told] = device_warnings(CPU, REAL, env)
        assert told == f"no GPU was found: {REAL} would train on the CPU for weeks"
        assert device_warnings(CPU, TINY_MODEL, env) == [] == device_warnings(CUDA, REAL, env)


@no_gpu_here
@pytest.mark.parametrize(("kind", "run"), [("cuda", "docker run --gpus all"), ("rocm", "--device /dev/kfd --device")])
def test_an_image_for_gpus_tells_how_it_is_given_one(tmp_path: Path, kind: str, run: str) -> None:
    env = image(tmp_path, kind)
    [told] = device_warnings(CPU, REAL, env)
    assert "was given no GPU" in told and run in told
    assert "rent a pod with a GPU" in device_warnings(CPU, REAL, env | {"RUNPOD_POD_ID": "p"})[0]
    assert device_warnings(CPU, TINY_MODEL, env) == [] == device_warnings(CUDA, REAL, env)


@pytest.mark.parametrize(("kind", "file"), [("cuda", "nvidia0"), ("cuda", "dxg"), ("rocm", "kfd")])
def test_a_card_whose_tool_is_missing_is_a_card_all_the_same(tmp_path: Path, kind: str, file: str) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()  # the driver's own file is there without a card
    assert not has_gpu_files(kind, tmp_path)
    (tmp_path / "dev" / file).touch()
    assert has_gpu_files(kind, tmp_path)


@no_gpu_here
@pytest.mark.parametrize("command", ["train", "cache"])
def test_nothing_is_begun_without_a_gpu_in_an_image_for_one(tmp_path: Path, command: str) -> None:
    clips = make_clips(tmp_path / "clips", 2)
    places = ["--data", str(clips), "--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "out")]
    words = [sys.executable, "-m", "ltxtrain", command, "--preset", "bf16", *places]
    env = os.environ | image(tmp_path, "cuda")
    done = subprocess.run(words, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 4, done.stderr
    assert "this image is for NVIDIA, and the container was given no GPU" in done.stderr
    assert "hint: docker run --gpus all" in done.stderr and "loading torch" not in done.stderr
    assert {path.name for path in (tmp_path / "cache").glob("*")} <= {"index"}  # what the plan remembers of the clips
    assert not (tmp_path / "out").exists()
