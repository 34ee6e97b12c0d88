"""Filling the cache with one kind of entries: what is missing is claimed, encoded and written, the rest is kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import torch

from ltxtrain.data.cache_groups import Group
from ltxtrain.data.claims import POLL_SECONDS, Claims
from ltxtrain.data.store import Entry, seems_whole, verified
from ltxtrain.data.writer import Encoded, Writer
from ltxtrain.errors import OutOfMemoryError
from ltxtrain.events import Event, Notice, StageProgress

Item = TypeVar("Item")
Input = TypeVar("Input")
Tensors = dict[str, torch.Tensor]


@dataclass
class Batches:
    """Encodes groups whole, or in halves where one does not fit memory; what fits is remembered for its ``shape``."""

    fits: dict[str, int] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def run(
        self, shape: str, inputs: Sequence[Input], encode: Callable[[Sequence[Input]], Sequence[Tensors]]
    ) -> list[Tensors]:
        """Raises ``OutOfMemoryError`` when even one does not fit."""
        done: list[Tensors] = []
        while len(done) < len(inputs):
            part = inputs[len(done) : len(done) + self.fits.get(shape, len(inputs))]
            try:
                done += encode(part)
                continue
            except OutOfMemoryError:
                if len(part) == 1:
                    raise
            # Out of the except block, so that what the failed attempt holds is gone before the next one.
            self.fits[shape] = (len(part) + 1) // 2
            self.told.append(
                f"{len(part)} x {shape} do not fit memory at once: from here on {self.fits[shape]} at a time"
            )
        return done


class Encode(Protocol[Item]):
    """Groups as they are claimed to the tensors of those of their members that could be encoded, by entry."""

    def __call__(self, groups: Iterator[Group[Item]], /) -> Iterator[tuple[Group[Item], Mapping[Entry, Tensors]]]: ...


@dataclass(frozen=True)
class Task(Generic[Item]):
    """What to fill and how. ``named`` is how messages call an item; ``told`` collects what the encoder has to say.

    Entries whose keys are in ``scanned`` are looked at whole, whenever they are looked at.
    """

    stage: str
    groups: Sequence[Group[Item]]
    missing: set[str]
    encode: Encode[Item]
    named: Callable[[Item], str]
    told: list[str]
    scanned: Set[str] = frozenset()


def missing_keys(entries: Iterable[Entry], scanned: Set[str]) -> set[str]:
    """Keys of entries that are absent or plainly damaged; those that are ``scanned`` are read whole."""
    return {entry.key for entry in entries if not _is_there(entry, whole=entry.key in scanned)}


def _is_there(entry: Entry, *, whole: bool = False) -> bool:
    return verified(entry.path, entry.key) is not None if whole else seems_whole(entry)


def fill(
    task: Task[Item], claims: Claims, writer: Writer, check_stop: Callable[[], None]
) -> Generator[Event, None, int]:
    """Fill until nothing of ``task.missing`` is missing, and return how many entries were encoded here.

    A group that another process holds is left to it, and looked at again at the end.
    """
    todo = [group for group in task.groups if any(entry.key in task.missing for entry in group.entries)]
    total = sum(len(group.entries) for group in task.groups)
    encoded, left = 0, len(task.missing)
    waited = False
    while todo:
        elsewhere: list[Group[Item]] = []
        arrived: list[str] = []
        for group, made in task.encode(_claimed(todo, task, claims, elsewhere, arrived)):
            new = [(item, entry) for item, entry in group if entry.key in task.missing]
            kept = [(item, entry) for item, entry in new if entry in made]
            for item, entry in kept:  # a claim is let go when its entry is written
                writer.put(Encoded(entry, dict(made[entry]), task.named(item), entry.key))
            written = {entry.key for _, entry in kept}
            claims.release(*(key for key in group.claims if key not in written))
            encoded, left = encoded + len(kept), left - len(new)
            yield from (Notice(sentence, "warning") for sentence in _taken(task.told) + _taken(claims.told))
            yield StageProgress(task.stage, total - left, task.named(group.items[-1]))
            check_stop()
        left -= len(arrived)
        if elsewhere:
            writer.flush()  # what we hold, others may wait for
            if not waited:
                yield Notice(
                    f"{task.stage}: another process is encoding {len(elsewhere)} of the groups; waiting for it"
                )
                waited = True
            check_stop()
            time.sleep(POLL_SECONDS)
            if arrived:
                yield StageProgress(task.stage, total - left)
        todo = elsewhere
    writer.flush()
    return encoded


def _taken(told: list[str]) -> list[str]:
    sentences = list(told)
    told.clear()
    return sentences


def _claimed(
    groups: Sequence[Group[Item]], task: Task[Item], claims: Claims, elsewhere: list[Group[Item]], arrived: list[str]
) -> Iterator[Group[Item]]:
    """The groups that are ours to encode. What another process holds goes to ``elsewhere``; what it has written since
    we looked is taken off what is missing and told in ``arrived``."""
    missing = task.missing
    for group in groups:
        if not claims.take(*group.claims):
            elsewhere.append(group)
            continue
        there = [
            entry.key
            for entry in group.entries
            if entry.key in missing and _is_there(entry, whole=entry.key in task.scanned)
        ]
        missing.difference_update(there)
        arrived += there
        if any(entry.key in missing for entry in group.entries):
            yield group
        else:
            claims.release(*group.claims)


def regrouped(
    groups: Iterator[Group[Item]], stream: Callable[[Iterator[Item]], Iterator[tuple[Item, Input]]]
) -> Iterator[tuple[Group[Item], list[Input]]]:
    """Send the members of ``groups`` one by one through ``stream``, which may run ahead, and collect what comes."""
    under_way: deque[Group[Item]] = deque()

    def members() -> Iterator[Item]:
        for group in groups:
            under_way.append(group)
            yield from group.items

    collected: list[Input] = []
    for _, result in stream(members()):
        collected.append(result)
        if len(collected) == len(under_way[0].items):
            yield under_way.popleft(), collected
            collected = []
