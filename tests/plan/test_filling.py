from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config.data import DataConfig
from ltxtrain.errors import DataError
from ltxtrain.plan.filling import (
    FillRule,
    SmallBuckets,
    fill_buckets,
    largest_batches,
    repeats_needed,
    sizes_of,
    uses_of,
)
from ltxtrain.plan.records import Bucket, BucketPlan, Sample
from tests.datasets import PLAIN

WIDE, HIGH = Bucket(64, 32, 9), Bucket(32, 64, 9)


def sample(index: int, bucket: Bucket = WIDE, repeats: int = 0, dataset: str = "d") -> Sample:
    return Sample(
        id=f"{dataset}/clip{index:03d}.mp4#0",
        dataset=dataset,
        path=f"/data/clip{index:03d}.mp4",
        captions=("words",),
        start=0.0,
        fps=25.0,
        bucket=bucket,
        resize=(64, 64),
        crop=(0, 0),
        repeats=repeats,
        i2v=True,
    )


def rule(batch: int, accumulation: int = 1, small: SmallBuckets = "keep", **more: object) -> FillRule:
    return FillRule(batch, accumulation, small=small, **more)  # type: ignore[arg-type]


def test_small_bucket_is_refused_with_the_repeats_that_would_do() -> None:
    samples = [sample(0), sample(1), sample(2, HIGH)]
    with pytest.raises(
        DataError, match=r"32x64@9 of d gives 1 use in an epoch, one step needs 4; repeats 3 would do"
    ) as caught:
        fill_buckets(samples, rule(4, small="refuse"))
    assert "64x32@9" in caught.value.message
    assert caught.value.hint is not None and "repeats" in caught.value.hint


def test_the_documented_rule_counts_processes_and_accumulation() -> None:
    samples = [sample(index) for index in range(7)]
    whole = FillRule(batch_size=2, accumulation=2, processes=2, small="refuse")
    with pytest.raises(DataError, match="7 uses in an epoch, one step needs 8; repeats 1 would do"):
        fill_buckets(samples, whole)
    assert fill_buckets([*samples, sample(7)], whole).dropped == ()


def test_small_bucket_is_dropped_clip_by_clip() -> None:
    filled = fill_buckets([sample(0), sample(1), sample(2, HIGH)], rule(2, small="drop"))
    assert [entry.path for entry in filled.dropped] == ["clip002.mp4"]
    assert filled.dropped[0].reason == "small-bucket"
    assert "repeats 1 would do" in filled.dropped[0].detail
    assert [plan.bucket for plan in filled.buckets] == [WIDE]


def test_small_bucket_that_is_kept_makes_a_short_batch() -> None:
    filled = fill_buckets([sample(0), sample(1), sample(2, HIGH)], rule(2))
    assert filled.dropped == ()
    assert [plan.bucket for plan in filled.short] == [HIGH]
    assert {plan.bucket: (plan.uses, plan.batches) for plan in filled.buckets} == {WIDE: (2, 1), HIGH: (1, 1)}


def test_padding_raises_repeats_of_small_buckets_alone() -> None:
    filled = fill_buckets([sample(0), sample(1), sample(2, HIGH)], rule(2, small="pad"))
    assert [(plan.bucket, plan.uses) for plan in filled.padded] == [(HIGH, 2)]
    assert {entry.bucket: entry.repeats for entry in filled.samples} == {WIDE: 0, HIGH: 1}


def test_padding_refuses_where_repeats_are_given() -> None:
    with pytest.raises(DataError, match="repeats 3 would do"):
        fill_buckets([sample(0, repeats=1)], rule(4, small="pad"))


def test_repeats_count_as_uses_and_accumulation_raises_the_need() -> None:
    samples = [sample(0, repeats=3), sample(1, repeats=3)]
    filled = fill_buckets(samples, rule(4, 2, "refuse"))
    assert filled.buckets == (BucketPlan(WIDE, 2, 8, 2, dataset="d", batch_size=4),)
    with pytest.raises(DataError, match="needs 12"):
        fill_buckets(samples, rule(4, 3, "refuse"))


def test_a_data_set_never_shares_a_bucket_and_may_have_its_own_batch() -> None:
    samples = [sample(0), sample(1), sample(2, dataset="e"), sample(3, dataset="e")]
    filled = fill_buckets(samples, rule(2, batch_sizes={"e": 1}))
    assert [(plan.dataset, plan.batch_size, plan.batches) for plan in filled.buckets] == [("d", 2, 1), ("e", 1, 2)]


