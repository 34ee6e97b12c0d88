"""Which samples make up each batch: a pure function of the rule and the batch's number, so a run can start anywhere.

In an epoch every data set shows each sample ``repeats + 1`` times: within a bucket the uses are shuffled and cut into
batches, the last of which may be short, and then the batches of all buckets are shuffled. Which data set supplies the
next batch is drawn by weight; one that is through with its batches is left out until the epoch ends for all. Nothing is
stored but the tables of the epochs that are being read, which can be made for any epoch at once.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from ltxtrain.errors import ConfigError, Fault
from ltxtrain.facts.digests import sha256_of
from ltxtrain.plan.buckets import crop_offset
from ltxtrain.plan.decks import (
    ENDLESS,
    Deck,
    decks_of,
    epoch_changes,
    fractions,
    is_active,
    key_of,
    of_epoch,
    step_changes,
)
from ltxtrain.plan.records import Bucket, BucketPlan, DatasetPlan, Plan, Sample

DRAWN_AT_ONCE = 1 << 14
SCHEDULE_KEYS = "look at start_step, end_step, start_epoch, end_epoch, disable_after_epoch_step and probability"


@dataclass(frozen=True)
class Batch:
    """``index`` counts batches since the run's start, ``epoch`` from 0; all samples share one data set and bucket."""

    index: int
    epoch: int
    samples: tuple[Sample, ...]
    dataset: str

    @property
    def names(self) -> str:
        """The samples' ids, each once, for a message."""
        return ", ".join(sorted({sample.id for sample in self.samples}))


@dataclass(frozen=True)
class OrderRule:
    """All that the order depends on. ``buckets`` and ``datasets`` are the plan's; ``world`` counts the processes, and
    a batch holds ``batch_size`` samples for each. Training knows one process so far, so no recipe sets it."""

    samples: Sequence[Sample]
    buckets: Sequence[BucketPlan]
    datasets: Sequence[DatasetPlan]
    seed: int
    accumulation: int = 1
    sampling: str = "auto-weighting"
    world: int = 1


