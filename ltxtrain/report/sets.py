"""The data sets of a run as plan.json has them, and the windows and clips that dataset.jsonl lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.config import Schedule
from ltxtrain.plan.text import active_range
from ltxtrain.report.loose import JsonObject, as_count, as_number, as_object, as_objects, as_text, each_line

MOST = 200  # windows, or clips, that are kept of dataset.jsonl for the page
LEAST = 3  # of each data set, however many there are


@dataclass(frozen=True)
class SetFacts:
    """``regularisation``: the model is held where it was on these clips, so their loss tells nothing of learning."""

    id: str
    kind: str
    role: str
    clips_found: int
    clips_used: int
    windows: int
    uses: int
    weight: float
    active: str
    regularisation: bool

    @property
    def trained(self) -> bool:
        return self.role != "eval"


@dataclass(frozen=True)
class Listed:
    """How many there are, and the first of each data set."""

    count: int
    first: tuple[JsonObject, ...]


@dataclass(frozen=True)
class Listing:
    trained: Listed
    held_out: Listed
    left_out: Listed


def read_sets(plan: JsonObject) -> tuple[SetFacts, ...]:
    return tuple(_read_set(entry) for entry in as_objects(plan.get("datasets")))


def _read_set(entry: JsonObject) -> SetFacts:
    schedule = _read_schedule(as_object(entry.get("schedule")))
    return SetFacts(
        id=as_text(entry.get("id")),
        kind=as_text(entry.get("kind")) or "video",
        role=as_text(entry.get("role")) or "train",
        clips_found=as_count(entry.get("clips_found")),
        clips_used=as_count(entry.get("clips_used")),
        windows=as_count(entry.get("samples")),
        uses=as_count(entry.get("uses")),
        weight=schedule.weight,
        active=active_range(schedule),
        regularisation=entry.get("regularisation") is True,
    )


def _read_schedule(entry: JsonObject) -> Schedule:
    weight = as_number(entry.get("weight"))
    ends = {
        name: None if as_number(entry.get(name)) is None else as_count(entry.get(name))
        for name in ("end_epoch", "end_step", "fade_out_step")
    }
    return Schedule(
        weight=1.0 if weight is None else weight,
        start_epoch=as_count(entry.get("start_epoch")) or 1,
        start_step=as_count(entry.get("start_step")),
        **ends,
    )


def read_listing(path: Path, sets: int) -> Listing:
    """dataset.jsonl, line by line: it may be longer than memory should hold. ``sets``: how many share the room."""
    room = max(LEAST, MOST // max(1, sets))
    counts: Counter[str] = Counter()
    kept: dict[str, dict[str, list[JsonObject]]] = {}
    for line in each_line(path):
        part = _part_of(line)
        counts[part] += 1
        first = kept.setdefault(part, {}).setdefault(as_text(line.get("dataset")), [])
        if len(first) < room:
            first.append(line)
    parts = (Listed(counts[part], _joined(kept.get(part, {}).values())) for part in ("train", "eval", "left out"))
    return Listing(*parts)


def _part_of(line: JsonObject) -> str:
    if line.get("used") is False:
        return "left out"
    return "eval" if line.get("role") == "eval" else "train"


def _joined(lists: Iterable[list[JsonObject]]) -> tuple[JsonObject, ...]:
    return tuple(line for lines in lists for line in lines)
