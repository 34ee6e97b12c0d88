"""What a newcomer with a container meets: folders of another user, no clips, no mounts, and fixes that can be used."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.doctor.clips import check_data
from ltxtrain.doctor.needs import volumes_of
from ltxtrain.doctor.places import check_volume
from ltxtrain.facts.access import Wanted, allow_writing
from ltxtrain.facts.mounts import mount_below
from tests.doctor.children import STRANGER, folder_for_all, in_child, needs_root, wrong
from tests.doctor.world import World

PLANTED = ("volume-inside-permission", "data-missing", "data-empty", "gpu-not-given")
IMAGE = {"LTX_IMAGE": "/opt/ltxtrain/image.json"}
GIB = 1024**3


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


# ---------------------------------------------------------------- what lies inside


CACHE = "check_volume('cache', folder, 1, tuple(ltxtrain.plan.places.inside_cache(folder)))"
RUN = "check_volume('output', folder, 1, tuple(ltxtrain.plan.places.inside_run(folder / 'smoke')))"


@needs_root
@pytest.mark.parametrize(
    ("check", "closed"),
    [(CACHE, "digests"), (CACHE, "latents/ab"), (CACHE, "models"), (RUN, "smoke"), (RUN, "smoke/checkpoints")],
)
@pytest.mark.parametrize("owner", [0, 1000])
def test_what_another_user_left_inside_is_told(open_folder: Path, check: str, closed: str, owner: int) -> None:
    folder = open_folder / "volume"
    (folder / closed).mkdir(parents=True)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, STRANGER, STRANGER)
    os.chown(folder / closed, owner, owner)
    mounted = f"mount --bind {folder} {folder}"
    found = in_child(check, folder, uid=STRANGER, mounts=mounted, environment=IMAGE)
    assert wrong(found) == ["volume-inside-permission"]
    assert f"uid {STRANGER}" in found[0].says and f"{folder / closed}, which belongs to {owner}:" in found[0].says
    assert f"in what is mounted at {folder}: chown -R {STRANGER}:{STRANGER} {closed}" in found[0].fix
    assert (f"PUID={owner}" in found[0].fix) == bool(owner)
    os.chown(folder / closed, STRANGER, STRANGER)
    assert wrong(in_child(check, folder, uid=STRANGER, mounts=mounted, environment=IMAGE)) == []


@needs_root
def test_doctor_looks_inside_of_the_cache_that_a_run_would_use(world: World) -> None:
    (world.place / "work" / "cache" / "digests").mkdir(parents=True, mode=0o500)
    (world.place / "work" / "output" / "smoke").mkdir(parents=True, mode=0o500)
    for folder in ("cache/digests", "output/smoke"):
        (world.place / "work" / folder).chmod(0o500)
    world.obey_modes()
    answer = world.examine("--preset", "smoke")
    assert {("cache folder", "volume-inside-permission"), ("output folder", "volume-inside-permission")} <= answer.bad
    assert answer.exit_code == 4


# ---------------------------------------------------------------- fixes that do no harm


@pytest.mark.parametrize("place", ["/", "/usr", "/etc/ssl", "/tmp", "/home"])
def test_nobody_is_told_to_give_a_folder_of_the_system_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setattr("ltxtrain.facts.access.in_container", bool)  # by the variables alone: this may be a container
    table = tmp_path / "mountinfo"
    table.write_text("22 1 0:21 / / rw - overlay overlay rw\n30 22 8:1 /x /output rw - ext4 /dev/sda1 rw\n")
    wanted = Wanted("output", Path("/results"))
    inside = allow_writing(Path(place), wanted, IMAGE, table)
    assert inside == "mount a folder there: -v ./out:/results"
    assert allow_writing(Path(place), wanted, {}, table) == "name a folder of your own with --output"
    pod = allow_writing(Path(place), wanted, IMAGE | {"RUNPOD_POD_ID": "p"}, table)
    assert pod.startswith("name a folder in /workspace") and pod.endswith("--output")


@needs_root
@pytest.mark.parametrize("environment", [IMAGE, {}])
def test_results_beside_no_mount_are_mounted_and_never_chowned(environment: dict[str, str]) -> None:
    if not environment and (Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()):
        pytest.skip("this is a container, whatever the variables say")
    folder = Path("/ltxtrain-no-such-folder")
    (finding,) = in_child("check_volume('output', folder, 1)", folder, uid=STRANGER, environment=environment)
    assert wrong(finding) == ["volume-permission"] and "chown" not in finding.fix
    assert (f"-v ./out:{folder}" if environment else "--output") in finding.fix


@pytest.mark.parametrize(("name", "outside"), [("cache", "./cache"), ("output", "./out")])
def test_mounts_are_told_as_docker_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, outside: str
) -> None:
    if (mount_below(tmp_path) or ("",))[0] != "/":
        pytest.skip("temporary files are on a mount of their own here")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTX_IMAGE", IMAGE["LTX_IMAGE"])
    fix = check_volume(name, Path("place"), 1)[-1].fix
    assert fix == f"mount a folder there: -v {outside}:{tmp_path}/place"
    assert check_data(Path("clipz")).fix.endswith(f"-v /path/of/your/clips:{tmp_path}/clipz")


def test_downloads_below_the_cache_are_no_place_of_their_own(tmp_path: Path) -> None:
    config = load_config(["bf16"], env={}, flags={"cache": str(tmp_path / "cache")}).config
    inside = volumes_of(config, {"HF_HOME": str(tmp_path / "cache" / "huggingface")})
    beside = volumes_of(config, {"HF_HOME": str(tmp_path / "huggingface")})
    assert [volume.name for volume in inside] == ["cache", "output"]
    assert [volume.name for volume in beside] == ["cache", "output", "downloads"]
    assert inside[0].need_bytes == beside[0].need_bytes + beside[2].need_bytes > 10 * GIB


def test_the_tiny_model_is_not_asked_for_gigabytes() -> None:
    for volume in volumes_of(load_config(["smoke"], env={}).config, {}):
        assert 8 * 1024**2 < volume.need_bytes < GIB // 8


# ---------------------------------------------------------------- clips and GPU


@pytest.mark.parametrize(
    ("cloud", "place", "fix"),
    [
        ({}, "/data", "-v /path/of/your/clips:/data"),
        ({"RUNPOD_POD_ID": "p", "LTX_WORKSPACE": "/nowhere"}, "/nowhere/data", "copy clips to /nowhere/data"),
        ({"VAST_CONTAINERLABEL": "C.1", "LTX_WORKSPACE": "/nowhere"}, "/nowhere/data", "copy clips to /nowhere/data"),
    ],
)
def test_an_image_without_clips_is_a_fault_unless_the_run_makes_its_own(
    world: World, cloud: dict[str, str], place: str, fix: str
) -> None:
    if Path("/data").exists():
        pytest.skip("this machine has a folder /data")
    world.nvidia()
    world.env |= IMAGE | cloud
    answer = world.examine("--preset", "bf16")
    assert (answer.exit_code, fix in answer.finding("data-missing")["fix"]) == (3, True)
    assert answer.finding("data-missing")["says"] == f"{place} does not exist"
    assert not [check for check, _ in world.examine("--preset", "smoke").bad if check == "data"]


def test_an_empty_folder_for_clips_is_told_as_empty(world: World) -> None:
    world.nvidia()
    clips = world.place / "work" / "volume" / "data"
    clips.mkdir(parents=True)
    world.env |= IMAGE | {"RUNPOD_POD_ID": "p", "LTX_WORKSPACE": str(clips.parent)}
    answer = world.examine("--preset", "bf16")
    assert answer.exit_code == 3 and f"copy clips to {clips}" in answer.finding("data-empty")["fix"]


@pytest.mark.parametrize(("kind", "run"), [("cuda", "--gpus all"), ("rocm", "--device /dev/kfd --device /dev/dri")])
def test_an_image_for_gpus_that_was_given_none_is_a_fault_for_real_models(world: World, kind: str, run: str) -> None:
    world.env["LTX_IMAGE"] = str(world.file("opt/image.json", f'{{"kind": "{kind}"}}'))
    made = world.cuda_torch if kind == "cuda" else world.rocm_torch
    made(devices=[], error="no GPU is there")
    answer = world.examine("--preset", "bf16")
    assert answer.exit_code == 4 and run in answer.finding("gpu-not-given")["fix"]
    assert world.examine("--preset", "smoke").exit_code == 0


def test_without_a_gpu_anywhere_the_weeks_are_told(world: World) -> None:
    found = world.examine("--preset", "bf16").finding("no-gpu")
    assert found["state"] == "warning" and "would train on the CPU for weeks" in found["says"]
