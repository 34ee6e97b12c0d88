"""``ltxtrain cache`` on two threads against the VAE's encoder alone, in turn, for each VAE: medians of the rounds."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean, median

from bench import job
from bench.process import watch

ROUNDS = 3
THREADS = 2
# Set for the lighter VAE: on two cores, the encoder of 0.9.5 alone is slower than this.
AIMS = {"0.9.1": ">= 1.6", "0.9.5": ""}


def measure(folder: Path) -> list[tuple[str, str, str]]:
    return [row for release in job.VAES for row in measure_vae(folder, release)]


def measure_vae(folder: Path, release: str) -> list[tuple[str, str, str]]:
    vae, ours, alone = f"vae-{release}", [], []
    for number in range(ROUNDS):
        cache = f"cache-{vae}-{number}"
        command = ["-m", "ltxtrain", "cache", "--config", "job.json", "--cache", cache]
        # An entry is committed as soon as it is encoded, so that commits tell when clips were done.
        alike = ["--write-batch-size", "1", "--torch-num-threads", str(THREADS)]
        watch([*command, *alike, "--pretrained_vae_model_name_or_path", vae], folder, threads=THREADS)
        ours.append(clips_per_second(folder / cache))
        told = json.loads(watch(["-m", "bench.bare", "encode", vae], folder, threads=THREADS).output)
        if told["threads"] != THREADS:
            raise SystemExit(f"bench: the encoder alone ran on {told['threads']} threads, {THREADS} were asked for")
        alone.append(1 / mean(told["seconds"][1:]))
    ratio = median(ours) / median(alone)
    return [
        (f"caching on two threads, VAE of {release}", with_range(ours), AIMS[release]),
        ("the same / that VAE's encoder alone", f"{ratio:.2f} ({with_range(alone)})", ""),
    ]


def with_range(rates: list[float]) -> str:
    """The median, and how far the rounds lie apart: two threads suffer much from any third program."""
    return f"{median(rates):.2f} clips/s, rounds {min(rates):.2f} to {max(rates):.2f}"


def clips_per_second(cache: Path) -> float:
    """From the first commit of latents to the last, by the file system; loading and the first clip do not count."""
    times = sorted(path.stat().st_mtime for path in (cache / "latents").rglob("*.safetensors"))
    if len(times) != job.CLIPS:
        raise SystemExit(f"bench: {len(times)} latents are in {cache}, {job.CLIPS} were asked for")
    return (len(times) - 1) / (times[-1] - times[0])
