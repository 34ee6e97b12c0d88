"""The plan in plain words, for the screen and for plan.txt."""

from __future__ import annotations

import heapq
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ltxtrain.plan.sets import explained
from ltxtrain.units import format_bytes, format_duration

if TYPE_CHECKING:
    from ltxtrain.config import Schedule
    from ltxtrain.facts.machine import Machine
    from ltxtrain.plan.records import Dropped, PhaseMemory, Plan

WIDTH = 100
USED_LISTED = 12  # windows, by name
LISTED = 20  # clips left out, by name
LEAST_LISTED = 3  # of each reason
BUCKETS_LISTED = 20
SETS_LISTED = 30
WHOLE = "ltxtrain plan --json and dataset.jsonl list"
LABEL = 12


def render_plan(plan: Plan) -> str:
    """At most 100 columns (a longer path stays whole), aligned, no colour. Ends with a newline."""
    blocks = [
        _head(plan),
        _clips(plan),
        _datasets(plan),
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
    peak = config.optimizer.peak_rate(config.data.train_batch_size * plan.accumulation)
    optimizer = f"{config.optimizer.optimizer}, {config.schedule.lr_scheduler}, peak {peak:g}"
    batch = _batch(plan)
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


def _batch(plan: Plan) -> str:
    """``4 x 2 accumulated = 8``; where data sets and buckets have batches of their own, ``2 to 6 x 2 accumulated``."""
    sizes = {entry.batch_size for entry in plan.buckets} or {plan.batch_size}
    size = f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
    if plan.accumulation == 1:
        return size
    total = f" = {min(sizes) * plan.accumulation}" if len(sizes) == 1 else ""
    return f"{size} x {plan.accumulation} accumulated{total}"


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
    seconds = sum(sample.bucket.frames / sample.fps for sample in plan.samples if sample.kind == "video")
    origin = " (made for this run)" if plan.made_clips else ""
    count = len(plan.samples) + len(plan.eval_samples)
    windows = f", {count} windows" if count != plan.clips_used else ""
    length = f"; {format_duration(seconds)} of video" if seconds else ""
    counts = f"{plan.clips_found} found, {plan.clips_used} used{windows}, {len(plan.dropped)} left out"
    lines = [f"Clips{origin}: {counts}{length}", *_used(plan)]
    by_reason: dict[str, list[Dropped]] = {}
    for entry in plan.dropped:
        by_reason.setdefault(entry.reason, []).append(entry)
    several = len(plan.datasets) > 1
    for reason, entries in sorted(by_reason.items()):
        lines.append(f"  left out as {reason} ({explained(reason)}): {len(entries)}")
        listed = [
            (f"{entry.dataset}/{entry.path}" if several else entry.path, entry.detail)
            for entry in entries[: max(LEAST_LISTED, LISTED // len(by_reason))]
        ]
        width = max(len(name) for name, _ in listed)
        lines += [line for name, detail in listed for line in _entry(name, detail, width)]
        if len(entries) > len(listed):
            lines.append(f"    and {len(entries) - len(listed)} more, which {WHOLE}")
    return lines


def _used(plan: Plan) -> list[str]:
    """The first windows of each set: the clip, the seconds of it that are used, its size and frames."""
    several = len(plan.datasets) > 1
    each = max(LEAST_LISTED, USED_LISTED // max(1, len(plan.datasets)))
    samples = (*plan.samples, *plan.eval_samples)
    rows = []
    for entry in plan.datasets[:SETS_LISTED]:
        own = (sample for sample in samples if sample.dataset == entry.id)
        for sample in heapq.nsmallest(each, own, key=lambda sample: (sample.path, sample.start)):
            end = sample.start + sample.bucket.frames / sample.fps
            name = sample.id.removesuffix("#0")
            part = "a picture" if sample.kind == "image" else f"{sample.start:.1f} to {end:.1f} s"
            rows.append([name if several else name.removeprefix(f"{sample.dataset}/"), part, sample.bucket.key])
    more = len(samples) - len(rows)
    return _table(rows, indent=2) + ([f"  and {more} more, in dataset.jsonl and ltxtrain plan --json"] if more else [])


def _datasets(plan: Plan) -> list[str]:
    """The data sets, where there are several: what each gives, when, and its share of the batches at the start."""
    if len(plan.datasets) < 2:
        return []
    share = _shares(plan)
    rows = [["set", "kind", "clips", "windows", "uses", "weight", "active", "share"]]
    for entry in plan.datasets[:SETS_LISTED]:
        rows.append(
            [
                entry.id,
                entry.kind,
                f"{entry.clips_used} of {entry.clips_found}",
                str(entry.samples),
                str(entry.uses) if entry.role == "train" else "-",
                f"{entry.schedule.weight:g}" if entry.role == "train" else "-",
                active_range(entry.schedule) if entry.role == "train" else "measured, not trained on",
                f"{100 * share[entry.id]:.0f} %" if entry.id in share else "-",
            ]
        )
    more = len(plan.datasets) - SETS_LISTED
    rest = [f"  and {more} more, which {WHOLE}"] if more > 0 else []
    title = "Data sets (uses in one epoch; share of the batches while all are active and have some left)"
    return [title, *_table(rows, indent=2, right=(2, 3, 4, 5, 7)), *rest]


def active_range(schedule: Schedule) -> str:
    """``always``, or ``epoch 2 on, step 100 to 500, fades out to step 500``."""
    parts = []
    if schedule.start_epoch > 1 or schedule.end_epoch is not None:
        parts.append(_range("epoch", schedule.start_epoch, schedule.end_epoch))
    if schedule.start_step > 1 or schedule.end_step is not None:
        parts.append(_range("step", max(1, schedule.start_step), schedule.end_step))
    if schedule.fade_out_step is not None:
        parts.append(f"fades out to step {schedule.fade_out_step}")
    return ", ".join(parts) or "always"


def _range(unit: str, start: int, end: int | None) -> str:
    return f"{unit} {start} on" if end is None else f"{unit} {start} to {end}"


def _shares(plan: Plan) -> dict[str, float]:
    """How often each train set supplies the batch, by the rule that draws it."""
    by_size = plan.config.data.data_backend_sampling == "auto-weighting"
    batches: Counter[str] = Counter()
    for bucket in plan.buckets:
        batches[bucket.dataset] += bucket.batches
    weights = {
        entry.id: entry.schedule.weight * (batches[entry.id] if by_size else 1)
        for entry in plan.datasets
        if entry.role == "train"
    }
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()} if total else {}


def _buckets(plan: Plan) -> list[str]:
    """The buckets with the most samples, where there are many."""
    several = len({entry.dataset for entry in plan.buckets}) > 1
    ranked = sorted(range(len(plan.buckets)), key=lambda place: -plan.buckets[place].samples)
    shown = [plan.buckets[place] for place in sorted(ranked[:BUCKETS_LISTED])]
    rows = [[*(["set"] if several else []), "size", "frames", "samples", "uses", "batch", "batches", "tokens"]]
    rows += [
        [
            *([entry.dataset] if several else []),
            f"{entry.bucket.width}x{entry.bucket.height}",
            str(entry.bucket.frames),
            str(entry.samples),
            str(entry.uses),
            str(entry.batch_size),
            str(entry.batches),
            str(entry.bucket.tokens),
        ]
        for entry in shown
    ]
    first = 2 if several else 1
    lines = ["Buckets (uses and batches in one epoch)", *_table(rows, indent=2, right=range(first, first + 6))]
    if len(shown) < len(plan.buckets):
        left = sum(entry.samples for entry in plan.buckets) - sum(entry.samples for entry in shown)
        lines.append(f"  and {len(plan.buckets) - len(shown)} more with {left} samples, in ltxtrain plan --json")
    return lines


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
    available = phase.available(machine)
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
