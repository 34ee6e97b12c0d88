"""The minimum-size rule: a bucket must hold enough uses for one optimiser step, or something is said about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ltxtrain.errors import DataError
from ltxtrain.plan.records import Bucket, BucketPlan, Dropped, Sample
from ltxtrain.plan.select import clip_name

SmallBuckets = Literal["drop", "refuse", "fill"]


@dataclass(frozen=True)
class Filled:
    """``filled`` are the buckets whose batches must draw a clip more than once."""

    samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    buckets: tuple[BucketPlan, ...]
    filled: tuple[BucketPlan, ...]


def fill_buckets(samples: Sequence[Sample], batch_size: int, accumulation: int, policy: SmallBuckets) -> Filled:
    """Sort samples into buckets and apply the rule: each needs ``batch_size * accumulation`` uses in an epoch.

    ``drop`` leaves the clips of a smaller bucket out, ``refuse`` raises ``DataError`` with the repeats that would do,
    ``fill`` keeps them: a batch is then filled up by drawing clips of the bucket again.
    """
    need = batch_size * accumulation
    grouped = _grouped(samples)
    small = {bucket for bucket, group in grouped.items() if uses_of(group) < need}
    if small and policy == "refuse":
        raise DataError(
            "buckets too small for one step:\n"
            + "\n".join(_shortage(bucket, grouped[bucket], need) for bucket in sorted(small)),
            hint="raise repeats, lower train_batch_size, or set allow_dataset_oversubscription",
        )
    dropped: list[Dropped] = []
    if policy == "drop":
        for bucket in sorted(small):
            group = grouped.pop(bucket)
            detail = _shortage(bucket, group, need)
            dropped += [Dropped(dataset, name, "small-bucket", detail) for dataset, name in _clips(group)]
    plans = {bucket: _bucket_plan(bucket, group, batch_size) for bucket, group in grouped.items()}
    return Filled(
        samples=tuple(sorted((s for group in grouped.values() for s in group), key=lambda sample: sample.id)),
        dropped=tuple(dropped),
        buckets=tuple(plans[bucket] for bucket in sorted(plans)),
        filled=tuple(plans[bucket] for bucket in sorted(small & plans.keys())),
    )


def uses_of(group: Sequence[Sample]) -> int:
    """How often the bucket's samples are used in one epoch."""
    return sum(sample.repeats + 1 for sample in group)


def repeats_needed(group: Sequence[Sample], need: int) -> int:
    """The smallest ``repeats`` for all of these samples that gives ``need`` uses."""
    return math.ceil(need / len(group)) - 1


def _grouped(samples: Sequence[Sample]) -> dict[Bucket, list[Sample]]:
    grouped: dict[Bucket, list[Sample]] = {}
    for sample in samples:
        grouped.setdefault(sample.bucket, []).append(sample)
    return grouped


def _bucket_plan(bucket: Bucket, group: Sequence[Sample], batch_size: int) -> BucketPlan:
    uses = uses_of(group)
    return BucketPlan(bucket, len(group), uses, math.ceil(uses / batch_size))


def _shortage(bucket: Bucket, group: Sequence[Sample], need: int) -> str:
    return (
        f"bucket {bucket.key} gives {uses_of(group)} uses in an epoch, one step needs {need}; "
        f"repeats {repeats_needed(group, need)} would do"
    )


def _clips(group: Sequence[Sample]) -> list[tuple[str, str]]:
    return sorted({(sample.dataset, clip_name(sample)) for sample in group})
