"""No clips: an image tells how they come to it, and nobody else is told of images."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ltxtrain.facts.container import clips_place, no_clips
from tests import warm

IMAGE = {"LTX_IMAGE": "/opt/ltxtrain/image.json"}
no_data = pytest.mark.skipif(Path("/data").exists(), reason="this machine has a folder /data")


def test_clips_are_looked_for_where_the_entrypoint_finds_them(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("22 1 0:21 / / rw - overlay overlay rw\n")
    pod = IMAGE | {"RUNPOD_POD_ID": "p"}
    assert clips_place(IMAGE, table) == Path("/data")
    assert clips_place(pod, table) == Path("/workspace/data")
    assert clips_place(pod | {"LTX_WORKSPACE": "/vol"}, table) == Path("/vol/data")
    assert clips_place(pod | {"LTX_DATA_DIR": "/mine"}, table) == Path("/mine")
    table.write_text("22 1 0:21 / / rw - overlay overlay rw\n30 22 8:1 /x /data rw - ext4 /dev/sda1 rw\n")
    assert clips_place(pod, table) == Path("/data")


def test_outside_of_our_images_nothing_is_said_of_them() -> None:
    assert no_clips({}) is None
    assert no_clips({"RUNPOD_POD_ID": "p"}) is None


def test_missing_empty_and_unnamed_are_told_apart(tmp_path: Path) -> None:
    pod = IMAGE | {"RUNPOD_POD_ID": "p", "LTX_WORKSPACE": str(tmp_path)}
    clips = tmp_path / "data"
    missing = no_clips(pod)
    assert missing and f"there is no folder {clips}" in missing.message and f"copy clips to {clips}" in missing.hint
    clips.mkdir()
    (clips / ".hidden").touch()
    empty = no_clips(pod)
    assert empty and f"{clips} is empty" in empty.message
    (clips / "a.mp4").touch()
    unnamed = no_clips(pod)
    assert unnamed and f"{clips} holds something" in unnamed.message and unnamed.hint == f"say --data {clips}"


def plan(mounts: str = ":", **env: str) -> str:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace of its own")
    code = warm.own_mounts(mounts) + warm.PROGRAM
    done = warm.run(code, "plan", "--preset", "bf16", modules=warm.PLAN, env=os.environ | env)
    assert done.returncode == 3, done.stderr
    return done.stderr


@no_data
def test_the_plan_of_an_image_hints_at_the_mount() -> None:
    assert "hint: mount the clips: -v /path/of/your/clips:/data" in plan(**IMAGE)
    assert "--data FOLDER" in plan()


def test_a_folder_that_is_mounted_and_empty_is_told_as_exactly_that(tmp_path: Path) -> None:
    pod = {"RUNPOD_POD_ID": "p", "LTX_WORKSPACE": str(tmp_path)}
    (tmp_path / "data").mkdir()
    told = plan(f"mount -t tmpfs tmpfs {tmp_path}/data", **IMAGE, **pod)
    assert f"{tmp_path}/data is mounted but holds nothing" in told
