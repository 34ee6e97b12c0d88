"""``ltxtrain cache`` on two threads against the VAE's encoder alone, in turn: medians, the best of several rounds."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench import job
from bench.process import watch

ROUNDS = 3


def measure(folder: Path) -> list[tuple[str, str, str]]:
    ours, alone = [], []
    for number in range(ROUNDS):
        cache = f"cache-two-{number}"
        watch(["-m", "ltxtrain", "cache", "--config", "job.json", "--cache", cache], folder, threads=2)
        ours.append(clips_per_second(folder / cache))
        seconds = json.loads(watch(["-m", "bench.bare", "encode", "model"], folder, threads=2).output)["seconds"]
        alone.append(1 / median(seconds[1:]))
    return [
        ("caching on two cores", f"{max(ours):.2f} clips/s", ">= 1.6"),
        ("the same / the VAE's encoder alone", f"{max(ours) / max(alone):.2f} ({max(alone):.2f} clips/s)", ""),
    ]


def clips_per_second(cache: Path) -> float:
    """From the times between commits of latents, as the file system tells; loading and the first clip do not count."""
    times = sorted(path.stat().st_mtime for path in (cache / "latents").rglob("*.safetensors"))
    if len(times) != job.CLIPS:
        raise SystemExit(f"bench: {len(times)} latents are in {cache}, {job.CLIPS} were asked for")
    return 1 / median(later - earlier for earlier, later in pairwise(times))