def test_a_budget_of_tokens_fills_long_and_short_batches_alike() -> None:
    short, long = Bucket(256, 256, 9), Bucket(256, 256, 57)
    samples = [sample(index, short if index < 9 else long) for index in range(12)]
    filled = fill_buckets(samples, rule(1, 4, "refuse", batch_tokens=1024))
    assert [(plan.bucket, plan.batch_size, plan.batches) for plan in filled.buckets] == [(short, 8, 2), (long, 2, 2)]
    assert all(plan.batch_size * plan.bucket.tokens == 1024 for plan in filled.buckets)
    huge = Bucket(1024, 1024, 121)
    assert fill_buckets([sample(0, huge)], rule(1, batch_tokens=1024)).buckets[0].batch_size == 1
    own = fill_buckets(samples, rule(1, batch_tokens=1024, batch_sizes={"d": 3}))
    assert {plan.batch_size for plan in own.buckets} == {3}


def test_sizes_are_those_of_the_entry_of_the_budget_or_of_all() -> None:
    short, long = Bucket(256, 256, 9), Bucket(256, 256, 57)
    own = [replace(PLAIN, id="own", batch_size=3), replace(PLAIN, id="plain")]
    sizes = sizes_of(DataConfig(train_batch_size=2), own)
    assert [sizes.batch_size_of((name, short)) for name in ("own", "plain")] == [3, 2]
    by_tokens = sizes_of(DataConfig(train_batch_tokens=1024), own)
    assert [by_tokens.batch_size_of(("plain", bucket)) for bucket in (short, long)] == [8, 2]
    samples = [sample(index, short, dataset="plain") for index in range(5)] + [sample(9, short, dataset="own")]
    assert largest_batches([*samples, sample(6, long, dataset="plain")], by_tokens) == {short: 5, long: 1}


@given(
    groups=st.lists(
        st.tuples(
            st.sampled_from([WIDE, HIGH, Bucket(96, 32, 17)]), st.integers(0, 5), st.sampled_from(["d", "e", "f"])
        ),
        min_size=1,
        max_size=30,
    ),
    batch=st.integers(1, 6),
    more=st.tuples(st.integers(1, 4), st.sampled_from([0, 20, 200])),
    small=st.sampled_from(["drop", "keep", "pad"]),
    order=st.randoms(use_true_random=False),
)
def test_each_sample_is_used_in_one_bucket_or_dropped_in_any_order(
    groups: list[tuple[Bucket, int, str]], batch: int, more: tuple[int, int], small: SmallBuckets, order: Random
) -> None:
    padded = small == "pad"
    samples = [
        sample(index, bucket, 0 if padded else repeats, name) for index, (bucket, repeats, name) in enumerate(groups)
    ]
    asked = FillRule(batch, more[0], small=small, batch_tokens=more[1], batch_sizes={"f": 2})
    filled = fill_buckets(samples, asked)
    assert len(filled.samples) + len(filled.dropped) == len(samples)
    assert {entry.id for entry in filled.samples}.isdisjoint(f"{e.dataset}/{e.path}#0" for e in filled.dropped)
    assert sum(plan.samples for plan in filled.buckets) == len(filled.samples)
    assert len({(plan.dataset, plan.bucket) for plan in filled.buckets}) == len(filled.buckets)
    for plan in filled.buckets:
        group = [s for s in filled.samples if (s.dataset, s.bucket) == (plan.dataset, plan.bucket)]
        assert (plan.samples, plan.uses) == (len(group), uses_of(group))
        assert (plan.batches - 1) * plan.batch_size < plan.uses <= plan.batches * plan.batch_size
        assert small == "keep" or plan.uses >= asked.need_of((plan.dataset, plan.bucket))
    shuffled = samples[:]
    order.shuffle(shuffled)
    assert fill_buckets(shuffled, asked) == filled
    again = fill_buckets(
        filled.samples,
        FillRule(batch, more[0], small="keep" if padded else small, batch_tokens=more[1], batch_sizes={"f": 2}),
    )
    assert (again.samples, again.buckets, again.dropped) == (filled.samples, filled.buckets, ())


@given(count=st.integers(1, 40), need=st.integers(1, 200))
def test_repeats_that_would_do_are_enough_and_no_more(count: int, need: int) -> None:
    group = [sample(index) for index in range(count)]
    repeats = repeats_needed(group, need)
    assert count * (repeats + 1) >= need
    assert repeats <= 0 or count * repeats < need
