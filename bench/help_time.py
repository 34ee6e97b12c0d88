"""``ltxtrain --help`` against ``python -c pass``, in turn; the least of several of each."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from bench.process import environment

ROUNDS = 10
BOUND = 12.0


def measure(folder: Path) -> list[tuple[str, str, str]]:
    seconds = min_of_each(folder, {"nothing": ["-c", "pass"], "help": ["-m", "ltxtrain", "--help"]})
    ratio = seconds["help"] / seconds["nothing"]
    numbers = f"{ratio:.1f} ({seconds['help'] * 1000:.0f} ms / {seconds['nothing'] * 1000:.0f} ms)"
    return [("`--help` / `python -c pass`", numbers, f"<= {BOUND:.0f}")]


def min_of_each(folder: Path, commands: dict[str, list[str]]) -> dict[str, float]:
    """Seconds of each command: the least of ``ROUNDS`` taken in turn, after one of each that is not counted."""
    best = dict.fromkeys(commands, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, arguments in commands.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=folder, env=environment(), check=True, capture_output=True)
            if turn:
                best[name] = min(best[name], time.perf_counter() - began)
    return best
