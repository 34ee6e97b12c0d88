from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.errors import ConfigError, DataError
from ltxtrain.plan.filling import fill_buckets, repeats_needed, uses_of
from ltxtrain.plan.length import DEFAULT_STEPS, run_length
from ltxtrain.plan.records import Bucket, BucketPlan, Sample

WIDE, HIGH = Bucket(64, 32, 9), Bucket(32, 64, 9)


def sample(index: int, bucket: Bucket = WIDE, repeats: int = 0) -> Sample:
    name = f"clip{index:03d}.mp4"
    return Sample(f"d/{name}#0", "d", f"/data/{name}", ("words",), 0.0, 25.0, bucket, (64, 64), (0, 0), repeats, True)


def test_small_bucket_is_refused_with_the_repeats_that_would_do() -> None:
    samples = [sample(0), sample(1), sample(2, HIGH)]
    with pytest.raises(
        DataError, match=r"32x64@9 gives 1 uses in an epoch, one step needs 4; repeats 3 would do"
    ) as caught:
        fill_buckets(samples, 4, 1, "refuse")
    assert "64x32@9" in caught.value.message
    assert caught.value.hint is not None and "repeats" in caught.value.hint


def test_small_bucket_is_dropped_clip_by_clip() -> None:
    filled = fill_buckets([sample(0), sample(1), sample(2, HIGH)], 2, 1, "drop")
    assert [entry.path for entry in filled.dropped] == ["clip002.mp4"]
    assert filled.dropped[0].reason == "small-bucket"
    assert "repeats 1 would do" in filled.dropped[0].detail
    assert [plan.bucket for plan in filled.buckets] == [WIDE]


def test_small_bucket_is_filled_by_drawing_again() -> None:
    filled = fill_buckets([sample(0), sample(1), sample(2, HIGH)], 2, 1, "fill")
    assert filled.dropped == ()
    assert [plan.bucket for plan in filled.filled] == [HIGH]
    assert {plan.bucket: plan.batches for plan in filled.buckets} == {WIDE: 1, HIGH: 1}


def test_repeats_count_as_uses_and_accumulation_raises_the_need() -> None:
    samples = [sample(0, repeats=3), sample(1, repeats=3)]
    assert fill_buckets(samples, 4, 2, "refuse").buckets == (BucketPlan(WIDE, 2, 8, 2),)
    with pytest.raises(DataError, match="needs 12"):
        fill_buckets(samples, 4, 3, "refuse")


@given(
    groups=st.lists(
        st.tuples(st.sampled_from([WIDE, HIGH, Bucket(96, 32, 17)]), st.integers(0, 5)), min_size=1, max_size=30
    ),
    batch=st.integers(1, 6),
    accumulation=st.integers(1, 4),
    policy=st.sampled_from(["drop", "fill"]),
    order=st.randoms(use_true_random=False),
)
def test_each_sample_is_used_in_one_bucket_or_dropped_in_any_order(
    groups: list[tuple[Bucket, int]], batch: int, accumulation: int, policy: str, order: object
) -> None:
    samples = [sample(index, bucket, repeats) for index, (bucket, repeats) in enumerate(groups)]
    filled = fill_buckets(samples, batch, accumulation, policy)  # type: ignore[arg-type]
    assert len(filled.samples) + len(filled.dropped) == len(samples)
    assert sum(plan.samples for plan in filled.buckets) == len(filled.samples)
    for plan in filled.buckets:
        group = [entry for entry in filled.samples if entry.bucket == plan.bucket]
        assert (plan.samples, plan.uses) == (len(group), uses_of(group))
        assert (plan.batches - 1) * batch < plan.uses <= plan.batches * batch
    shuffled = samples[:]
    order.shuffle(shuffled)  # type: ignore[attr-defined]
    assert fill_buckets(shuffled, batch, accumulation, policy) == filled  # type: ignore[arg-type]


@given(count=st.integers(1, 40), need=st.integers(1, 200))
def test_repeats_that_would_do_are_enough_and_no_more(count: int, need: int) -> None:
    group = [sample(index) for index in range(count)]
    repeats = repeats_needed(group, need)
    assert count * (repeats + 1) >= need
    assert repeats <= 0 or count * repeats < need


def test_length_from_steps_from_epochs_and_from_neither() -> None:
    buckets = (BucketPlan(WIDE, 10, 10, 5), BucketPlan(HIGH, 3, 3, 2))
    from_steps = run_length(buckets, 2, 70, None)
    assert (from_steps.steps, from_steps.steps_per_epoch, from_steps.epochs) == (70, 4, 20.0)
    assert run_length(buckets, 2, 0, 3).steps == 12
    assert run_length(buckets, 1, None, None).steps == DEFAULT_STEPS
    with pytest.raises(ConfigError, match="both"):
        run_length(buckets, 1, 10, 10)
