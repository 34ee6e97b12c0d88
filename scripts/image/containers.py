"""The engine at hand, for `make image-test`: its words, the folders that a container is given, and what is told."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

NOBODY = 1234  # a user whom no image knows
Result = TypeVar("Result")


class Wrong(Exception):
    """A check that failed, with what was seen."""


def locked_down() -> list[str]:
    """Nothing of it may be written, nothing gained, nothing reached, and nobody knows its user."""
    user = f"{NOBODY}:{NOBODY}" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"
    words = ["--user", user, "--read-only", "--network", "none", "--cap-drop", "ALL"]
    return [*words, "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"]


def make_volumes(place: Path, owner: int) -> list[str]:
    """The three folders of a run, which belong to ``owner``; to ourselves where we are not root."""
    words = []
    for name, target in (("clips", "/data"), ("cache", "/cache"), ("out", "/output")):
        folder = place / name
        folder.mkdir(parents=True)
        if os.getuid() == 0:
            os.chown(folder, owner, owner)
        words += ["--volume", f"{folder}:{target}"]
    return words


def logs(container: str) -> str:
    done = run_docker("logs", "--tail", "20", container)
    return done.stdout + done.stderr


def docker(*words: str) -> str:
    done = run_docker(*words)
    if done.returncode:
        raise Wrong(f"docker {' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_docker(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)


def must(command: list[str | Path]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")


def expect(true: bool, otherwise: str) -> None:
    if not true:
        raise Wrong(otherwise)


def timed(what: str, work: Callable[[], Result]) -> Result:
    began = time.monotonic()
    result = work()
    report(what, began)
    return result


def report(what: str, began: float) -> None:
    say(what, f"{time.monotonic() - began:.1f} s")


def say(what: str, figure: str) -> None:
    print(f"image-test: {what:<58} {figure}", flush=True)
