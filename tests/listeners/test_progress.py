from __future__ import annotations

import pytest

from ltxtrain.events import StageStarted
from ltxtrain.listeners.progress import Remaining, plain, remaining_in


class HandClock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run(remaining: Remaining, clock: HandClock, steps: list[tuple[int, float]]) -> None:
    for done, seconds in steps:
        clock.now += seconds
        remaining.update(done)


def test_the_first_three_training_steps_do_not_count() -> None:
    clock = HandClock()
    remaining = remaining_in(StageStarted("training", total=100), clock)
    run(remaining, clock, [(1, 30.0), (2, 20.0), (3, 10.0)])
    assert remaining.seconds() is None
    run(remaining, clock, [(step, 2.0) for step in range(4, 14)])
    assert remaining.seconds() == pytest.approx(2.0 * (100 - 13))


def test_a_resumed_run_measures_its_own_steps_only() -> None:
    clock = HandClock()
    remaining = remaining_in(StageStarted("training", total=1000, done=900), clock)
    run(remaining, clock, [(901, 50.0), (902, 1.0), (903, 1.0), (904, 1.0), (905, 1.0)])
    assert remaining.seconds() == pytest.approx(95.0)


def test_validation_in_between_slows_the_expected_pace() -> None:
    clock = HandClock()
    remaining = remaining_in(StageStarted("training", total=23), clock)
    run(remaining, clock, [(step, 1.0) for step in range(1, 4)])
    run(remaining, clock, [(step, 1.0) for step in range(4, 13)])
    run(remaining, clock, [(13, 11.0)])
    assert remaining.seconds() == pytest.approx(10 * 2.0)


def test_other_stages_ignore_one_unit() -> None:
    clock = HandClock()
    remaining = remaining_in(StageStarted("latents", total=11), clock)
    run(remaining, clock, [(1, 9.0), (2, 3.0)])
    assert remaining.seconds() == pytest.approx(27.0)


def test_without_a_total_there_is_no_estimate() -> None:
    clock = HandClock()
    remaining = remaining_in(StageStarted("latents"), clock)
    run(remaining, clock, [(1, 1.0), (2, 1.0), (3, 1.0)])
    assert remaining.seconds() is None


def test_the_end_leaves_nothing() -> None:
    clock = HandClock()
    remaining = remaining_in(StageStarted("latents", total=3), clock)
    run(remaining, clock, [(1, 1.0), (2, 1.0), (3, 1.0)])
    assert remaining.seconds() == 0.0


def test_control_characters_never_reach_the_terminal() -> None:
    assert plain("clip\x1b[2J\nrm\t.mp4\x07") == "clip\\x1b[2J\\nrm\\t.mp4\\x07"
    assert plain("Grüße, 日本") == "Grüße, 日本"
