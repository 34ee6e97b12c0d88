"""As RunPod and as Vast start it: their variables, their volume, their start commands, as root."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.entrypoint.conftest import Container, needs_box

RUNPOD = {
    "RUNPOD_POD_ID": "abc123xyz",
    "RUNPOD_POD_HOSTNAME": "abc123xyz-64410fd1",
    "RUNPOD_DC_ID": "EU-RO-1",
    "RUNPOD_GPU_COUNT": "1",
    "RUNPOD_API_KEY": "rpa_pod_scoped_key",
}
VAST = {
    "CONTAINER_ID": "1234567",
    "CONTAINER_API_KEY": "vast_instance_key",
    "VAST_CONTAINERLABEL": "C.1234567",
    "PUBLIC_IPADDR": "203.0.113.7",
    "VAST_TCP_PORT_22": "41022",
}
CLOUDS = {"runpod": RUNPOD, "vast": VAST}
VAST_WAYS = [VAST, {"VAST_CONTAINERLABEL": "C.1"}, {"CONTAINER_ID": "1", "CONTAINER_API_KEY": "k"}]


@needs_box
@pytest.mark.parametrize("env", [RUNPOD, *VAST_WAYS])
def test_a_cloud_s_volume_holds_everything_and_root_stays(box: Container, env: dict[str, str]) -> None:
    volume = box.mount("/workspace")
    (volume / "data").mkdir()
    (volume / "data" / "clip.mp4").touch()
    done = box.run("train", "--preset", "bf16", env=env)
    assert done.code == 0
    assert done.id.startswith("uid=0 ")
    assert done.env["LTX_DATA_DIR"] == "/workspace/data"
    assert done.env["LTX_CACHE_DIR"] == "/workspace/cache"
    assert done.env["LTX_OUTPUT_DIR"] == "/workspace/output"
    assert done.env["HF_HOME"] == "/workspace/cache/huggingface"
    assert done.cwd == "/workspace/output"
    assert done.err == "words of ltxtrain\n", "nothing to warn of"


@needs_box
@pytest.mark.parametrize("env", [{}, {"CONTAINER_ID": "1"}, {"PUBLIC_KEY": ""}])
def test_other_variables_make_no_cloud(box: Container, env: dict[str, str]) -> None:
    box.mount("/workspace")
    done = box.run("train", env=env)
    assert done.env["LTX_OUTPUT_DIR"] == "/output"
    assert done.id.startswith("uid=10001 ")


@needs_box
@pytest.mark.parametrize("cloud", CLOUDS)
def test_folders_mounted_on_purpose_win_over_the_volume(box: Container, cloud: str) -> None:
    box.mount("/workspace")
    box.mount("/cache")
    (box.mount("/data") / "clip.mp4").touch()
    env = box.run("train", env=CLOUDS[cloud]).env
    assert env["LTX_CACHE_DIR"] == "/cache"
    assert env["LTX_DATA_DIR"] == "/data"
    assert env["LTX_OUTPUT_DIR"] == "/workspace/output"


@needs_box
@pytest.mark.parametrize("changed", ["", "export LTX_OUTPUT_DIR=/mine;"])
def test_a_shell_that_calls_the_entrypoint_by_path_may_name_other_places(box: Container, changed: str) -> None:
    """As a template's start command does, that waits for clips first: they are found, too."""
    volume = box.mount("/workspace")
    start = f"{changed} touch /workspace/data/clip.mp4; exec /opt/ltxtrain/entrypoint/entrypoint.sh train"
    env = box.run("bash", "-c", start, env=RUNPOD).env
    assert env["LTX_OUTPUT_DIR"] == ("/mine" if changed else "/workspace/output")
    assert env["LTX_CACHE_DIR"] == "/workspace/cache"
    assert env["LTX_DATA_DIR"] == "/workspace/data"
    assert (volume / "data" / "clip.mp4").exists()


def test_another_volume_can_be_named(container: Container) -> None:
    volume = container.place / "my volume"
    volume.mkdir()
    env = RUNPOD | {"LTX_WORKSPACE": str(volume), "LTX_CACHE_DIR": "", "LTX_OUTPUT_DIR": ""}
    done = container.run("train", env=env)
    assert done.env["LTX_OUTPUT_DIR"] == f"{volume}/output" == done.cwd
    assert sorted(path.name for path in volume.iterdir()) == ["cache", "data", "output"]


def test_a_folder_that_somebody_chose_to_start_in_is_kept(container: Container) -> None:
    chosen = container.folder("chosen")
    container.as_user = ["env", f"--chdir={chosen}"]
    env = RUNPOD | {"LTX_WORKSPACE": str(container.folder("volume")), "LTX_OUTPUT_DIR": ""}
    assert container.run("train", env=env).cwd == str(chosen)


@needs_box
def test_vast_s_on_start_is_clean_when_it_is_called_again(box: Container) -> None:
    """By path, without tini, to a log and in the background: as the template's on-start calls it."""
    volume = box.mount("/workspace")
    box.program("onstart", "#!/bin/bash\ncd /root\n/opt/ltxtrain/entrypoint/entrypoint.sh train --preset bf16\n")
    env = VAST | {"LTX_LOG": "/workspace/ltxtrain.log"}
    box.mounts.append(f"{box.folder('tmp', 0, 0o1777)}:/tmp")  # both calls are in one container: one /tmp
    first = box.start("/fake/onstart", script="/bin/bash", env=env | {"FAKE_SECONDS": "9"})
    first.wait_for()
    second = box.run("/fake/onstart", script="/bin/bash", env=env)
    assert (second.code, second.ran) == (0, False)
    assert second.err == "note: a training is going on in this container already: nothing is started\n"
    other = box.run("ltxtrain", "plan", env=env)
    assert other.argv == ["plan"], "commands that only look are not kept out"
    os.kill(int((first.record / "pid").read_text()), signal.SIGTERM)
    assert first.done().code == 143
    third = box.run("/fake/onstart", script="/bin/bash", env=env)
    assert third.ran, "nothing of the first call is in the way"
    assert (volume / "ltxtrain.log").read_text().count("words of ltxtrain") == 3


def test_a_training_that_ended_frees_the_turn_while_the_container_sleeps(container: Container) -> None:
    env = RUNPOD | {"LTX_WORKSPACE": str(container.place / "volume"), "TMPDIR": str(container.place)}
    sleeping = container.start("train", env=env | {"LTX_ON_EXIT": "sleep"})
    sleeping.told("the container stays")
    assert container.run("train", env=env).ran
    sleeping.send(signal.SIGTERM)
    assert sleeping.process.wait(5) == 0


def test_on_a_workstation_nothing_is_locked(container: Container) -> None:
    running = container.start("train", env={"FAKE_SECONDS": "5"})
    running.wait_for()
    assert container.run("train").ran
    assert not list(Path(container.place).rglob("*.lock"))


def test_without_a_command_it_greets_and_waits_only_where_it_is_told_to(container: Container) -> None:
    env = RUNPOD | {"LTX_WORKSPACE": str(container.place / "volume")}
    done = container.run(env=env)
    assert done.code == 0
    assert "On this cloud: clips in " in done.out
    assert "  ltxtrain COMMAND" in done.out and "train --preset bf16" in done.out
    assert "docker" not in done.out and "/clips" not in done.out, "there is no docker to type into"
    waiting = container.start(env=env | {"LTX_ON_EXIT": "sleep"})
    waiting.told("nothing is to be done; waiting")
    assert waiting.process.poll() is None
    waiting.send(signal.SIGTERM)
    assert waiting.done().code == 0
