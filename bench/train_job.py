"""ltxtrain's own command against the bare loop, on the job of ``bench.job``: ours, bare, ours, bare, then once more
ours with warm caches, then caching alone on two threads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import job
from bench.process import Watched, watch

# The first steps of a process pay for allocations and lazy imports, in both loops alike.
WARM_UP = 3
ROUNDS = 2

CONFIG = {
    "pretrained_model_name_or_path": "model",
    "instance_data_dir": "clips",
    "num_frames": job.FRAMES,
    "framerate": job.FPS,
    "resolution": (job.HEIGHT * job.WIDTH) ** 0.5,
    "resolution_type": "pixel_area",
    "train_batch_size": 1,
    "lora_rank": job.RANK,
    "learning_rate": job.LEARNING_RATE,
    "lr_scheduler": "constant",
    "mixed_precision": "no",
    "vae_dtype": "fp32",
    "gradient_checkpointing": False,
    "max_train_steps": job.STEPS,
    "checkpoint_step_interval": job.STEPS,
    "validation_disable": True,
    "seed": 1,
}


@dataclass(frozen=True)
class Ours:
    watched: Watched
    seconds: tuple[float, ...]

    @property
    def first_step(self) -> float:
        return self.watched.arrivals[0]

    @property
    def between_steps(self) -> float:
        """Seconds from step to step as seen from outside: everything that the loop does, averaged."""
        arrivals = self.watched.arrivals
        return (arrivals[-1] - arrivals[WARM_UP]) / (len(arrivals) - 1 - WARM_UP)


def measure(folder: Path, vae: str) -> list[tuple[str, str, str]]:
    folder.mkdir()
    print(watch(["-m", "bench.job", ".", vae], folder).output, end="")
    (folder / "job.json").write_text(json.dumps(CONFIG, indent=2))
    ours, bare = [], []
    for number in range(ROUNDS):
        ours.append(run_ours(folder, f"cold{number}", cache=f"cache{number}"))
        bare.append(watch(["-m", "bench.bare", "train", "model"], folder))
    warm = run_ours(folder, "warm", cache="cache0")
    return [
        *step_rows(ours, bare),
        *memory_rows(ours, bare, warm),
        ("launch to end of first step, cold caches", f"{median(run.first_step for run in ours):.1f} s", "<= 18 s"),
        ("the same, warm caches", f"{warm.first_step:.1f} s", ""),
        *caching_rows(folder),
    ]


def step_rows(ours: list[Ours], bare: list[Watched]) -> list[tuple[str, str, str]]:
    step = median(median(run.seconds[WARM_UP:]) for run in ours)
    between = median(run.between_steps for run in ours)
    base = median(median(json.loads(run.output)["seconds"][WARM_UP:]) for run in bare)
    return [
        ("step time / bare loop", f"{step / base:.3f} ({step * 1000:.0f} ms / {base * 1000:.0f} ms)", "<= 1.05"),
        ("the same from step to step, seen from outside", f"{between / base:.3f} ({between * 1000:.0f} ms)", ""),
    ]


def memory_rows(ours: list[Ours], bare: list[Watched], warm: Ours) -> list[tuple[str, str, str]]:
    base = median(run.peak for run in bare)
    cold = median(run.watched.peak for run in ours)
    return [
        ("peak memory of the whole run / bare loop", f"{cold / base:.2f} ({mib(cold)} / {mib(base)})", "<= 1.10"),
        ("the same, warm caches", f"{warm.watched.peak / base:.2f} ({mib(warm.watched.peak)})", ""),
    ]


def caching_rows(folder: Path) -> list[tuple[str, str, str]]:
    rates, bare = [], []
    for number in range(ROUNDS):
        cache = f"cache-two-{number}"
        watch(["-m", "ltxtrain", "cache", "--config", "job.json", "--cache", cache], folder, threads=2)
        rates.append(clips_per_second(folder / cache))
        bare.append(json.loads(watch(["-m", "bench.bare", "encode", "model"], folder, threads=2).output)["seconds"])
    rate, alone = median(rates), 1 / median(median(seconds) for seconds in bare)
    return [
        ("caching on two cores", f"{rate:.2f} clips/s", ">= 1.6"),
        ("caching / the VAE's encoder alone", f"{rate / alone:.2f} ({alone:.2f} clips/s)", ""),
    ]


def run_ours(folder: Path, name: str, cache: str) -> Ours:
    command = ["-m", "ltxtrain", "train", "--config", "job.json", "--cache", cache, "--run_name", name]
    metrics = folder / "output" / name / "metrics.jsonl"
    watched = watch(command, folder, lines_of=metrics)
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    if len(steps) != job.STEPS or len(watched.arrivals) != job.STEPS:
        raise SystemExit(f"bench: {len(steps)} steps were written, {len(watched.arrivals)} seen, {job.STEPS} asked for")
    return Ours(watched, tuple(step["seconds"] for step in steps))


def clips_per_second(cache: Path) -> float:
    """From when each latent entry was committed, as the file system tells; loading and start are not counted."""
    times = sorted(path.stat().st_mtime for path in (cache / "latents").rglob("*.safetensors"))
    if len(times) != job.CLIPS:
        raise SystemExit(f"bench: {len(times)} latents are in {cache}, {job.CLIPS} were asked for")
    return (len(times) - 1) / (times[-1] - times[0])


def mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
