"""Run a command and watch it from outside: wall time, peak memory, and when lines arrive in a file that it writes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.005
# On Linux the kernel counts in KiB, on macOS in bytes.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Watched:
    """``arrivals``: seconds from launch at which each line of the watched file was there. ``peak``: bytes of memory."""

    seconds: float
    peak: int
    arrivals: tuple[float, ...]
    output: str


def watch(arguments: Sequence[str], cwd: Path, lines_of: Path | None = None, threads: int = 1) -> Watched:
    """Run ``python ARGUMENTS`` in ``cwd``. Stops the whole measurement when the command fails."""
    log = cwd / "log.txt"
    arrivals: list[float] = []
    with log.open("w") as output, (cwd / "answer.txt").open("w+") as answer:
        began = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, *arguments], cwd=cwd, env=environment(threads), stdout=answer, stderr=output
        )
        while True:
            pid, status, usage = os.wait4(child.pid, os.WNOHANG)
            now = time.perf_counter() - began
            if lines_of is not None and lines_of.exists():
                count = lines_of.read_bytes().count(b"\n")
                arrivals += [now] * (count - len(arrivals))
            if pid:
                break
            time.sleep(POLL_SECONDS)
        child.returncode = os.waitstatus_to_exitcode(status)
        answer.seek(0)
        text = answer.read()
    if child.returncode:
        sys.exit(f"bench: {' '.join(arguments)} left with code {child.returncode}\n{log.read_text()[-4000:]}")
    return Watched(now, usage.ru_maxrss * RSS_UNIT, tuple(arrivals), text)


def environment(threads: int = 1) -> dict[str, str]:
    """This process's environment without our options in it, offline, for a command of this checkout."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("LTXTRAIN_")}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # as on a user's machine: a module is compiled once
    root = str(Path(__file__).resolve().parent.parent)
    return kept | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "PYTHONPATH": root, "NO_COLOR": "1"}
