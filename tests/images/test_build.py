"""What `make image-cuda` and its kin ask of Docker: a stand-in that writes down its words takes Docker's place."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCKER = """#!/bin/sh
case "$*" in
"image inspect"*) echo 1750000000 ;;
*) echo "epoch=$SOURCE_DATE_EPOCH" "$@" >"$(dirname "$0")/asked" ;;
esac
"""


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """The only folder on the PATH."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    for name in ("git", "dirname", "sh"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    return folder


def build(programs: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "scripts/image/build.py", *words]
    environment = {**os.environ, "PATH": str(programs)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def asked(programs: Path) -> list[str]:
    return (programs / "asked").read_text().split()


def test_the_build_gets_its_labels_and_further_words_in_their_order(programs: Path) -> None:
    done = build(programs, "cuda", "--stage", "cloud", "--platform", "linux/amd64", "--no-cache")
    assert (done.returncode, done.stdout) == (0, "ltxtrain:cuda-cloud is ready: 1.75 GB\n"), done.stderr
    words = asked(programs)
    assert words[1:5] == ["buildx", "build", "--file", "Dockerfile.cuda"]
    assert "--load" in words
    assert words[-4:] == ["--platform", "linux/amd64", "--no-cache", "."]
    lock = hashlib.sha256((ROOT / "requirements/lock.txt").read_bytes()).hexdigest()
    assert {"TORCH=cu129", "TORCH_VERSION=2.13.0+cu129", f"LOCK_SHA256={lock}"} <= set(words)
    assert " --target cloud " in " ".join(words)
    assert not [word for word in words if word.startswith("BASE_IMAGE=")]  # the Dockerfile's own, pinned


@pytest.mark.parametrize("elsewhere", [("--output", "type=oci,dest=x.tar"), ("--output=type=oci",), ("--push",)])
def test_an_image_that_goes_elsewhere_is_not_loaded_into_the_engine(programs: Path, elsewhere: tuple[str, ...]) -> None:
    done = build(programs, "cpu", *elsewhere)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "--load" not in asked(programs)


def test_a_folder_without_git_gives_no_revision(programs: Path) -> None:
    (programs / "git").unlink(missing_ok=True)
    assert build(programs, "cpu").returncode == 0
    assert {"epoch=0", "REVISION=unknown", "CREATED=unknown"} <= set(asked(programs))


def test_wheels_are_named_by_their_whole_path(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels/a.whl").touch()
    done = build(programs, "cpu", "--wheels", os.path.relpath(tmp_path / "wheels"))
    assert done.returncode == 0, done.stderr
    assert f"wheels={tmp_path}/wheels" in [os.path.normpath(word) for word in asked(programs)]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("rocm", "--torch", "cu129"), "torch cu129 is not for rocm"),
        (("rocm", "--stage", "sage"), "the stage sage is only for NVIDIA"),
        # Else the build would take them from the network, and nobody would be told.
        (("cpu", "--wheels", "/nowhere"), "/nowhere holds no wheels"),
    ],
)
def test_what_cannot_be_is_refused_before_docker_is_asked(
    programs: Path, words: tuple[str, ...], expected: str
) -> None:
    done = build(programs, *words)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and expected in done.stderr and "\nhint: " in done.stderr
    assert not (programs / "asked").exists()


def test_without_docker_there_is_one_line_and_a_hint(programs: Path) -> None:
    (programs / "docker").unlink()
    done = build(programs, "cpu")
    assert (done.returncode, done.stderr.splitlines()[0]) == (1, "error: there is no docker")
