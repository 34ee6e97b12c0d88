"""``ltxtrain --help`` against ``python -c pass``, in turn; the least of several of each."""

from __future__ import annotations

from pathlib import Path

from bench.process import watch

ROUNDS = 7
BOUND = 12.0


def measure(folder: Path) -> list[tuple[str, str, str]]:
    folder.mkdir()
    nothing, asked = [], []
    for _ in range(ROUNDS):
        nothing.append(watch(["-c", "pass"], folder).seconds)
        asked.append(watch(["-m", "ltxtrain", "--help"], folder).seconds)
    ratio = min(asked) / min(nothing)
    numbers = f"{ratio:.1f} ({min(asked) * 1000:.0f} ms / {min(nothing) * 1000:.0f} ms)"
    return [("`--help` / `python -c pass`", numbers, f"<= {BOUND:.0f}")]
