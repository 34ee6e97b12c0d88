"""The order of samples: complete, drawn by weight, and a pure function of the rule and the batch's number."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltxtrain.config import CacheRule, Schedule
from ltxtrain.errors import ConfigError
from ltxtrain.plan import order as module
from ltxtrain.plan.decks import Deck
from ltxtrain.plan.order import Batch, BatchOrder, OrderRule, eval_batches, share
from ltxtrain.plan.records import Bucket, BucketPlan, DatasetPlan, Sample

BUCKETS = (Bucket(256, 192, 25), Bucket(192, 256, 25), Bucket(256, 192, 9))


def sample(index: int, bucket: Bucket = BUCKETS[0], repeats: int = 0, dataset: str = "clips") -> Sample:
    name = f"{dataset}/{index}.mp4#0"
    return Sample(name, dataset, f"/{index}.mp4", ("a",), 0.0, 25.0, bucket, (300, 300), (0, 0), repeats, True)


def clips(count: int, dataset: str = "clips") -> list[Sample]:
    return [sample(index, dataset=dataset) for index in range(count)]


def order_of(
    samples: list[Sample], schedules: dict[str, Schedule] | None = None, batch_size: int = 1, **rule: object
) -> BatchOrder:
    """As the plan would make it: a bucket for each data set and size, a schedule for each data set."""
    groups: dict[tuple[str, Bucket], list[Sample]] = {}
    for entry in samples:
        groups.setdefault((entry.dataset, entry.bucket), []).append(entry)
    buckets = [
        BucketPlan(bucket, len(mine), uses, -(-uses // batch_size), dataset, batch_size)
        for (dataset, bucket), mine in groups.items()
        if (uses := sum(entry.repeats + 1 for entry in mine))
    ]
    schedules = {name: Schedule() for name, _ in groups} | (schedules or {})
    datasets = [DatasetPlan(name, "video", "train", 1, 1, 1, 1, schedule) for name, schedule in schedules.items()]
    return BatchOrder(OrderRule(**{"samples": samples, "buckets": buckets, "datasets": datasets, "seed": 5} | rule))


def shown(order: BatchOrder, batches: range) -> list[tuple[int, str, tuple[str, ...]]]:
    return [
        (found.epoch, found.dataset, tuple(s.id for s in found.samples)) for found in map(order.__getitem__, batches)
    ]


def uses(batches: list[tuple[int, str, tuple[str, ...]]]) -> Counter[str]:
    return Counter(name for _, _, names in batches for name in names)


SAMPLES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from(BUCKETS), st.integers(0, 3)), min_size=1, max_size=20
).map(lambda kinds: [sample(index, bucket, repeats, name) for index, (name, bucket, repeats) in enumerate(kinds)])
BOUND = st.none() | st.integers(1, 30)
# Data set c is always there, so that there is always something to draw.
SCHEDULES = st.fixed_dictionaries(
    {
        name: st.builds(
            Schedule,
            weight=st.sampled_from([0.0, 0.3, 1.0]),
            start_epoch=st.integers(1, 3),
            start_step=st.integers(0, 20),
            end_epoch=BOUND,
            end_step=BOUND,
            fade_out_step=BOUND,
        )
        for name in "ab"
    }
)
SIZES = st.integers(1, 5)
ACCUMULATIONS = st.integers(1, 3)


@given(samples=SAMPLES, batch_size=SIZES, epoch=st.integers(0, 2), world=st.integers(1, 3))
@settings(max_examples=150)
def test_an_epoch_shows_each_use_of_each_sample_once(
    samples: list[Sample], batch_size: int, epoch: int, world: int
) -> None:
    order = order_of(samples, batch_size=batch_size, world=world)
    start = order.batches_of(epoch)
    batches = shown(order, range(start, start + order.epoch_length(epoch)))
    assert {found for found, _, _ in batches} == {epoch}
    assert uses(batches) == Counter({entry.id: entry.repeats + 1 for entry in samples})
    places = {entry.id: (entry.dataset, entry.bucket) for entry in samples}
    short: Counter[tuple[str, Bucket]] = Counter()
    for _, dataset, names in batches:
        (place,) = {places[name] for name in names}
        assert place[0] == dataset
        short[place] += len(names) < batch_size * world
        assert 0 < len(names) <= batch_size * world
    assert max(short.values()) <= 1, "a bucket has one remainder in an epoch"


@given(samples=SAMPLES, schedules=SCHEDULES, batch_size=SIZES, accumulation=ACCUMULATIONS, data=st.data())
@settings(max_examples=150)
def test_any_batch_can_be_had_without_those_before_it(
    samples: list[Sample], schedules: dict[str, Schedule], batch_size: int, accumulation: int, data: st.DataObject
) -> None:
    """So a run that starts at any step, in a process that reads far ahead or not at all, sees the same batches."""
    rule = {"batch_size": batch_size, "accumulation": accumulation}
    samples = samples + clips(3, "c")
    in_turn = shown(order_of(samples, schedules, **rule), range(120))
    order = order_of(samples, schedules, **rule)
    for index in data.draw(st.lists(st.integers(0, 119), min_size=1, max_size=8)):
        assert shown(order, range(index, index + 1)) == in_turn[index : index + 1]
    start = data.draw(st.integers(0, 119))
    assert shown(order_of(samples, schedules, **rule), range(start, 120)) == in_turn[start:]


@given(samples=SAMPLES, schedules=SCHEDULES, batch_size=SIZES, data=st.data())
@settings(max_examples=60)
def test_how_clips_and_data_sets_are_listed_does_not_matter(
    samples: list[Sample], schedules: dict[str, Schedule], batch_size: int, data: st.DataObject
) -> None:
    samples = samples + clips(3, "c")
    shuffled = data.draw(st.permutations(samples))
    turned = dict(reversed(schedules.items()))
    first = shown(order_of(samples, schedules, batch_size=batch_size), range(60))
    assert shown(order_of(shuffled, turned, batch_size=batch_size), range(60)) == first


def is_drawn(schedule: Schedule, epoch: int, step: int) -> bool:
    """The documented rule, word for word; epochs and steps count from 1."""
    if schedule.weight == 0 or epoch < schedule.start_epoch or step < schedule.start_step:
        return False
    if schedule.fade_out_step is not None and step >= schedule.fade_out_step:
        return False
    ended = schedule.end_epoch is not None and epoch > schedule.end_epoch
    return not ended and not (schedule.end_step is not None and step > schedule.end_step)


@given(samples=SAMPLES, schedules=SCHEDULES, batch_size=SIZES, accumulation=ACCUMULATIONS)
@settings(max_examples=150)
def test_schedules_hold_and_nobody_is_left_out_who_is_active(
    samples: list[Sample], schedules: dict[str, Schedule], batch_size: int, accumulation: int
) -> None:
    samples = samples + clips(3, "c")
    schedules = schedules | {"c": Schedule()}
    order = order_of(samples, schedules, batch_size=batch_size, accumulation=accumulation)
    batches = shown(order, range(150))
    whole = {name: Counter({s.id: s.repeats + 1 for s in samples if s.dataset == name}) for name in schedules}
    seen: Counter[str] = Counter()
    for index, (epoch, dataset, names) in enumerate(batches):
        step = index // accumulation + 1
        assert is_drawn(schedules[dataset], epoch + 1, step)
        seen += Counter(names)
        last = index == len(batches) - 1 or batches[index + 1][0] != epoch
        if last and index < len(batches) - 1:
            after = (index + 1) // accumulation + 1
            assert order.epoch_length(epoch) == sum(1 for found, _, _ in batches if found == epoch)
            for name, counted in whole.items():
                if is_drawn(schedules[name], epoch + 1, after):
                    assert not counted - seen, f"epoch {epoch} ended before {name} was shown whole"
            assert all(seen[key] <= counted[key] for counted in whole.values() for key in counted)
            seen = Counter()


@given(samples=SAMPLES, schedules=SCHEDULES, batch_size=SIZES, accumulation=ACCUMULATIONS)
@settings(max_examples=60)
def test_lengths_and_progress_agree_with_the_batches(
    samples: list[Sample], schedules: dict[str, Schedule], batch_size: int, accumulation: int
) -> None:
    order = order_of(samples + clips(3, "c"), schedules, batch_size=batch_size, accumulation=accumulation)
    epochs = [found for found, _, _ in shown(order, range(order.batches_of(6) + 1))]
    for epoch in range(6):
        assert order.epoch_length(epoch) == epochs.count(epoch)
        assert order.batches_of(epoch) == sum(found < epoch for found in epochs)
        if order.epoch_length(epoch):
            assert order.progress(order.batches_of(epoch + 1)) == epoch + 1
            assert order.progress(order.batches_of(epoch) + 1) == epoch + Fraction(1, epochs.count(epoch))
    assert order.progress(0) == 0


@pytest.mark.parametrize(("sampling", "part"), [("uniform", 0.5), ("auto-weighting", 0.9)])
def test_data_sets_are_drawn_evenly_or_by_their_size(sampling: str, part: float) -> None:
    order = order_of(clips(9000, "large") + clips(1000, "small"), sampling=sampling)
    first = [found.dataset for found in map(order.__getitem__, range(1000))]
    assert first.count("large") / 1000 == pytest.approx(part, abs=0.05)


def test_probability_weighs_data_sets_and_zero_leaves_one_out() -> None:
    schedules = {"a": Schedule(weight=0.75), "b": Schedule(weight=0.25), "c": Schedule(weight=0.0)}
    order = order_of(clips(3000, "a") + clips(3000, "b") + clips(50, "c"), schedules)
    first = Counter(found.dataset for found in map(order.__getitem__, range(2000)))
    assert first["a"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert order.epoch_length(0) == 6000 and "c" not in first


def test_larger_batches_do_not_make_a_data_set_last_longer_than_the_others() -> None:
    """By size means by batches: an epoch stays mixed to its end, whatever the batch sizes and repeats."""
    samples = [sample(index, repeats=3, dataset="a") for index in range(200)] + clips(100, "b")
    buckets = [BucketPlan(BUCKETS[0], 200, 800, 100, "a", 8), BucketPlan(BUCKETS[0], 100, 100, 100, "b", 1)]
    order = order_of(samples, buckets=buckets)
    batches = [order[index] for index in range(order.epoch_length(0))]
    assert len(batches) == 200
    assert {len(found.samples) for found in batches if found.dataset == "a"} == {8}
    assert {found.dataset for found in batches[150:]} == {"a", "b"}


def test_a_data_set_that_fades_out_is_drawn_less_and_less() -> None:
    order = order_of(clips(4000, "a") + clips(4000, "b"), {"a": Schedule(fade_out_step=2000)})
    drawn = [found.dataset == "a" for found in map(order.__getitem__, range(4000))]
    parts = [sum(drawn[start : start + 400]) / 400 for start in range(0, 2400, 400)]
    wanted = [weight / (1 + weight) for weight in (0.9, 0.7, 0.5, 0.3, 0.1)]
    assert parts[:5] == pytest.approx(wanted, abs=0.08)
    assert parts[5] == 0 and not any(drawn[1999:])


def test_when_nothing_is_active_it_is_told() -> None:
    with pytest.raises(ConfigError, match="no data set is active at the start"):
        order_of(clips(3), {"clips": Schedule(start_step=5)})[0]
    with pytest.raises(ConfigError, match="no data set is active at the start"):
        order_of(clips(3), {"clips": Schedule(weight=0.0)})[0]
    ends = order_of(clips(3), {"clips": Schedule(end_step=4)}, accumulation=2)
    assert [ends[index].epoch for index in range(8)] == [0, 0, 0, 1, 1, 1, 2, 2]
    with pytest.raises(ConfigError, match="no data set is active at step 5"):
        ends[8]


def test_epochs_in_which_nothing_is_active_are_passed_over() -> None:
    schedules = {"a": Schedule(end_epoch=2), "b": Schedule(start_epoch=5)}
    order = order_of(clips(3, "a") + clips(2, "b"), schedules)
    assert [order[index].epoch for index in range(9)] == [0, 0, 0, 1, 1, 1, 4, 4, 5]
    assert [order.epoch_length(epoch) for epoch in range(6)] == [3, 3, 0, 0, 2, 2]


@given(count=st.integers(1, 20), world=st.integers(1, 9))
def test_shares_make_up_the_batch_and_differ_by_one_at_most(count: int, world: int) -> None:
    batch = Batch(3, 0, tuple(clips(count)), "clips")
    parts = [share(batch, rank, world).samples for rank in range(world)]
    assert [entry for part in parts for entry in part] == list(batch.samples)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    samples = [sample(index, BUCKETS[index % 2]) for index in range(24)]
    orders = set()
    for seed in range(3):
        order = order_of(samples, seed=seed)
        orders |= {tuple(entry[2] for entry in shown(order, range(24 * n, 24 * n + 24))) for n in range(3)}
    assert len(orders) == 9


def test_batches_of_different_buckets_are_mixed_over_the_epoch() -> None:
    """All of one bucket and then all of the other would forget the first."""
    order = order_of([sample(index, BUCKETS[index % 2]) for index in range(60)])
    buckets = [order[index].samples[0].bucket for index in range(60)]
    assert sum(before != after for before, after in pairwise(buckets)) > 15
    assert buckets[:30].count(BUCKETS[0]) in range(8, 23)


def test_a_shuffle_puts_every_clip_everywhere() -> None:
    order = order_of(clips(4))
    places = Counter((order[index].samples[0].id, index % 4) for index in range(4000))
    assert len(places) == 16
    assert all(count == pytest.approx(250, abs=70) for count in places.values())


def redrawn(*, on: bool) -> BatchOrder:
    datasets = [
        DatasetPlan("clips", "video", "train", 1, 1, 1, 1, Schedule(), CacheRule(redrawn=on)),
        DatasetPlan("b", "video", "train", 1, 1, 1, 1),
    ]
    return order_of(clips(6) + clips(6, "b"), datasets=datasets)


def test_cuts_of_a_redrawn_data_set_change_with_the_epoch_and_those_of_others_do_not() -> None:
    cuts: dict[str, list[tuple[int, int]]] = {}
    order = redrawn(on=True)
    for index in range(order.batches_of(4)):
        for entry in order[index].samples:
            cuts.setdefault(entry.id, []).append(entry.crop)
            assert all(0 <= crop <= spare for crop, spare in zip(entry.crop, (44, 108), strict=True))
    assert all(len(found) == 4 and found[0] == (0, 0) for found in cuts.values()), "the first epoch has the plan's cuts"
    assert all(len(set(found)) >= 3 for name, found in cuts.items() if name.startswith("clips/"))
    assert all(set(found) == {(0, 0)} for name, found in cuts.items() if name.startswith("b/"))
    still = redrawn(on=False)
    assert {s.crop for index in range(48) for s in still[index].samples} == {(0, 0)}


def test_cuts_that_an_epoch_leaves_behind_are_those_that_the_next_does_not_use() -> None:
    order = redrawn(on=True)
    start = order.batches_of(2)
    used = {entry for index in range(start, start + order.epoch_length(2)) for entry in order[index].samples}
    assert set(order.outdated(2, 3)) == {entry for entry in used if entry.dataset == "clips"}
    fitting = [replace(entry, resize=(256, 192)) for entry in clips(6)]  # nothing to choose: always the same cut
    datasets = order.rule.datasets
    assert list(order_of(fitting, datasets=datasets).outdated(2, 3)) == []
    assert list(redrawn(on=False).outdated(0, 1)) == []


def test_an_epoch_leaves_no_cuts_of_data_sets_that_were_not_shown_in_it() -> None:
    rule = CacheRule(redrawn=True)
    schedules = {"a": Schedule(), "late": Schedule(start_epoch=3), "step": Schedule(start_step=40)}
    datasets = [DatasetPlan(name, "video", "train", 1, 1, 1, 1, found, rule) for name, found in schedules.items()]
    order = order_of(clips(6, "a") + clips(6, "late") + clips(6, "step"), datasets=datasets)
    for epoch in range(6):
        start = order.batches_of(epoch)
        shown = {order[index].dataset for index in range(start, start + order.epoch_length(epoch))}
        assert order.suppliers(epoch) == shown == {entry.dataset for entry in order.outdated(epoch, epoch + 1)}
    assert order.suppliers(1) == {"a"} and order.suppliers(5) == set(schedules)
    gap = order_of(clips(3), {"clips": Schedule(start_epoch=1, end_epoch=2)})
    assert [gap.suppliers(epoch) for epoch in range(2)] == [{"clips"}] * 2


def test_a_late_start_with_schedules_is_found_without_going_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """400,000 steps with data sets that come and go: only the epochs that a change falls into are played through."""
    drawn, real = [], module.fractions
    monkeypatch.setattr(module, "fractions", lambda key, first, count: drawn.append(count) or real(key, first, count))
    shuffled = []
    monkeypatch.setattr(
        Deck, "_shuffled", lambda deck, epoch, real=Deck._shuffled: shuffled.append(1) or real(deck, epoch)
    )
    schedules = {
        "a": Schedule(start_step=1000, end_step=200_000),
        "b": Schedule(start_epoch=3, fade_out_step=399_000),
        "c": Schedule(),
    }
    samples = clips(400, "a") + clips(3000, "b") + clips(17, "c")
    found = order_of(samples, schedules, batch_size=2)[400_000]
    assert found.dataset == "c" and found.epoch > 300
    assert sum(drawn) < 20_000 and len(shuffled) == 1


def test_a_hundred_thousand_samples_fit_in_little_memory() -> None:
    samples = clips(50_000, "a") + clips(50_000, "b")
    order = order_of(samples, batch_size=4)
    tracemalloc.start()
    for index in (0, 24_999, 25_000, 49_999, 50_000):
        assert len(order[index].samples) == 4
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 4_000_000 and peak < 12_000_000


def test_an_order_holds_nothing_for_each_batch_before_one_is_asked_for() -> None:
    """With many repeats there are far more batches than clips."""
    samples = [sample(index, BUCKETS[index % 3], repeats=999) for index in range(300)]
    tracemalloc.start()
    order = order_of(samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert order.epoch_length(0) == 300_000
    assert peak < 500_000


def test_held_out_batches_are_the_same_for_every_run_and_need_not_be_full() -> None:
    samples = [sample(index, BUCKETS[index % 2], dataset="held") for index in range(9)] + clips(4, "other")

    def by_two(bucket: Bucket) -> int:
        return 2

    batches = eval_batches(samples, "held", by_two, 99)
    assert sorted(len(found.samples) for found in batches) == [1, 2, 2, 2, 2]
    assert uses([(0, found.dataset, tuple(s.id for s in found.samples)) for found in batches]) == Counter(
        {entry.id: 1 for entry in samples[:9]}
    )
    assert all(len({entry.bucket for entry in found.samples}) == 1 for found in batches)
    assert eval_batches(samples[::-1], "held", by_two, 99) == batches
    assert eval_batches(samples, "held", by_two, 3) == batches[:3]
    assert {entry.bucket for found in batches[:3] for entry in found.samples} == set(BUCKETS[:2])


def test_held_out_batches_are_as_large_as_their_bucket_allows() -> None:
    samples = [sample(index, BUCKETS[index % 2], dataset="held") for index in range(12)]
    batches = eval_batches(samples, "held", {BUCKETS[0]: 4, BUCKETS[1]: 1}.__getitem__, 99)
    assert Counter(len(found.samples) for found in batches) == {4: 1, 2: 1, 1: 6}
