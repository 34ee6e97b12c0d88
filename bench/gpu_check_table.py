"""The GPU check's page: targets, speed, and the peaks of each phase beside their estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bench.gpu_check_measure import GIB, Phase, Result
from ltxtrain.events import MAIN_MEMORY
from ltxtrain.units import format_bytes

WITHIN = 0.10


def page(record: dict[str, Any], results: list[Result]) -> str:
    """Markdown for ``record`` (machine and model), and all that was measured there, whenever that was."""
    machine = record["machine"]
    makes = list(dict.fromkeys(result.made for result in results))
    parts = [
        f"# GPU check: {machine['name']}",
        f"{format_bytes(machine['memory_bytes'])}; {machine['detail']}; {machine['cores']} CPU cores. "
        f"Model {record['model']}.",
        "Written by `make gpu-check`. The weights are random: memory and speed are those of the model, losses mean "
        "nothing. Each run is capped to the memory that its preset is for, or where its clips need more by the "
        "estimate, to that of the next larger card.",
        "Measured with:",
        "\n".join(f"{number}. {made or 'not noted'}" for number, made in enumerate(makes, 1)),
        "## Targets",
        table(("target", "measured", ""), target_rows(results)),
        "## Speed",
        table(
            ("stage", "shape", "batch", "cap", "s/step", "samples/s", "TFLOP/s", "MFU", "whole run", "with", "told"),
            (speed_row(result, makes.index(result.made) + 1) for result in results),
        ),
        "Medians of the steps after the first five. MFU counts the arithmetic that the adapter's training needs, "
        "without what is computed twice to save memory.",
        "## Memory",
        "Peaks of what was in use on the device, the driver's context included; of loading, in main memory. Estimates "
        "are those of the plan without the margin that it adds.",
        table(
            ("stage", "shape", "phase", "estimate", "probe", "allocated", "reserved", "device", "estimate / device"),
            (memory_row(result, phase) for result in results for phase in result.phases if phase.device_used),
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def speed_row(result: Result, made: int) -> tuple[str, ...]:
    since = f"tried again: {result.since}" if result.since else ""
    told = [result.told, since, f"without {', '.join(result.set_aside)}" if result.set_aside else ""]
    return (
        result.case,
        result.shape,
        str(result.batch),
        f"{result.memory_gb:g} GB",
        number(result.seconds_per_step, "{:.3f}"),
        number(result.samples_per_second, "{:.2f}"),
        number(result.tflops, "{:.1f}"),
        "-" if result.mfu is None else percent(result.mfu),
        f"{result.wall_seconds:.0f} s",
        str(made),
        "; ".join(part for part in told if part),
    )


def memory_row(result: Result, phase: Phase) -> tuple[str, ...]:
    sizes = (phase.estimate, phase.probe, phase.allocated, phase.reserved, phase.device_used)
    shown = (format_bytes(size) if size else "-" for size in sizes)
    return (result.case, result.shape, phase.phase, *shown, f"{ratio(phase):.2f}")


def ratio(phase: Phase) -> float:
    return phase.estimate / phase.device_used


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def target_rows(results: list[Result]) -> Iterator[tuple[str, str, str]]:
    """What was aimed at, what was found, and whether that is met. What was not run is told so. On a CPU nearly all that
    a small run takes are libraries, so that its estimates say nothing of the ones that are aimed at."""
    found = {(result.case, result.shape): result for result in results}
    low, less = found.get(("low-vram", "480x480x49")), found.get(("low-vram-4gb", "480x480x49"))
    yield target("low-vram trains 480x480x49 in 2.5 GiB on the device", low, training_bytes, 2.5 * GIB, format_bytes)
    yield target("low-vram, the whole pipeline in 6 GB", low, pipeline_bytes, 6 * GIB, format_bytes)
    yield target("low-vram, the whole pipeline in 4 GB, framewise", less, pipeline_bytes, 4 * GIB, format_bytes)
    fast = [found[key] for key in (("bf16-fast", "768x512x49"), ("bf16-fast-compiled", "768x512x49")) if key in found]
    best = max(fast, key=lambda result: result.mfu or 0.0, default=None)
    title = "bf16 without checkpointing at 768x512x49"
    yield target(f"{title}: 40 % MFU", best, lambda result: result.mfu, 0.40, percent, least=True)
    quickest = min(fast, key=lambda result: result.seconds_per_step or float("inf"), default=None)
    yield target(f"{title}: 60 ms a step", quickest, lambda result: result.seconds_per_step, 0.060, "{:.3f} s".format)
    measured = [phase for result in results for phase in result.phases if phase.device_used]
    ratios = [ratio(phase) for phase in measured if phase.device not in ("cpu", MAIN_MEMORY)]
    if ratios:
        met = all(abs(value - 1) <= WITHIN for value in ratios)
        yield (
            "estimates within 10 % of the peaks",
            f"{min(ratios):.2f} to {max(ratios):.2f}",
            "met" if met else "missed",
        )
    else:
        yield ("estimates within 10 % of the peaks", "-", "not measured")


def target(
    title: str,
    result: Result | None,
    value_of: Callable[[Result], float | None],
    limit: float,
    form: Callable[[float], str],
    *,
    least: bool = False,
) -> tuple[str, str, str]:
    value = value_of(result) if result else None
    if not value:
        return title, "-", "not measured"
    met = value >= limit if least else value <= limit
    return title, form(value), "met" if met else "missed"


def training_bytes(result: Result) -> float | None:
    return max((phase.device_used for phase in result.phases if phase.phase == "training"), default=None)


def pipeline_bytes(result: Result) -> float | None:
    """The highest of all phases on the accelerator, of a run that came to its end with each of them measured."""
    phases = [phase for phase in result.phases if phase.device != MAIN_MEMORY]
    if result.told or not phases or not all(phase.device_used for phase in phases):
        return None
    return max(phase.device_used for phase in phases)
