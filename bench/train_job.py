"""ltxtrain's own command against the bare loop, three times in turn, then once more ours with warm caches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median

from bench import job
from bench.process import Watched, watch

# The first steps of a process pay for allocations and lazy imports, in both loops alike.
WARM_UP = 3
ROUNDS = 3


@dataclass(frozen=True)
class Ours:
    watched: Watched
    seconds: tuple[float, ...]
    waited: tuple[float, ...]  # for data, in each step

    @property
    def first_step(self) -> float:
        return self.watched.arrivals[0]

    @property
    def between_steps(self) -> float:
        """Seconds from step to step as seen from outside: everything that the loop does, averaged."""
        arrivals = self.watched.arrivals
        return (arrivals[-1] - arrivals[WARM_UP]) / (len(arrivals) - 1 - WARM_UP)


def measure(folder: Path) -> list[tuple[str, str, str]]:
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
    ]


def step_rows(ours: list[Ours], bare: list[Watched]) -> list[tuple[str, str, str]]:
    step = median(median(run.seconds[WARM_UP:]) for run in ours)
    between = median(run.between_steps for run in ours)
    outside = median(run.between_steps / mean(run.seconds[WARM_UP + 1 :]) for run in ours)
    waited = median(sum(run.waited[WARM_UP:]) / sum(run.seconds[WARM_UP:]) for run in ours)
    bare_steps = [json.loads(run.output)["seconds"][WARM_UP:] for run in bare]
    base, base_mean = median(median(steps) for steps in bare_steps), median(mean(steps) for steps in bare_steps)
    return [
        ("step time / bare loop", f"{step / base:.3f} ({step * 1000:.0f} ms / {base * 1000:.0f} ms)", "<= 1.05"),
        (
            "the same, means, ours from line to line of metrics.jsonl",
            f"{between / base_mean:.3f} ({between * 1000:.0f} ms / {base_mean * 1000:.0f} ms)",
            "",
        ),
        ("from line to line / the steps' own `seconds`, means", f"{outside:.3f}", ""),
        ("waited for data / step time", f"{100 * waited:.2f} %", "< 2 %"),
    ]


def memory_rows(ours: list[Ours], bare: list[Watched], warm: Ours) -> list[tuple[str, str, str]]:
    base = median(run.peak for run in bare)
    cold = median(run.watched.peak for run in ours)
    return [
        ("peak memory of the whole run / bare loop", f"{cold / base:.2f} ({mib(cold)} / {mib(base)})", "<= 1.10"),
        ("the same, warm caches", f"{warm.watched.peak / base:.2f} ({mib(warm.watched.peak)})", ""),
    ]


def run_ours(folder: Path, name: str, cache: str) -> Ours:
    command = ["-m", "ltxtrain", "train", "--config", "job.json", "--cache", cache, "--run_name", name]
    metrics = folder / "output" / name / "metrics.jsonl"
    watched = watch(command, folder, lines_of=metrics)
    steps = [json.loads(line) for line in metrics.read_text().splitlines()]
    if len(steps) != job.STEPS or len(watched.arrivals) != job.STEPS:
        raise SystemExit(f"bench: {len(steps)} steps were written, {len(watched.arrivals)} seen, {job.STEPS} asked for")
    return Ours(
        watched,
        seconds=tuple(step["seconds"] for step in steps),
        waited=tuple(step["data_seconds"] for step in steps),
    )


def mib(count: float) -> str:
    return f"{count / 2**20:.0f} MiB"
