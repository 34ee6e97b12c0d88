"""Secrets: where they come from, and that they are seen nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.entrypoint.conftest import Container, needs_box

CANARY = "canary-7f3b" + "-not-to-be-seen"


def secret_file(container: Container, text: str, mode: int = 0o600) -> str:
    path = container.place / "secret file"
    path.write_bytes(text.encode())
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_s_file_becomes_the_variable(container: Container, ending: str) -> None:
    path = secret_file(container, CANARY + ending)
    names = ("HF_TOKEN", "WANDB_API_KEY", "RUNPOD_API_KEY", "CONTAINER_API_KEY")
    done = container.run("train", env={f"{name}_FILE": path for name in names})
    for name in names:
        assert done.env[name] == CANARY
        assert f"{name}_FILE" not in done.env


def test_a_file_that_cannot_be_read_is_an_error_with_a_hint(container: Container) -> None:
    done = container.run("train", env={"HF_TOKEN_FILE": "/nowhere/token"})
    assert (done.code, done.ran) == (2, False)
    assert done.err.startswith("error: HF_TOKEN_FILE names /nowhere/token, which cannot be read")
    assert "\nhint: mount the file: -v ./token:/run/secrets/HF_TOKEN:ro" in done.err


@pytest.mark.parametrize("value", [CANARY, f"{CANARY}/half"])
def test_a_secret_in_the_place_of_its_file_is_not_shown(container: Container, value: str) -> None:
    done = container.run("train", env={"WANDB_API_KEY_FILE": value})
    assert (done.code, done.ran) == (2, False)
    assert "error: WANDB_API_KEY_FILE names a file, which cannot be read" in done.err
    assert "a secret itself goes into WANDB_API_KEY" in done.err
    assert CANARY not in done.err + done.out


def test_a_device_is_no_secret_and_nothing_is_said(container: Container) -> None:
    done = container.run("train", env={"HF_TOKEN_FILE": "/dev/null"})
    assert not {"HF_TOKEN", "HF_TOKEN_FILE"} & set(done.env)
    assert done.err == "words of ltxtrain\n"


@pytest.mark.parametrize("reference", ["{{ RUNPOD_SECRET_hf_token }}", "{{RUNPOD_SECRET_hf_token}}"])
def test_a_reference_that_was_not_filled_in_is_dropped(container: Container, reference: str) -> None:
    done = container.run("train", env={"HF_TOKEN": reference})
    assert "HF_TOKEN" not in done.env
    assert done.err.count("\n") == 2
    assert "warning: HF_TOKEN is a reference to a RunPod secret that was not filled in: it is not used" in done.err
    done = container.run("train", env={"HF_TOKEN": reference, "HF_TOKEN_FILE": secret_file(container, CANARY)})
    assert done.env["HF_TOKEN"] == CANARY


def test_an_empty_file_is_told_and_gives_nothing(container: Container) -> None:
    done = container.run("train", env={"HF_TOKEN_FILE": secret_file(container, "\n")})
    assert "HF_TOKEN_FILE is empty" in done.err
    assert "HF_TOKEN" not in done.env


def test_the_variable_wins_over_its_file_and_that_is_said(container: Container) -> None:
    env = {"HF_TOKEN": "given-by-hand", "HF_TOKEN_FILE": secret_file(container, CANARY)}
    done = container.run("train", env=env)
    assert done.env["HF_TOKEN"] == "given-by-hand"
    assert "HF_TOKEN and HF_TOKEN_FILE differ: HF_TOKEN of the environment is used" in done.err
    assert "differ" not in container.run("train", env=env | {"HF_TOKEN": CANARY}).err


def test_no_secret_is_seen_in_what_is_said_or_in_any_argument(container: Container) -> None:
    log = container.place / "log"
    env = {"HF_TOKEN_FILE": secret_file(container, CANARY), "WANDB_API_KEY": CANARY, "LTX_LOG": str(log)}
    env |= {"LTX_ON_EXIT": "stop-pod", "RUNPOD_POD_ID": "pod1", "RUNPOD_API_KEY": CANARY, "FAKE_SECONDS": "5"}
    env |= {"LTX_RUNPOD_API": "http://127.0.0.1:1", "LTX_WORKSPACE": str(container.place / "workspace")}
    container.program("runpodctl", '#!/bin/sh\ntr "\\0" " " </proc/$$/cmdline >>"$RECORD/words"\nexit 1\n')
    started = container.start("train", env=env)
    started.wait_for()
    # All processes that may be ours: no command line holds a secret.
    seen = [_words(process) for process in Path("/proc").iterdir() if process.name.isdigit()]
    started.send(15)
    done = started.done()
    assert done.env["HF_TOKEN"] == CANARY, "the canary must have been there to be missed"
    assert any(b"FAKE" in line or b"train" in line for line in seen)
    assert all(CANARY.encode() not in line for line in seen)
    assert CANARY not in done.out + done.err + "\0".join(done.argv)
    for path in container.place.rglob("*"):
        if path.is_file() and path.name not in ("secret file", "env"):
            assert CANARY not in path.read_text(errors="replace"), path


def _words(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


@needs_box
def test_a_file_for_root_alone_is_read_before_root_is_left(box: Container) -> None:
    folder = box.mount("/secret")
    (folder / "token").write_text(CANARY + "\n")
    (folder / "token").chmod(0o400)
    done = box.run("train", env={"HF_TOKEN_FILE": "/secret/token"})
    assert "uid=10001" in done.id
    assert done.env["HF_TOKEN"] == CANARY


@needs_box
def test_run_secrets_are_taken_without_being_named(box: Container) -> None:
    folder = box.mount("/run/secrets")
    (folder / "HF_TOKEN").write_text(CANARY + "\n")
    (folder / "HF_TOKEN").chmod(0o400)
    done = box.run("train")
    assert done.env["HF_TOKEN"] == CANARY
    assert "uid=10001" in done.id
    assert "HF_TOKEN" not in done.err
    assert done.env["LTX_SECRETS_READ"] == "1", "ltxtrain is not to look into a file that is root's alone"
    (folder / "HF_TOKEN").chmod(0o444)
    assert box.run("train", env={"HF_TOKEN": "other"}).err.count("differ") == 1, "said once, not again as the user"
    (folder / "HF_TOKEN").chmod(0o400)
    box.as_user = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups"]
    done = box.run("train")
    assert "HF_TOKEN" not in done.env
    assert "warning: /run/secrets/HF_TOKEN cannot be read by user 1234" in done.err


@needs_box
def test_compose_hands_over_dev_null_or_an_empty_file_where_there_is_no_secret(box: Container) -> None:
    folder = box.mount("/run/secrets")
    (folder / "HF_TOKEN").touch()
    (folder / "WANDB_API_KEY").symlink_to("/dev/null")
    done = box.run("train")
    assert not {"HF_TOKEN", "WANDB_API_KEY"} & set(done.env)
    assert done.err == "words of ltxtrain\n"
    (folder / "HF_TOKEN").unlink()
    (folder / "HF_TOKEN").mkdir()  # what an engine makes where the file to mount is missing
    assert "warning: /run/secrets/HF_TOKEN cannot be read" in box.run("train").err
