"""metrics.jsonl and evaluations.jsonl: lines in the order of their steps, without gaps, also after a kill; and
memory.jsonl: what each phase took, each time that it was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ltxtrain.events import EvalLoss, MemoryMeasured, StepDone
from ltxtrain.files import write_atomically
from ltxtrain.learn.sigmas import band_of


def told_losses(losses: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """What ``StepDone`` tells of the losses of a step: ``losses`` are data set, sigma and loss of each sample."""
    by_dataset = _means((dataset, loss) for dataset, _, loss in losses)
    return {
        "loss": sum(loss for _, _, loss in losses) / len(losses),
        "sigma_bands": _means((band_of(sigma), loss) for _, sigma, loss in losses),
        "dataset": ", ".join(by_dataset),
        "dataset_losses": by_dataset,
    }


def _means(pairs: Iterable[tuple[str, float]]) -> dict[str, float]:
    """The mean of the values that stand with each name, in the order of the names."""
    gathered: dict[str, list[float]] = {}
    for name, value in pairs:
        gathered.setdefault(name, []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(gathered.items())}


def append_step(path: Path, event: StepDone) -> None:
    line = asdict(event)
    del line["total"]
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def append_evaluations(path: Path, events: Sequence[EvalLoss]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(asdict(event)) + "\n" for event in events))


def append_memory(path: Path, events: Sequence[MemoryMeasured]) -> None:
    with path.open("a", encoding="utf-8") as stream:
        stream.write("".join(json.dumps(asdict(event)) + "\n" for event in events))


def evaluated(path: Path, step: int) -> set[str]:
    """The data sets whose loss at that step is in the file, which holds whole lines alone."""
    if not path.exists():
        return set()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["dataset"] for line in lines if line["step"] == step}


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines after ``step``: they belong to steps that a resumed run does again. A torn last line goes, too."""
    _keep(path, lambda line: line["step"] <= step)


def drop_torn_lines(path: Path) -> None:
    """Drop what a kill has cut off: the next line would be glued to it."""
    _keep(path, lambda line: isinstance(line, dict))


def _keep(path: Path, wanted: Callable[[Any], bool]) -> None:
    """Write the file anew with the lines that are ``wanted``; what is no JSON, or no record, is not."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if wanted(json.loads(line)):
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(path, "".join(kept))
