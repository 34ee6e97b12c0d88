"""Buckets and their batches; and the minimum-size rule: a bucket must hold enough uses for one optimiser step.

Buckets belong to one data set each: one data set supplies a whole batch, as documented.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from ltxtrain.errors import DataError
from ltxtrain.plan.records import Bucket, BucketPlan, Dropped, Sample, clip_name
from ltxtrain.units import counted

if TYPE_CHECKING:
    from ltxtrain.config import Dataset
    from ltxtrain.config.data import DataConfig

SmallBuckets = Literal["drop", "refuse", "pad", "keep"]
LISTED = 20  # buckets that are named in one error

Key = tuple[str, Bucket]  # of one bucket: its data set, and its size


@dataclass(frozen=True)
class FillRule:
    """How clips make up batches; the sizes hold for sets that are held out, too.

    ``batch_sizes`` are those of data sets that have one of their own; others take ``batch_tokens`` latent tokens
    of clips to a batch where that is not 0, else ``batch_size`` clips. One step draws ``accumulation * processes``
    batches; ``processes`` is 1 until training on several devices is built.

    ``small`` is what happens to a bucket with fewer uses than one step draws: ``drop`` leaves its clips out,
    ``refuse`` raises ``DataError``, ``keep`` makes short batches of it. ``pad`` raises ``repeats`` to what would do,
    for data sets that give none, and refuses for the others.
    """

    batch_size: int = 1
    accumulation: int = 1
    processes: int = 1
    small: SmallBuckets = "keep"
    batch_tokens: int = 0
    batch_sizes: Mapping[str, int] = field(default_factory=dict)

    def batch_size_of(self, key: Key) -> int:
        dataset, bucket = key
        own = self.batch_sizes.get(dataset)
        if own is not None or not self.batch_tokens:
            return own or self.batch_size
        return max(1, self.batch_tokens // bucket.tokens)

    def need_of(self, key: Key) -> int:
        """Uses that the bucket must have. A budget of tokens says how many clips fit, not how many there must be."""
        if self.batch_tokens and key[0] not in self.batch_sizes:
            return 1
        return self.batch_size_of(key) * self.accumulation * self.processes


def sizes_of(data: DataConfig, datasets: Sequence[Dataset]) -> FillRule:
    """The sizes of batches that the configuration and its data sets ask for."""
    return FillRule(
        batch_size=data.train_batch_size,
        batch_tokens=data.train_batch_tokens,
        batch_sizes={dataset.id: dataset.batch_size for dataset in datasets if dataset.batch_size is not None},
    )


def largest_batches(samples: Sequence[Sample], rule: FillRule) -> dict[Bucket, int]:
    """The most clips that a batch of each bucket holds when nothing is left out, whatever data set supplies it."""
    largest: dict[Bucket, int] = {}
    for key, count in Counter((sample.dataset, sample.bucket) for sample in samples).items():
        largest[key[1]] = max(largest.get(key[1], 1), min(count, rule.batch_size_of(key)))
    return largest


@dataclass(frozen=True)
class Filled:
    """``padded`` are buckets whose ``repeats`` were raised, ``short`` those that are kept although one step draws more
    clips than they have."""

    samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    buckets: tuple[BucketPlan, ...]
    padded: tuple[BucketPlan, ...] = ()
    short: tuple[BucketPlan, ...] = ()


def fill_buckets(samples: Sequence[Sample], rule: FillRule) -> Filled:
    """Sort samples into buckets and apply the rule. The result is the same for any order of ``samples``."""
    grouped: dict[Key, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault((sample.dataset, sample.bucket), []).append(sample)
    small = sorted(key for key, group in grouped.items() if uses_of(group) < rule.need_of(key))
    refused = [key for key in small if rule.small == "refuse" or (rule.small == "pad" and _repeated(grouped[key]))]
    if refused:
        raise _too_small([_shortage(key, grouped[key], rule) for key in refused])
    dropped: list[Dropped] = []
    for key in small:
        if rule.small == "drop":
            dropped += _dropped(key, grouped.pop(key), rule)
        elif rule.small == "pad":
            repeats = repeats_needed(grouped[key], rule.need_of(key))
            grouped[key] = [replace(sample, repeats=repeats) for sample in grouped[key]]
    plans = {key: _bucket_plan(key, grouped[key], rule) for key in sorted(grouped)}
    kept = tuple(plans[key] for key in small if key in plans)
    return Filled(
        samples=tuple(sorted((s for group in grouped.values() for s in group), key=lambda sample: sample.id)),
        dropped=tuple(dropped),
        buckets=tuple(plans.values()),
        padded=kept if rule.small == "pad" else (),
        short=kept if rule.small == "keep" else (),
    )


def uses_of(group: Sequence[Sample]) -> int:
    """How often the bucket's samples are used in one epoch."""
    return sum(sample.repeats + 1 for sample in group)


def repeats_needed(group: Sequence[Sample], need: int) -> int:
    """The smallest ``repeats`` for all of these samples that gives ``need`` uses."""
    return math.ceil(need / len(group)) - 1


def _repeated(group: Sequence[Sample]) -> bool:
    return any(sample.repeats for sample in group)


def _bucket_plan(key: Key, group: Sequence[Sample], rule: FillRule) -> BucketPlan:
    uses, batch_size = uses_of(group), rule.batch_size_of(key)
    return BucketPlan(
        bucket=key[1],
        samples=len(group),
        uses=uses,
        batches=math.ceil(uses / batch_size),
        dataset=key[0],
        batch_size=batch_size,
    )


def _dropped(key: Key, group: Sequence[Sample], rule: FillRule) -> list[Dropped]:
    detail = _shortage(key, group, rule)
    return [Dropped(key[0], name, "small-bucket", detail) for name in sorted(Counter(map(clip_name, group)))]


def _shortage(key: Key, group: Sequence[Sample], rule: FillRule) -> str:
    need = rule.need_of(key)
    return (
        f"bucket {key[1].key} of {key[0]} gives {counted(uses_of(group), 'use')} in an epoch, one step needs {need}; "
        f"repeats {repeats_needed(group, need)} would do"
    )


def _too_small(shortages: Sequence[str]) -> DataError:
    more = [f"and {len(shortages) - LISTED} buckets more"] if len(shortages) > LISTED else []
    return DataError(
        "\n".join(["buckets too small for one step:", *shortages[:LISTED], *more]),
        hint="raise repeats, lower train_batch_size, or set allow_dataset_oversubscription (where repeats is not set)",
    )
