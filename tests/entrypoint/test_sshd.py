"""ssh: only in the cloud stage, only with a key, only by key."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.entrypoint.conftest import AS_ORDINARY_USER, Container, Started, needs_box

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBbdsrCP6Q6eWKX1vS3mvEmWmAJvmcFmtCWmrNMzHPhx ada@home"
OTHER = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC7 bob"
CLOUD = {"LTX_STAGE": "cloud", "RUNPOD_POD_ID": "pod1", "LTX_SSH_PORT": "58122"}
HOME = "/run/ltxtrain-sshd"

# A stand-in for sshd: it keeps what it was started with, and stays in the background as the real one.
SSHD = """#!/bin/sh
env >/record/sshd-env
printf '%s\\n' "$*" >/record/sshd-words
cp /run/ltxtrain-sshd/sshd_config /run/ltxtrain-sshd/authorized_keys /run/ltxtrain-sshd/host_key.pub /record/
stat -c %a /run/ltxtrain-sshd /run/ltxtrain-sshd/host_key >/record/modes
"""
KEYGEN = """#!/bin/sh
while [ "$1" != -f ]; do shift; done
printf 'private\\n' >"$2"
chmod 600 "$2"
printf 'ssh-ed25519 AAAA\\n' >"$2.pub"
"""


@pytest.fixture
def cloud(box: Container) -> Container:
    box.program("sshd", SSHD)
    if not box_has("ssh-keygen"):
        box.program("ssh-keygen", KEYGEN)
    box.mount("/workspace")
    return box


def box_has(name: str) -> bool:
    import shutil

    return shutil.which(name, path="/usr/bin:/bin") is not None


def sshd_ran(started: Started) -> bool:
    return (started.record / "sshd-words").exists()


@needs_box
@pytest.mark.parametrize(
    ("keys", "lines"),
    [
        ({"PUBLIC_KEY": KEY}, [KEY]),
        ({"SSH_PUBLIC_KEY": KEY}, [KEY]),
        ({"PUBLIC_KEY": f"{KEY}\n{OTHER}\n", "SSH_PUBLIC_KEY": KEY}, [KEY, OTHER]),
        ({"PUBLIC_KEY": f"{KEY}\\n{OTHER}"}, [KEY, OTHER]),
        ({"PUBLIC_KEY": f"\r\n{KEY}\r\nno key\n"}, [KEY]),
    ],
)
def test_sshd_starts_with_the_keys_and_training_goes_on(
    cloud: Container, keys: dict[str, str], lines: list[str]
) -> None:
    done = cloud.run("train", env=CLOUD | keys | {"HF_TOKEN": "hf_canary", "HF_HOME": "/workspace/my hub"})
    assert done.argv == ["train"]
    assert (done.record / "authorized_keys").read_text().splitlines() == lines
    assert (done.record / "sshd-words").read_text().split()[:2] == ["-f", f"{HOME}/sshd_config"]
    assert f"sshd listens on port 58122, for {len(lines)} key(s)" in done.err
    config = (done.record / "sshd_config").read_text()
    for line in (
        "Port 58122",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "PermitEmptyPasswords no",
        "PermitRootLogin prohibit-password",
        "AuthenticationMethods publickey",
        f"AuthorizedKeysFile {HOME}/authorized_keys",
    ):
        assert line in config.splitlines()
    assert '"HF_HOME=/workspace/my hub" ' in config
    assert '"LTX_OUTPUT_DIR=/workspace/output" ' in config
    assert '"LTX_PREPARED=1" ' in config, "the launcher starts ltxtrain at once"
    assert config.count("SetEnv") == 1, "sshd reads the first one alone"
    for text in (config, (done.record / "sshd-env").read_text()):
        assert "canary" not in text
    assert (done.record / "modes").read_text().split() == ["700", "600"]


@needs_box
def test_without_a_key_there_is_no_sshd(cloud: Container) -> None:
    for keys in ({}, {"PUBLIC_KEY": ""}, {"PUBLIC_KEY": "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n"}):
        started = cloud.start("train", env=CLOUD | keys)
        done = started.done()
        assert done.ran
        assert not sshd_ran(started)
        assert "canary" not in done.err
        assert ("holds no ssh public key" in done.err) == bool(keys.get("PUBLIC_KEY"))


@needs_box
def test_the_plain_image_says_that_it_has_no_sshd(cloud: Container) -> None:
    for env in ({"LTX_STAGE": ""}, {"LTX_STAGE": "plain"}):
        started = cloud.start("train", env=CLOUD | {"PUBLIC_KEY": KEY} | env)
        done = started.done()
        assert done.ran
        assert not sshd_ran(started)
        assert done.err.count("this image has no sshd") == 1


@needs_box
def test_with_a_key_and_no_command_it_greets_and_waits(cloud: Container) -> None:
    started = cloud.start(env=CLOUD | {"PUBLIC_KEY": KEY})
    started.told("nothing is to be done; waiting")
    assert sshd_ran(started)
    started.send(signal.SIGTERM)
    done = started.done()
    assert done.code == 0
    assert "ltxtrain: clips in" in done.out


@needs_box
def test_outside_of_a_cloud_root_is_left_and_people_can_still_come(cloud: Container) -> None:
    started = cloud.start(env=CLOUD | {"PUBLIC_KEY": KEY, "RUNPOD_POD_ID": ""})
    started.told("nothing is to be done; waiting")
    assert sshd_ran(started)
    started.send(signal.SIGTERM)
    assert started.done().code == 0


@needs_box
def test_a_port_that_is_taken_is_left_to_who_has_it(cloud: Container) -> None:
    """Vast's own sshd, or ours from an earlier call of the on-start."""
    cloud.namespaces = ["--mount"]  # the listener is outside of the box
    with socket.create_server(("127.0.0.1", 0)) as server:
        env = CLOUD | {"PUBLIC_KEY": KEY, "LTX_SSH_PORT": str(server.getsockname()[1])}
        started = cloud.start("train", env=env)
        done = started.done()
    assert done.ran
    assert not sshd_ran(started)
    assert "sshd" not in done.err


@needs_box
def test_a_sshd_that_does_not_start_is_told_and_training_goes_on(cloud: Container) -> None:
    cloud.program("sshd", '#!/bin/sh\nwhile [ "$1" != -E ]; do shift; done\necho "no luck" >"$2"\nexit 255\n')
    done = cloud.run("train", env=CLOUD | {"PUBLIC_KEY": KEY})
    assert done.ran
    assert "warning: sshd did not start: no luck" in done.err


@needs_box
def test_an_ordinary_user_starts_no_sshd(cloud: Container) -> None:
    cloud.as_user = AS_ORDINARY_USER
    started = cloud.start("train", env=CLOUD | {"PUBLIC_KEY": KEY})
    assert "no sshd is started: it needs root" in started.done().err
    assert not sshd_ran(started)
