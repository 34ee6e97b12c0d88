"""The order of samples: complete, shuffled, and a pure function of seed and position."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from ltxtrain.data.batches import BatchOrder, epoch_batches
from ltxtrain.plan.filling import fill_buckets
from ltxtrain.plan.records import Bucket, Sample

BUCKETS = (Bucket(256, 192, 25), Bucket(192, 256, 25), Bucket(256, 192, 9))


def sample(index: int, bucket: Bucket = BUCKETS[0], repeats: int = 0) -> Sample:
    return Sample(
        f"set/{index}.mp4#0", "set", f"/{index}.mp4", ("a",), 0.0, 25.0, bucket, (256, 192), (0, 0), repeats, True
    )


def shown(order: BatchOrder, batches: range) -> list[tuple[str, ...]]:
    return [tuple(entry.id for entry in order[index].samples) for index in batches]


SETS = st.lists(st.tuples(st.sampled_from(BUCKETS), st.integers(0, 3)), min_size=1, max_size=20).map(
    lambda kinds: tuple(sample(index, bucket, repeats) for index, (bucket, repeats) in enumerate(kinds))
)


@given(samples=SETS, batch_size=st.integers(1, 7), seed=st.integers(0, 3), epoch=st.integers(0, 2))
@settings(max_examples=150, deadline=None)
def test_epoch_shows_each_sample_repeats_and_one_times_apart_from_what_fills_the_last_batch(
    samples: tuple[Sample, ...], batch_size: int, seed: int, epoch: int
) -> None:
    batches = epoch_batches(samples, batch_size, seed, epoch)
    assert all(len(batch) == batch_size for batch in batches)
    assert all(len({entry.bucket for entry in batch}) == 1 for batch in batches)
    planned = {plan.bucket: plan for plan in fill_buckets(samples, batch_size, 1, "fill").buckets}
    for bucket, plan in planned.items():
        mine = [batch for batch in batches if batch[0].bucket == bucket]
        assert len(mine) == plan.batches
        counted = Counter(entry.id for batch in mine for entry in batch)
        wanted = Counter({entry.id: entry.repeats + 1 for entry in samples if entry.bucket == bucket})
        redrawn = plan.batches * batch_size - plan.uses
        assert 0 <= redrawn < batch_size
        assert not wanted - counted
        assert (counted - wanted).total() == redrawn


@given(samples=SETS, batch_size=st.integers(1, 4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_batch_can_be_had_without_those_before_it(
    samples: tuple[Sample, ...], batch_size: int, data: st.DataObject
) -> None:
    length = 3 * len(epoch_batches(samples, batch_size, 5, 0))
    in_turn = shown(BatchOrder(samples, batch_size, 5), range(length))
    jumps = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=8))
    order = BatchOrder(samples, batch_size, 5)
    assert [shown(order, range(index, index + 1))[0] for index in jumps] == [in_turn[index] for index in jumps]


@given(samples=SETS, batch_size=st.integers(1, 4), data=st.data())
@settings(max_examples=60, deadline=None)
def test_order_in_which_clips_were_found_does_not_matter(
    samples: tuple[Sample, ...], batch_size: int, data: st.DataObject
) -> None:
    shuffled = tuple(data.draw(st.permutations(samples)))
    assert epoch_batches(shuffled, batch_size, 1, 0) == epoch_batches(samples, batch_size, 1, 0)


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    samples = tuple(sample(index, BUCKETS[index % 2]) for index in range(24))
    orders = {epoch_batches(samples, 2, seed, epoch) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_batches_of_different_buckets_are_mixed_over_the_epoch() -> None:
    """All of one bucket and then all of the other would forget the first."""
    samples = tuple(sample(index, BUCKETS[index % 2]) for index in range(60))
    buckets = [batch[0].bucket for batch in epoch_batches(samples, 1, 0, 0)]
    assert sum(before != after for before, after in pairwise(buckets)) > 15
    assert buckets[:30].count(BUCKETS[0]) in range(8, 23)


def test_what_fills_the_last_batch_changes_from_epoch_to_epoch() -> None:
    samples = tuple(sample(index) for index in range(5))
    twice = set()
    for epoch in range(20):
        counted = Counter(entry.id for batch in epoch_batches(samples, 2, 0, epoch) for entry in batch)
        twice.add(counted.most_common(1)[0][0])
    assert len(twice) >= 3


def test_batches_are_numbered_from_the_start_of_the_run_and_know_their_epoch() -> None:
    order = BatchOrder([sample(index) for index in range(3)], 1, 0)
    assert [(order[index].index, order[index].epoch) for index in (0, 2, 3, 8)] == [(0, 0), (2, 0), (3, 1), (8, 2)]
