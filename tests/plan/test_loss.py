"""What would vanish with the container is told before training, in our own image and nowhere else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from ltxtrain.facts.mounts import mount_below
from ltxtrain.plan.loss import Place, loss_warnings
from tests import warm

IMAGE = {"LTX_IMAGE": "/opt/ltxtrain/image.json"}
RUNPOD = IMAGE | {"RUNPOD_POD_ID": "pod1"}
VAST = IMAGE | {"VAST_CONTAINERLABEL": "C.77"}
OTHER_VAST = IMAGE | {"CONTAINER_ID": "77", "CONTAINER_API_KEY": "key"}
ROOT = "22 1 0:21 / / rw - overlay overlay rw\n23 22 0:5 / /proc rw - proc proc rw\n"


def places(output: str = "/output", cache: str = "/cache") -> list[Place]:
    results, caches = Path(output), Path(cache)
    return [Place("results", results / "run", results, "./out"), Place("caches", caches, caches, "./cache")]


def table(folder: Path, *points: str) -> Path:
    file = folder / "mountinfo"
    lines = [f"{30 + n} 22 8:1 /x {point} rw - ext4 /dev/sda1 rw\n" for n, point in enumerate(points)]
    file.write_text(ROOT + "".join(lines))
    return file


def test_what_is_lost_and_what_to_say_stand_in_one_line(tmp_path: Path) -> None:
    [both] = loss_warnings(places(), IMAGE, table(tmp_path))
    assert both == (
        "results in /output and caches in /cache will be lost with this container: nothing is mounted there; "
        "say -v ./out:/output -v ./cache:/cache"
    )
    [one] = loss_warnings(places("/elsewhere"), IMAGE, table(tmp_path, "/cache", "/output"))
    assert one.startswith("results in /elsewhere will be lost") and one.endswith("; say -v ./out:/elsewhere")
    [one] = loss_warnings(places(), IMAGE, table(tmp_path, "/output"))
    assert one.startswith("caches in /cache will be lost") and one.endswith("; say -v ./cache:/cache")


@pytest.mark.parametrize(
    "points", [("/cache", "/output"), ("/cache", "/output/run")], ids=["both mounted", "the run's own folder"]
)
def test_what_is_mounted_stays(tmp_path: Path, points: tuple[str, ...]) -> None:
    assert loss_warnings(places(), IMAGE, table(tmp_path, *points)) == []


def test_other_containers_and_other_systems_are_told_nothing(tmp_path: Path) -> None:
    assert loss_warnings(places(), {"RUNPOD_POD_ID": "pod1"}, table(tmp_path)) == []
    assert loss_warnings(places(), IMAGE, tmp_path / "no such table") == []


def test_on_clouds_a_volume_is_what_is_missing(tmp_path: Path) -> None:
    at = places("/workspace/output", "/workspace/cache")
    [pod] = loss_warnings(at, RUNPOD, table(tmp_path))
    assert pod.endswith("will be lost when this pod is stopped: make it with a volume at /workspace")
    for env in (VAST, OTHER_VAST):
        [instance] = loss_warnings(at, env, table(tmp_path))
        assert "will be lost when this instance is deleted: " in instance
        assert instance.endswith("make it with a volume (--mount-path /workspace)")
    for env in (RUNPOD, VAST):
        assert loss_warnings(at, env, table(tmp_path, "/workspace")) == []
    [other] = loss_warnings(at, RUNPOD | {"LTX_WORKSPACE": "/vol"}, table(tmp_path))
    assert other.endswith("at /vol")
    [beside] = loss_warnings(places("/root/out", "/workspace/cache"), RUNPOD, table(tmp_path, "/workspace"))
    assert beside == (
        "results in /root/out will be lost when this pod is stopped: name a folder in /workspace, where its volume is"
    )


def plan(folder: Path, mounts: str, **env: str) -> str:
    """What ``ltxtrain plan`` prints, in a mount namespace of its own."""
    words = ["plan", "--preset", "smoke", "--output", folder / "out", "--cache", folder / "cache"]
    done = warm.run(warm.own_mounts(mounts) + warm.PROGRAM, *words, modules=warm.PLAN, env=os.environ | env)
    assert done.returncode == 0, done.stderr
    return done.stdout


def may_mount() -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        return False
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs probe /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="needs root and a mount namespace of its own")
def test_the_plan_of_an_image_warns_of_it_and_no_other_plan_does(tmp_path: Path) -> None:
    if (mount_below(tmp_path) or ("",))[0] != "/":
        pytest.skip("temporary files are on a mount of their own here")
    (tmp_path / "out").mkdir()
    lost = f"results in {tmp_path}/out and caches in {tmp_path}/cache will be lost with this container"
    assert lost in " ".join(plan(tmp_path, "", **IMAGE).split())
    assert "lost" not in plan(tmp_path, "")
    mounted = " ".join(plan(tmp_path, f"mount -t tmpfs tmpfs {tmp_path}/out", **IMAGE).split())
    assert f"caches in {tmp_path}/cache will be lost" in mounted and "results in" not in mounted
