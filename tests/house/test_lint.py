"""`make lint` reads shell scripts and Dockerfiles too: a planted fault in any of their places fails it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
UNQUOTED = "#!/bin/sh\nfor name in a b; do echo $name$1; done\n"


def lint(folder: Path) -> dict[str, str]:
    """Check -> its result, for the checks that this file is about; the others find nothing to read in the folder."""
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    command = [ROOT / "scripts" / "lint.sh", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    results = (line.split() for line in done.stdout.splitlines() if line.startswith(("ok ", "FAILED ")))
    return {words[1].rstrip(":"): words[0] for words in results if words[1].rstrip(":") in ("shell", "dockerfiles")}


def plant(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize(
    "name", ["entrypoint/entrypoint.sh", "scripts/image/engine.sh", "deploy/vast/onstart.sh", ".ci/run"]
)
def test_a_fault_in_a_shell_script_fails(tmp_path: Path, name: str) -> None:
    plant(tmp_path, name, UNQUOTED)
    assert lint(tmp_path) == {"shell": "FAILED"}


@pytest.mark.parametrize("name", ["Dockerfile.cuda", "Dockerfile.rocm", "Dockerfile.cpu"])
def test_a_fault_in_a_dockerfile_fails(tmp_path: Path, name: str) -> None:
    plant(tmp_path, name, "FROM debian:latest\nRUN cd /tmp && echo $HOME\n")
    assert lint(tmp_path) == {"dockerfiles": "FAILED"}


def test_good_ones_pass_and_what_is_not_there_is_passed_over(tmp_path: Path) -> None:
    assert lint(tmp_path) == {}
    plant(tmp_path, "entrypoint/entrypoint.sh", UNQUOTED.replace("$name$1", '"$name$1"'))
    plant(tmp_path, "Dockerfile.cpu", "FROM scratch\nCOPY here /there\n")
    assert lint(tmp_path) == {"shell": "ok", "dockerfiles": "ok"}
