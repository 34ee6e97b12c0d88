"""One data set's batches in each epoch, and when it may be drawn from: what the order of a run is put together of.

Random numbers come from Philox, a counter-based generator whose raw output numpy never changes.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from ltxtrain.config import Schedule
from ltxtrain.facts.digests import sha256_of
from ltxtrain.plan.records import Bucket, DatasetPlan, Sample

if TYPE_CHECKING:
    from ltxtrain.plan.order import OrderRule

Made = TypeVar("Made")

ENDLESS = 1 << 60  # more epochs, and more batches, than any run has
KEPT_EPOCHS = 2  # the one being read and, for what is read ahead, the next


class Deck:
    """The batches of one data set, in each epoch in another order."""

    def __init__(self, dataset: DatasetPlan, groups: Sequence[BucketUses], weight: float, seed: int) -> None:
        self.id = dataset.id
        self.schedule = dataset.schedule
        self.samples = [sample for group in groups for sample in group.samples]
        self.batches = sum(group.batches for group in groups)
        self._groups = groups
        self._weight = weight * self.schedule.weight
        self._seed = seed
        self._orders: dict[int, tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]] = {}
        self._first_uses = list(accumulate((group.uses for group in groups), initial=0))
        self._first_batches = list(accumulate((group.batches for group in groups), initial=0))

    def weights(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The weight of the data set in each of these steps."""
        if self.schedule.fade_out_step is None:
            return np.full(len(steps), self._weight)
        return self._weight * np.maximum(0.0, 1.0 - steps / self.schedule.fade_out_step)

    def batch(self, epoch: int, position: int) -> list[Sample]:
        uses, order = of_epoch(self._orders, epoch, lambda: self._shuffled(epoch))
        start, end = self._bounds(int(order[position]))
        return [self.samples[use] for use in uses[start:end]]

    def _bounds(self, batch: int) -> tuple[int, int]:
        """Where the batch of that number begins and ends among the uses: batches lie in them bucket by bucket."""
        number = bisect.bisect_right(self._first_batches, batch) - 1
        size = self._groups[number].batch_size
        start = self._first_uses[number] + (batch - self._first_batches[number]) * size
        return start, min(start + size, self._first_uses[number + 1])

    def _shuffled(self, epoch: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Places in ``samples`` in the order of their uses, and the numbers of the batches in the order of showing."""
        uses, before = [], 0
        for group in self._groups:
            places = np.arange(before, before + len(group.samples), dtype=np.int32)
            once = np.repeat(places, [sample.repeats + 1 for sample in group.samples])
            uses.append(once[_shuffle(key_of("uses", self._seed, self.id, group.bucket.key, epoch), len(once))])
            before += len(group.samples)
        order = _shuffle(key_of("batches", self._seed, self.id, epoch), self.batches)
        return np.concatenate(uses), order.astype(np.int32)


@dataclass(frozen=True)
class BucketUses:
    """The samples of one bucket of one data set, in the order of their ids. A batch holds ``batch_size`` uses."""

    bucket: Bucket
    samples: tuple[Sample, ...]
    batch_size: int

    @cached_property
    def uses(self) -> int:
        return sum(sample.repeats + 1 for sample in self.samples)

    @property
    def batches(self) -> int:
        return math.ceil(self.uses / self.batch_size)


def decks_of(rule: OrderRule) -> list[Deck]:
    """The data sets that can be drawn from, in the order of their names: how they are listed does not matter."""
    gathered: dict[tuple[str, Bucket], list[Sample]] = {}
    for sample in sorted(rule.samples, key=lambda sample: sample.id):
        gathered.setdefault((sample.dataset, sample.bucket), []).append(sample)
    planned = {(found.dataset, found.bucket): found for found in rule.buckets}
    groups: dict[str, list[BucketUses]] = {}
    for place in sorted(gathered):
        dataset_id, bucket = place
        group = BucketUses(bucket, tuple(gathered[place]), planned[place].batch_size * rule.world)
        groups.setdefault(dataset_id, []).append(group)
    decks = []
    for dataset in sorted(rule.datasets, key=lambda dataset: dataset.id):
        if dataset.id in groups and dataset.schedule.weight > 0:
            found = groups[dataset.id]
            size = 1.0 if rule.sampling == "uniform" else float(sum(group.batches for group in found))
            decks.append(Deck(dataset, found, size, rule.seed))
    return decks


def is_active(schedule: Schedule, epoch: int, step: int) -> bool:
    """Whether a data set is drawn from. ``epoch`` counts from 0, ``step`` from 1."""
    return (
        schedule.weight > 0
        and schedule.start_epoch <= epoch + 1 <= (schedule.end_epoch or ENDLESS)
        and schedule.start_step <= step <= (schedule.end_step or ENDLESS)
        and step < (schedule.fade_out_step or ENDLESS)
    )


def step_changes(schedule: Schedule) -> list[int]:
    """The steps with which a data set begins or ceases to be active."""
    ends = [schedule.end_step + 1] if schedule.end_step else []
    return [schedule.start_step, *ends, *([schedule.fade_out_step] if schedule.fade_out_step else [])]


def epoch_changes(schedule: Schedule) -> list[int]:
    """The same of epochs, counted from 0."""
    return [schedule.start_epoch - 1, *([schedule.end_epoch] if schedule.end_epoch else [])]


def key_of(purpose: str, *parts: object) -> int:
    return int(sha256_of(purpose, *parts)[:32], 16)


def _shuffle(key: int, count: int) -> npt.NDArray[np.int64]:
    """The numbers below ``count`` in a random order."""
    return np.argsort(np.random.Philox(key=key).random_raw(count), kind="stable")


def fractions(key: int, first: int, count: int) -> npt.NDArray[np.float64]:
    """Numbers ``first`` to ``first + count`` of an endless list of numbers from 0 to 1: one of each block of four."""
    raw = np.random.Philox(key=key, counter=first).random_raw(4 * count)[::4]
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def of_epoch(store: dict[int, Made], epoch: int, make: Callable[[], Made]) -> Made:
    """What ``store`` has of ``epoch``; made anew, in place of the oldest, where it has none."""
    if epoch not in store:
        made = make()
        while len(store) >= KEPT_EPOCHS:
            del store[next(iter(store))]
        store[epoch] = made
    return store[epoch]
