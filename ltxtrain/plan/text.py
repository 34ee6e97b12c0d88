"""The plan in plain words, for the screen and for plan.txt."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ltxtrain.facts.reasons import EXPLANATIONS
from ltxtrain.units import format_bytes, format_duration

if TYPE_CHECKING:
    from ltxtrain.facts.machine import Machine
    from ltxtrain.plan.records import Dropped, PhaseMemory, Plan

WIDTH = 100
USED_LISTED = 12  # windows, by name
LISTED = 20  # clips left out for one reason, by name
LABEL = 12


def render_plan(plan: Plan) -> str:
    """At most 100 columns (a longer path stays whole), aligned, no colour. Ends with a newline."""
    blocks = [
        _head(plan),
        _clips(plan),
        _buckets(plan),
        _memory(plan),
        _disk(plan),
        _sentences("Notices", plan.notices),
        _sentences("Warnings", plan.warnings),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def _head(plan: Plan) -> list[str]:
    config = plan.config
    adapter = f"LoRA of rank {config.adapter.lora_rank} on {config.model.pretrained_model_name_or_path}"
    optimizer = f"{config.optimizer.optimizer}, {config.schedule.lr_scheduler}, peak {config.optimizer.learning_rate:g}"
    effective = plan.batch_size * plan.accumulation
    batch = (
        f"{plan.batch_size} x {plan.accumulation} accumulated = {effective}"
        if plan.accumulation > 1
        else f"{effective}"
    )
    return [
        f"Plan for run {plan.run_name}",
        *_field("train", adapter),
        *_field("steps", f"{plan.steps} ({plan.steps_per_epoch} in an epoch, {plan.epochs:.1f} epochs), batch {batch}"),
        *_field("optimiser", optimizer),
        *_field("videos", _videos(plan)),
        *_field("machine", _machine(plan.machine)),
        *_field("output", str(plan.run_dir)),
        *_field("cache", str(plan.cache_dir)),
    ]


def _videos(plan: Plan) -> str:
    """What is rendered, and when: ``2 of 768x512, 121 frames, before the first step, every 100 steps, at the end``."""
    section = plan.config.validation
    if not plan.videos:
        return "none"
    sizes = Counter(f"{video.width}x{video.height}, {video.frames} frames" for video in plan.videos)
    when = [] if section.disable_benchmark and not section.validation_on_startup else ["before the first step"]
    when += [f"every {section.validation_step_interval} steps"] if section.validation_step_interval else []
    return "; ".join(f"{count} of {size}" for size, count in sizes.items()) + ": " + ", ".join([*when, "at the end"])


def _machine(machine: Machine) -> str:
    host = f"{machine.cpu}, {machine.cores} cores, {format_bytes(machine.memory_bytes)}"
    if not machine.gpus:
        return f"no GPU found: {host}"
    counts = Counter((gpu.name, gpu.memory_bytes) for gpu in machine.gpus)
    gpus = ", ".join(f"{count} x {name} ({format_bytes(memory)})" for (name, memory), count in counts.items())
    return f"{gpus}; {host}"


def _clips(plan: Plan) -> list[str]:
    seconds = sum(sample.bucket.frames / sample.fps for sample in plan.samples)
    origin = " (made for this run)" if plan.made_clips else ""
    windows = f", {len(plan.samples)} windows" if len(plan.samples) != plan.clips_used else ""
    lines = [
        f"Clips{origin}: {plan.clips_found} found, {plan.clips_used} used{windows}, {len(plan.dropped)} left out; "
        f"{format_duration(seconds)} of video"
    ]
    lines += _used(plan)
    by_reason: dict[str, list[Dropped]] = {}
    for entry in plan.dropped:
        by_reason.setdefault(entry.reason, []).append(entry)
    for reason, entries in sorted(by_reason.items()):
        lines.append(f"  left out as {reason} ({dict(EXPLANATIONS).get(reason, '')}): {len(entries)}")  # type: ignore[call-overload]
        listed = entries[:LISTED]
        width = max(len(entry.path) for entry in listed)
        lines += [line for entry in listed for line in _entry(entry.path, entry.detail, width)]
        if len(entries) > LISTED:
            lines.append(f"    and {len(entries) - LISTED} more, which ltxtrain plan --json and dataset.jsonl list")
    return lines


def _used(plan: Plan) -> list[str]:
    """Each window: its clip, the seconds of it that are used, its size and frames."""
    rows = []
    for sample in plan.samples[:USED_LISTED]:
        end = sample.start + sample.bucket.frames / sample.fps
        name = sample.id.removeprefix(f"{sample.dataset}/").removesuffix("#0")
        rows.append([name, f"{sample.start:.1f} to {end:.1f} s", sample.bucket.key])
    more = len(plan.samples) - len(rows)
    return _table(rows, indent=2) + ([f"  and {more} more, in dataset.jsonl and ltxtrain plan --json"] if more else [])


def _buckets(plan: Plan) -> list[str]:
    rows = [["size", "frames", "samples", "uses", "batches", "tokens"]]
    rows += [
        [
            f"{entry.bucket.width}x{entry.bucket.height}",
            str(entry.bucket.frames),
            str(entry.samples),
            str(entry.uses),
            str(entry.batches),
            str(entry.bucket.tokens),
        ]
        for entry in plan.buckets
    ]
    return ["Buckets (uses and batches in one epoch)", *_table(rows, indent=2, right=range(1, 6))]


def _memory(plan: Plan) -> list[str]:
    if not plan.memory:
        return []
    lines = ["Memory, estimated peak of each phase"]
    for phase in plan.memory:
        lines.append(
            f"  {phase.phase} on {phase.device}: {format_bytes(phase.total)}{_of_available(plan.machine, phase)}"
        )
        rows = [[name, format_bytes(size)] for name, size in (*phase.lines, ("margin", phase.margin))]
        lines += _table(rows, indent=4, right=(1,))
    return lines


def _of_available(machine: Machine, phase: PhaseMemory) -> str:
    if phase.device in ("cpu", "main memory") or not machine.gpus:
        available = machine.memory_bytes
    else:
        available = min(gpu.memory_bytes for gpu in machine.gpus)
    return f" of {format_bytes(available)}" if available else ""


def _disk(plan: Plan) -> list[str]:
    if not plan.disk:
        return []
    total = sum(size for _, size in plan.disk)
    rows = [[name, format_bytes(size)] for name, size in plan.disk]
    return [f"Disk, estimated: {format_bytes(total)}", *_table(rows, indent=2, right=(1,))]


def _sentences(title: str, sentences: Sequence[str]) -> list[str]:
    if not sentences:
        return []
    wrapped = (textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ") for text in sentences)
    return [title, *(line for lines in wrapped for line in lines)]


def _field(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"  {label:<{LABEL - 2}}", subsequent_indent=" " * LABEL, break_long_words=False
    ) or [f"  {label}"]


def _table(rows: Sequence[Sequence[str]], indent: int, right: Iterable[int] = ()) -> list[str]:
    """Columns padded to their widest cell, two spaces between; ``right`` are the columns that are set to the right."""
    numbers = set(right)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        pairs = enumerate(zip(row, widths, strict=True))
        cells = [cell.rjust(width) if column in numbers else cell.ljust(width) for column, (cell, width) in pairs]
        lines.append((" " * indent + "  ".join(cells)).rstrip())
    return lines


def _entry(name: str, text: str, width: int) -> list[str]:
    """A name and a sentence beside it, or below it where the name is too long."""
    before = " " * 4 + name.ljust(width) + "  "
    if len(before) <= WIDTH // 2:
        return textwrap.wrap(text, WIDTH, initial_indent=before, subsequent_indent=" " * len(before))
    named = textwrap.wrap(name, WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
    return named + textwrap.wrap(text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
