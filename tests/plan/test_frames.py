from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.plan.frames import floor_frames, floor_to_interval, windows


@given(st.integers(1, 5000))
def test_floor_is_the_largest_8k_plus_1_not_above(count: int) -> None:
    floored = floor_frames(count)
    assert floored % 8 == 1
    assert floored <= count < floored + 8


@given(count=st.integers(1, 5000), interval=st.integers(1, 200))
def test_interval_only_shortens_and_keeps_8k_plus_1(count: int, interval: int) -> None:
    floored = floor_to_interval(count, interval)
    assert floored % 8 == 1
    assert 1 <= floored <= floor_frames(count)


def test_interval_of_24_gives_whole_seconds_of_cinema() -> None:
    assert [floor_to_interval(count, 24) for count in (24, 25, 48, 49, 100)] == [1, 25, 25, 49, 97]


def test_no_frame_is_no_clip() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        floor_frames(0)


@given(
    available=st.integers(1, 3000),
    frames=st.integers(1, 400),
    mode=st.sampled_from(["first", "uniform", "all"]),
    per_clip=st.integers(1, 20),
    stride=st.none() | st.integers(1, 500),
)
def test_windows_lie_inside_and_differ(
    available: int, frames: int, mode: str, per_clip: int, stride: int | None
) -> None:
    found = windows(available, frames, mode, per_clip, stride)
    assert found == windows(available, frames, mode, per_clip, stride)
    assert bool(found) == (available >= frames)
    assert all(0 <= window.first_frame <= available - frames for window in found)
    starts = [window.first_frame for window in found]
    assert starts == sorted(set(starts))
    assert [window.index for window in found] == list(range(len(found)))


@given(available=st.integers(1, 3000), frames=st.integers(1, 400), stride=st.integers(1, 400))
def test_all_windows_leave_nothing_but_a_rest_and_gaps_that_were_asked_for(
    available: int, frames: int, stride: int
) -> None:
    starts = [window.first_frame for window in windows(available, frames, "all", stride=stride)]
    assert all(later - earlier == stride for earlier, later in pairwise(starts))
    assert not starts or (starts[0] == 0 and starts[-1] + stride + frames > available)


def test_each_mode_takes_what_it_says() -> None:
    assert [w.first_frame for w in windows(60, 25, "all", stride=10)] == [0, 10, 20, 30]
    assert [w.first_frame for w in windows(90, 25, "all", stride=40)] == [0, 40]
    assert [w.first_frame for w in windows(100, 25, "first")] == [0]
    assert [w.first_frame for w in windows(110, 25, "all")] == [0, 25, 50, 75]
    assert [w.first_frame for w in windows(125, 25, "uniform", 3)] == [0, 50, 100]
    assert [w.first_frame for w in windows(125, 25, "uniform", 1)] == [50]
    assert len(windows(26, 25, "uniform", 9)) == 2
