"""What is run for which words, and what is said when there are none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.entrypoint.conftest import ENTRYPOINT, SCRIPTS, SHELLS, Container


@pytest.mark.parametrize("words", [["train", "--preset", "a b", ""], ["ltxtrain", "train", "--preset", "a b", ""]])
def test_train_is_the_same_with_and_without_the_program_s_name(container: Container, words: list[str]) -> None:
    done = container.run(*words)
    assert done.code == 0
    assert done.argv == ["train", "--preset", "a b", ""]


@pytest.mark.parametrize("word", ["plan", "--help", "trian", "--version"])
def test_every_other_word_goes_to_ltxtrain(container: Container, word: str) -> None:
    assert container.run(word, "x").argv == [word, "x"]


def test_the_exit_code_and_both_streams_are_ltxtrain_s_own(container: Container) -> None:
    done = container.run("presets", env={"FAKE_CODE": "7"})
    assert done.code == 7
    assert done.out == "results of ltxtrain\n"
    assert done.err == "words of ltxtrain\n"


@pytest.mark.parametrize("words", [["sh", "-c", "echo $0 ran"], ["bash", "-c", "echo $0 ran"], ["/bin/echo", "x ran"]])
def test_shells_and_paths_run_as_they_are(container: Container, words: list[str]) -> None:
    done = container.run(*words)
    assert (done.code, done.ran) == (0, False)
    assert done.out.strip().endswith("ran")


def test_a_tool_that_is_not_in_the_image_is_said(container: Container) -> None:
    if shutil.which("rocm-smi"):
        pytest.skip("rocm-smi is on this machine")
    done = container.run("rocm-smi")
    assert done.code == 127
    assert done.err.startswith("error: there is no program rocm-smi in this container\nhint: ")


def test_without_a_word_it_says_what_to_mount_and_what_to_type(container: Container) -> None:
    done = container.run()
    assert (done.code, done.ran, done.err) == (0, False, "")
    for needed in ("-v ./clips:/data", "-v ./cache:/cache", "-v ./out:/output", "--gpus all", "plan", "doctor", "PUID"):
        assert needed in done.out
    assert "train --preset bf16" in done.out
    assert "train --preset smoke" in done.out
    assert max(len(line) for line in done.out.splitlines()) <= 120


def test_the_welcome_fits_the_image_s_kind(container: Container) -> None:
    image = container.place / "image.json"
    image.write_text('{"kind": "rocm", "version": "0.1.0"}\n')
    out = container.run(env={"LTX_IMAGE": str(image)}).out
    assert "--device=/dev/kfd --device=/dev/dri" in out
    assert "train --preset rocm-mi300x" in out
    assert "--gpus" not in out
    image.write_text('{"kind": "cpu", "version": "0.1.0"}\n')
    out = container.run(env={"LTX_IMAGE": str(image)}).out
    assert [line.split("  ")[1] for line in out.splitlines() if "--preset" in line] == [
        "plan --preset smoke",
        "train --preset smoke",
    ]


def test_it_is_found_by_path_and_through_a_link(container: Container) -> None:
    link = container.place / "start"
    link.symlink_to(ENTRYPOINT)
    assert container.run("train", script=str(link)).argv == ["train"]


def test_the_program_is_found_without_the_image_s_path(container: Container) -> None:
    """Vast's on-start may have another PATH: the image's own folders are looked into as well."""
    done = container.run("sh", "-c", "echo $PATH", env={"PATH": "/usr/bin:/bin"})
    assert done.out.strip() == "/usr/bin:/bin:/opt/venv/bin:/usr/local/bin"


def test_the_scripts_can_be_started_and_are_read_by_both_shells() -> None:
    assert SHELLS, "neither dash nor bash is here"
    for name in ("entrypoint.sh", "healthcheck.sh", "launch.sh"):
        assert os.access(SCRIPTS / name, os.X_OK)
        assert (SCRIPTS / name).read_text().startswith("#!/bin/sh\n")
    for script in SCRIPTS.glob("*.sh"):
        for shell in SHELLS:
            subprocess.run([shell, "-n", script], check=True)


def test_shellcheck_finds_nothing_and_no_name_without_a_value(tmp_path: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed here; make lint has it")
    subprocess.run([shellcheck, *sorted(SCRIPTS.glob("*.sh"))], check=True)
    # Read one by one, the parts cannot know each other's names. Put into one file, all of them must have a value.
    main = ENTRYPOINT.read_text()
    parts = main.split("for part in ")[1].split(";")[0].split()
    texts = [(SCRIPTS / f"{part}.sh").read_text().split("\n", 1)[1] for part in parts]
    whole = tmp_path / "whole.sh"
    before, after = main.split("for part in ")[0], main.split("done\n", 1)[1]
    whole.write_text("\n".join([before, *texts, after]))
    subprocess.run([shellcheck, "--exclude=SC2329", whole], check=True)
