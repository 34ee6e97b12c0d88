"""Learning-rate curves against documented values and hand-worked ones."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import pytest

from ltxtrain.config.optim import OptimizerConfig, ScheduleConfig, SchedulerName
from ltxtrain.learn.schedule import SCHEDULES, Curve, curve_of, learning_rate, rate_of

# The guides' example: learning_rate 5e-5, lr_end 4e-7, lr_warmup_steps 400000.
GUIDES = Curve(base=5e-5, end=4e-7, warmup=400_000, total=400_000, power=0.8, cycles=1)
CURVE = Curve(base=1.0, end=0.2, warmup=10, total=110, power=2.0, cycles=2)
WITH_WARMUP = sorted(set(SCHEDULES) - {"constant", "sine", "cosine_half_period"})


def test_every_schedule_of_the_configuration_is_built_and_no_other() -> None:
    assert set(SCHEDULES) == set(get_args(SchedulerName))


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 5e-5), (100_000, 4.2736e-5), (200_000, 2.52e-5), (400_000, 4e-7), (600_000, 2.52e-5), (800_000, 5e-5)],
)
def test_documented_half_period_curve_falls_and_climbs_back(step: int, rate: float) -> None:
    assert learning_rate("cosine_half_period", GUIDES, step) == pytest.approx(rate, abs=5e-10)


@pytest.mark.parametrize(("step", "rate"), [(0, 2.52e-5), (200_000, 5e-5), (400_000, 2.52e-5), (600_000, 4e-7)])
def test_documented_sine_starts_half_way_up(step: int, rate: float) -> None:
    assert learning_rate("sine", GUIDES, step) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize(("name", "step"), [("cosine_half_period", 1000), ("sine", 1500)])
def test_half_period_without_warmup_steps_is_a_thousand(name: str, step: int) -> None:
    curve = replace(GUIDES, warmup=0)
    assert learning_rate(name, curve, step) == pytest.approx(4e-7)
    assert learning_rate(name, curve, step // 2) > 2e-5


@pytest.mark.parametrize("name", WITH_WARMUP)
def test_warmup_is_a_straight_line_that_never_gives_a_step_of_rate_zero(name: str) -> None:
    rates = [learning_rate(name, CURVE, step) for step in range(11)]
    assert rates == pytest.approx([(step + 1) / 11 for step in range(11)])


@pytest.mark.parametrize("name", ["constant", "sine", "cosine_half_period"])
def test_others_have_no_warmup(name: str) -> None:
    expected = {"constant": 1.0, "sine": 0.6, "cosine_half_period": 1.0}[name]
    assert learning_rate(name, CURVE, 0) == pytest.approx(expected)


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_without_warmup_steps_the_first_step_has_the_full_rate(name: str) -> None:
    if name != "sine":
        assert learning_rate(name, replace(CURVE, warmup=0), 0) == pytest.approx(1.0)


HALF_WAY = {
    "constant": (1.0, 1.0, 1.0),
    "constant_with_warmup": (1.0, 1.0, 1.0),
    "linear": (0.75, 0.5, 0.0),
    "cosine": (0.2 + 0.8 * 0.8535534, 0.6, 0.2),
    "polynomial": (0.2 + 0.8 * 0.5625, 0.2 + 0.8 * 0.25, 0.2),
    "cosine_with_restarts": (0.6, 1.0, 0.2),
}


@pytest.mark.parametrize("name", HALF_WAY)
def test_values_at_a_quarter_at_half_and_at_the_end(name: str) -> None:
    rates = tuple(learning_rate(name, CURVE, step) for step in (35, 60, 110))
    assert rates == pytest.approx(HALF_WAY[name], abs=1e-7)


@pytest.mark.parametrize("name", sorted(set(HALF_WAY) - {"constant", "constant_with_warmup"}))
def test_beyond_the_end_the_rate_stays_at_its_end(name: str) -> None:
    assert learning_rate(name, CURVE, 500) == learning_rate(name, CURVE, 110)


def test_restarts_come_as_often_as_asked() -> None:
    rates = [learning_rate("cosine_with_restarts", replace(CURVE, cycles=4), step) for step in range(10, 111)]
    assert sum(after > before + 0.5 for before, after in pairwise(rates)) == 3
    assert learning_rate("cosine_with_restarts", replace(CURVE, cycles=1), 47) == learning_rate("cosine", CURVE, 47)


def test_falling_curves_only_fall_after_the_warmup() -> None:
    for name in ("linear", "cosine", "polynomial"):
        rates = [learning_rate(name, CURVE, step) for step in range(10, 111)]
        assert rates == sorted(rates, reverse=True)


def test_power_bends_the_polynomial() -> None:
    flat, steep = (learning_rate("polynomial", replace(CURVE, power=power), 60) for power in (0.5, 3.0))
    assert flat == pytest.approx(0.2 + 0.8 * 0.5**0.5)
    assert steep == pytest.approx(0.2 + 0.8 * 0.125)


def test_warmup_longer_than_the_run_only_rises() -> None:
    curve = replace(CURVE, warmup=200)
    rates = [learning_rate("cosine", curve, step) for step in range(110)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(110 / 201)


@pytest.mark.parametrize(
    ("options", "rate"),
    [({}, 1e-4), ({"lr_scale": True}, 1.6e-3), ({"lr_scale": True, "lr_scale_sqrt": True}, 4e-4)],
)
def test_the_rate_is_scaled_by_the_clips_of_a_step_and_its_end_is_not(options: dict[str, bool], rate: float) -> None:
    optimizer, schedule = (
        OptimizerConfig(learning_rate=1e-4, **options),
        ScheduleConfig(lr_scheduler="cosine", lr_end=1e-5),
    )
    assert rate_of(optimizer, schedule, 100, 1, effective_batch=16) == pytest.approx(rate)
    assert learning_rate("cosine", curve_of(optimizer, schedule, 100, 16), 100) == pytest.approx(1e-5)
    assert rate_of(optimizer, schedule, 100, 51, effective_batch=16) == pytest.approx((rate + 1e-5) / 2)
