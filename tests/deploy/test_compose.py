"""The compose file gives a container no right that it does not need, and no folder but the three."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ltxtrain.cli.app import run

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
every_service = pytest.mark.parametrize("name", SERVICES)


def test_there_is_a_service_for_each_kind_of_hardware_each_behind_its_profile() -> None:
    assert {name: (service["profiles"], service["image"]) for name, service in SERVICES.items()} == {
        "train": (["nvidia"], "ltxtrain:cuda"),
        "train-rocm": (["rocm"], "ltxtrain:rocm"),
        "smoke": (["cpu"], "ltxtrain:cpu"),
    }


@every_service
def test_a_service_has_no_right_and_a_root_that_cannot_be_written(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "${PUID:-1000}:${PGID:-1000}"
    assert not {"privileged", "cap_add", "ports", "pid", "ipc", "userns_mode", "env_file"} & set(service)
    [tmp] = service["tmpfs"]
    assert tmp.startswith("/tmp:") and {"nosuid", "nodev", "noexec", "mode=1777"} <= set(tmp.split(":")[1].split(","))


@every_service
def test_a_service_can_save_when_it_is_stopped_and_keeps_what_the_image_brings(name: str) -> None:
    service = SERVICES[name]
    assert service["stop_grace_period"] == "60s"
    # The image's entrypoint, stop signal and health check are used as they are; tini is in the image.
    assert not {"entrypoint", "stop_signal", "healthcheck", "init"} & set(service)
    assert service["shm_size"] == "8gb"
    assert service["restart"] == "no"


@every_service
def test_a_service_sees_the_three_folders_and_clips_only_to_read(name: str) -> None:
    mounts = {mount["source"]: mount for mount in SERVICES[name]["volumes"]}
    wanted = {"./clips": "/data", "./cache": "/cache", "./out": "/output"}
    if name == "smoke":
        del wanted["./clips"]
    assert {source: mount["target"] for source, mount in mounts.items()} == wanted
    assert [source for source, mount in mounts.items() if mount.get("read_only")] == ["./clips"][: len(wanted) - 2]
    assert all(mount["bind"] == {"create_host_path": False} for mount in mounts.values())


def test_each_service_gets_its_own_hardware_and_no_other() -> None:
    [device] = SERVICES["train"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert SERVICES["train-rocm"]["devices"] == ["/dev/kfd", "/dev/dri"]
    assert SERVICES["train-rocm"]["group_add"] == ["${VIDEO_GID:-44}", "${RENDER_GID:-109}"]
    assert SERVICES["smoke"]["network_mode"] == "none"
    for name in ("train", "smoke"):
        assert not {"devices", "group_add"} & set(SERVICES[name])


def test_the_token_is_a_file_that_need_not_be_there() -> None:
    assert COMPOSE["secrets"] == {"HF_TOKEN": {"file": "${HF_TOKEN_FILE:-/dev/null}"}}
    assert [name for name, service in SERVICES.items() if service.get("secrets") == ["HF_TOKEN"]] == [
        "train",
        "train-rocm",
    ]
    assert not any("environment" in service for service in SERVICES.values())


@every_service
def test_the_command_is_one_that_the_program_takes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = SERVICES[name]["command"]
    (clips := tmp_path / "clips").mkdir()
    data = [] if name == "smoke" else ["--data", str(clips)]
    assert run([*words, "--dry-run", *data]) == (0 if name == "smoke" else 3), "3: all is understood, clips are missing"
    assert run([*words, "--no-such-option"]) == 2


def test_the_commands_at_the_head_name_the_user_before_anything_is_started() -> None:
    lines = (ROOT / "compose.yaml").read_text().split("name: ltxtrain")[0].splitlines()
    commands = [line[4:].split("   ")[0] for line in lines if line.startswith("#   ")]
    [first] = [index for index, line in enumerate(commands) if line.startswith("docker compose run")]
    [export] = [line for line in commands[:first] if line.startswith("export ")]
    said = subprocess.run(["sh", "-c", f'{export}; echo "$PUID:$PGID"'], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == f"{os.getuid()}:{os.getgid()}"


def compose() -> list[str] | None:
    """Compose of version 2, as a plugin or by itself."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]):
            told = subprocess.run([*words, "version", "--short"], capture_output=True, text=True, check=False)
            if told.returncode == 0 and not told.stdout.lstrip("v").startswith("1."):
                return words
    return None


@every_service
def test_compose_itself_reads_the_file(name: str) -> None:
    words = compose()
    if words is None:
        pytest.skip("no docker compose of version 2 is installed")
    settings = {"PATH": os.environ["PATH"], "PUID": "1234", "PGID": "5678", "RENDER_GID": "993"}
    [profile] = SERVICES[name]["profiles"]
    command = [*words, "--file", str(ROOT / "compose.yaml"), "--profile", profile, "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=settings, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == {name}, "a profile starts one service"
    assert services[name]["user"] == "1234:5678"
    assert services[name]["stop_grace_period"] == "1m0s"
    if name == "train-rocm":
        assert services[name]["group_add"] == ["44", "993"]