class BatchOrder:
    """The endless sequence of batches of one run. Raises ``ConfigError`` where no data set is active any more."""

    def __init__(self, rule: OrderRule) -> None:
        self.rule = rule
        self._decks = decks_of(rule)
        self._redrawn = {found.id for found in rule.datasets if found.cache.redrawn}
        starts = {start for deck in self._decks for start in step_changes(deck.schedule)}
        self._changes = sorted((step - 1) * rule.accumulation for step in starts if step > 1)
        self._gates = sorted({epoch for deck in self._decks for epoch in epoch_changes(deck.schedule) if epoch > 0})
        self._stretches: list[_Stretch] = []
        self._supplies: dict[int, _Supply] = {}

    def __getitem__(self, index: int) -> Batch:
        stretch = self._stretch(lambda last: last.end > index, lambda each: each.first <= index)
        epoch, position = divmod(index - stretch.first, stretch.length)
        first, epoch = index - position, stretch.epoch + epoch
        deck = self._decks[0]
        if len(self._decks) > 1:
            supply = of_epoch(self._supplies, epoch, lambda: self._drawn_supply(epoch, first))
            deck, position = self._decks[supply.deck[position]], int(supply.position[position])
        samples = tuple(self._cut(sample, epoch) for sample in deck.batch(epoch, position))
        return Batch(index, epoch, samples, deck.id)

    def epoch_length(self, epoch: int) -> int:
        """Batches of that epoch; 0 where no data set is active in it."""
        stretch = self._stretch(lambda last: last.next_epoch > epoch, lambda each: each.epoch <= epoch)
        return stretch.length if stretch.epoch <= epoch < stretch.next_epoch else 0

    def batches_of(self, epochs: int) -> int:
        """Batches in the first ``epochs`` epochs."""
        if epochs > 0:
            self._stretch(lambda last: last.next_epoch >= epochs, lambda each: each.epoch < epochs)
        counted = ((each.length, min(each.next_epoch, epochs) - each.epoch) for each in self._stretches)
        return sum(length * count for length, count in counted if count > 0)

    def progress(self, batches: int) -> Fraction:
        """How many epochs that many batches are, exactly."""
        if batches <= 0:
            return Fraction(0)
        stretch = self._stretch(lambda last: last.end >= batches, lambda each: each.first < batches)
        return stretch.epoch + Fraction(batches - stretch.first, stretch.length)

    def suppliers(self, epoch: int) -> set[str]:
        """The data sets that give a batch in that epoch."""
        if not self.epoch_length(epoch) or len(self._decks) == 1:
            return {deck.id for deck in self._decks if self.epoch_length(epoch)}
        first = self.batches_of(epoch)
        supply = of_epoch(self._supplies, epoch, lambda: self._drawn_supply(epoch, first))
        return {self._decks[place].id for place in np.unique(supply.deck)}

    def outdated(self, epoch: int, now: int) -> Iterator[Sample]:
        """The samples of redrawn data sets as cut in ``epoch``, where the epoch ``now`` cuts them elsewhere."""
        shown = self._redrawn & self.suppliers(epoch) if self._redrawn else set()
        for sample in self.rule.samples if shown else ():
            if sample.dataset in shown:
                old, new = self._cut(sample, epoch), self._cut(sample, now)
                if old.crop != new.crop:
                    yield old

    def _cut(self, sample: Sample, epoch: int) -> Sample:
        """The plan's own cut in the first epoch; in a redrawn data set another in each of the later ones."""
        if not epoch or sample.dataset not in self._redrawn:
            return sample
        size = (sample.bucket.width, sample.bucket.height)
        return replace(sample, crop=crop_offset(sample.resize, size, "random", f"{self.rule.seed}:{sample.id}:{epoch}"))

    def _stretch(self, far_enough: Callable[[_Stretch], bool], begun: Callable[[_Stretch], bool]) -> _Stretch:
        """The last stretch that has ``begun``; more are worked out until the last one is ``far_enough``."""
        while not self._stretches or not far_enough(self._stretches[-1]):
            self._stretches.append(self._next_stretch())
        return self._stretches[bisect.bisect_left(self._stretches, True, key=lambda each: not begun(each)) - 1]

    def _next_stretch(self) -> _Stretch:
        """Epochs between two changes of a schedule are alike; one that a change falls into is played through."""
        first = self._stretches[-1].end if self._stretches else 0
        epoch = self._epoch_with_data(self._stretches[-1].next_epoch if self._stretches else 0, first)
        length = sum(deck.batches for deck in self._active(epoch, first))
        change = next((index for index in self._changes if index > first), ENDLESS)
        gate = next((gate for gate in self._gates if gate > epoch), ENDLESS)
        count = min((change - 1 - first) // length, gate - epoch)  # what begins with the next batch prolongs an epoch
        if count:
            return _Stretch(epoch, first, length, count)
        return _Stretch(epoch, first, len(self._drawn_supply(epoch, first).deck), 1)

    def _epoch_with_data(self, epoch: int, first: int) -> int:
        """``epoch``, or the next one in which a data set is active when that one is over before it begins."""
        later = [gate for gate in self._gates if gate > epoch] if epoch else []
        for candidate in (epoch, *later):
            if self._active(candidate, first):
                return candidate
        step = self._step(first)
        when = "at the start" if not first else f"at step {step}, in epoch {epoch + 1}"
        raise ConfigError([Fault("datasets", f"no data set is active {when}", suggestion=SCHEDULE_KEYS)])

    def _active(self, epoch: int, index: int) -> list[Deck]:
        return [deck for deck in self._decks if is_active(deck.schedule, epoch, self._step(index))]

    def _step(self, index: int) -> int:
        return index // self.rule.accumulation + 1

    def _drawn_supply(self, epoch: int, first: int) -> _Supply:
        """Draw, batch for batch, which data set comes next, until all that are active are through."""
        left = [deck.batches for deck in self._decks]
        key, index = key_of("data set", self.rule.seed), first
        drawn: list[npt.NDArray[np.int32]] = []
        while live := [
            place
            for place, deck in enumerate(self._decks)
            if left[place] and is_active(deck.schedule, epoch, self._step(index))
        ]:
            change = next((found for found in self._changes if found > index), ENDLESS)
            count = min(DRAWN_AT_ONCE, change - index, sum(left[place] for place in live))
            steps = np.arange(index, index + count) // self.rule.accumulation + 1
            edges = np.cumsum([self._decks[place].weights(steps) for place in live], axis=0)
            chosen = (fractions(key, index, count) * edges[-1] >= edges[:-1]).sum(axis=0)
            for number, place in enumerate(live):
                mine = np.flatnonzero(chosen == number)
                if len(mine) >= left[place]:  # from here on the draw is among the others
                    chosen = chosen[: mine[left[place] - 1] + 1]
            for number, place in enumerate(live):
                left[place] -= int(np.count_nonzero(chosen == number))
            drawn.append(np.asarray(live, dtype=np.int32)[chosen])
            index += len(chosen)
        deck = np.concatenate(drawn)
        position = np.zeros_like(deck)
        for place in range(len(self._decks)):
            mine = np.flatnonzero(deck == place)
            position[mine] = np.arange(len(mine))
        return _Supply(deck, position)


@dataclass(frozen=True)
class _Stretch:
    """``count`` epochs in a row, from ``epoch``, of ``length`` batches each; ``first`` is the first one's index."""

    epoch: int
    first: int
    length: int
    count: int

    @property
    def end(self) -> int:
        return self.first + self.length * self.count

    @property
    def next_epoch(self) -> int:
        return self.epoch + self.count


@dataclass(frozen=True)
class _Supply:
    """For each batch of an epoch: the deck that supplies it, and the batch's position in that deck's own order."""

    deck: npt.NDArray[np.int32]
    position: npt.NDArray[np.int32]


def share(batch: Batch, rank: int, world: int) -> Batch:
    """The part of a batch that one of ``world`` processes computes. The parts differ by at most one sample, make up
    the whole together, and may be empty. For training on several devices: no recipe calls it before that is built."""
    count = len(batch.samples)
    return replace(batch, samples=batch.samples[rank * count // world : (rank + 1) * count // world])


def eval_batches(
    samples: Sequence[Sample], dataset: str, size_of: Callable[[Bucket], int], count: int
) -> tuple[Batch, ...]:
    """At most ``count`` batches of a data set that is held out, the same in every run, whatever its seed.

    ``size_of`` says how many clips a batch of a bucket holds.
    """
    bins: dict[Bucket, list[Sample]] = {}
    full: list[list[Sample]] = []
    mine = [sample for sample in samples if sample.dataset == dataset]
    for sample in sorted(mine, key=lambda sample: sha256_of("evaluation", sample.id)):
        group = bins.setdefault(sample.bucket, [])
        group.append(sample)
        if len(group) == size_of(sample.bucket):
            full.append(bins.pop(sample.bucket))
    chosen = [*full, *bins.values()][:count]
    return tuple(Batch(index, 0, tuple(group), dataset) for index, group in enumerate(chosen))


def order_of(plan: Plan) -> BatchOrder:
    """The order that the plan means."""
    data, seed = plan.config.data, plan.config.model.seed
    return BatchOrder(
        OrderRule(plan.samples, plan.buckets, plan.datasets, seed, plan.accumulation, data.data_backend_sampling)
    )
