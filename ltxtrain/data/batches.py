"""Which samples make up each batch: a pure function of (seed, position), so that a run can start at any step.

An epoch shows every sample ``repeats + 1`` times. Within a bucket the uses are shuffled and cut into batches; a short
last batch is filled from the same bucket's beginning. Then the batches of all buckets are shuffled. Nothing is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ltxtrain.facts.digests import sha256_of
from ltxtrain.plan.records import Bucket, Sample


@dataclass(frozen=True)
class Batch:
    """``index`` counts batches since the run's start; all samples share one bucket."""

    index: int
    epoch: int
    samples: tuple[Sample, ...]

    @property
    def names(self) -> str:
        """The samples' ids, each once, for a message."""
        return ", ".join(sorted({sample.id for sample in self.samples}))


class BatchOrder:
    """The endless sequence of batches of one run. Holds the current epoch's order, which it can make for any epoch."""

    def __init__(self, samples: Sequence[Sample], batch_size: int, seed: int) -> None:
        self.samples = tuple(samples)
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = 0
        self._batches = epoch_batches(self.samples, batch_size, seed, 0)

    def __getitem__(self, index: int) -> Batch:
        epoch, position = divmod(index, len(self._batches))  # every epoch has as many batches
        if epoch != self._epoch:
            self._epoch, self._batches = epoch, epoch_batches(self.samples, self.batch_size, self.seed, epoch)
        return Batch(index, epoch, self._batches[position])


def epoch_batches(
    samples: tuple[Sample, ...], batch_size: int, seed: int, epoch: int
) -> tuple[tuple[Sample, ...], ...]:
    """All batches of one epoch, in order. Sorting by a digest is a shuffle that needs no random state."""
    uses: dict[Bucket, list[tuple[str, Sample]]] = {}
    for sample in samples:
        for repeat in range(sample.repeats + 1):
            uses.setdefault(sample.bucket, []).append((sha256_of(seed, epoch, sample.id, repeat), sample))
    batches = []
    for shuffled in (sorted(group, key=lambda use: use[0]) for group in uses.values()):
        for start in range(0, len(shuffled), batch_size):
            chosen = [shuffled[(start + offset) % len(shuffled)] for offset in range(batch_size)]
            batches.append((sha256_of("batch", chosen[0][0], start), tuple(sample for _, sample in chosen)))
    return tuple(batch for _, batch in sorted(batches, key=lambda batch: batch[0]))
