from __future__ import annotations

import math
import random
import re

import pytest

from ltxtrain.report.curves import (
    Chart,
    Point,
    Series,
    chart_html,
    number,
    path_data,
    smooth,
    smoothing_span,
    step_axis,
    thin,
    value_axis,
)


def points_in(data: str) -> list[Point]:
    """The path's points in the box: the way the page's script reads them."""
    return [tuple(float(part) for part in pair.split(" ")) for pair in data.removeprefix("M").split("L")]


def test_a_path_leads_back_to_its_points() -> None:
    points = [(float(step), math.sin(step) + 2) for step in range(1, 300)]
    x, y = step_axis(1, 299), value_axis([value for _, value in points])
    for (left, top), (step, value) in zip(points_in(path_data(points, x, y)), points, strict=True):
        assert x.low + left / 1000 * (x.high - x.low) == pytest.approx(step, abs=0.01)
        assert y.high - top / 1000 * (y.high - y.low) == pytest.approx(value, abs=1e-4)


def test_higher_values_are_drawn_higher() -> None:
    (_, low), (_, high) = points_in(path_data([(1, 0.2), (2, 0.9)], step_axis(1, 2), value_axis([0.2, 0.9])))
    assert high < low


def test_one_point_alone_can_be_seen() -> None:
    (left, top), (right, same) = points_in(path_data([(1.0, 0.5)], step_axis(1, 1), value_axis([0.5])))
    assert (left + right) / 2 == 500 and top == same and right > left


@pytest.mark.parametrize(
    ("values", "ticks"),
    [
        ([0.31, 1.19], (0.0, 0.5, 1.0, 1.5)),
        ([0.9, 1.0], (0.9, 0.92, 0.94, 0.96, 0.98, 1.0)),
        ([1e-5, 1e-4], (0.0, 2e-5, 4e-5, 6e-5, 8e-5, 1e-4)),
        ([0.0, 0.0], (-1.0, -0.5, 0.0, 0.5, 1.0)),
        ([2.0, 2.0], (0.0, 1.0, 2.0, 3.0, 4.0)),
        ([-3.0, 4.0], (-4.0, -2.0, 0.0, 2.0, 4.0)),
    ],
)
def test_value_axes_have_round_ticks_that_enclose_the_values(values: list[float], ticks: tuple[float, ...]) -> None:
    axis = value_axis(values)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.low <= min(values) and max(values) <= axis.high


def test_axes_of_any_values_enclose_them_with_few_ticks() -> None:
    draw = random.Random(7)
    for _ in range(500):
        scale = 10.0 ** draw.randint(-8, 8)
        values = [scale * draw.uniform(-1, 1) for _ in range(draw.randint(1, 5))]
        axis = value_axis(values)
        assert axis.low <= min(values) and max(values) <= axis.high
        assert 2 <= len(axis.ticks) <= 8
        assert list(axis.ticks) == sorted(set(axis.ticks))


def test_step_axes_tick_on_whole_steps() -> None:
    assert step_axis(1, 2000).ticks == (0, 500, 1000, 1500, 2000)
    assert step_axis(1, 3).ticks == (1, 2, 3)
    assert step_axis(901, 1000).ticks == (920, 940, 960, 980, 1000)


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    assert smooth([(1, 5.0), (2, 5.0), (3, 5.0)], 20) == ((1, 5.0), (2, pytest.approx(5.0)), (3, pytest.approx(5.0)))


def test_smoothing_is_the_weighted_mean_of_all_values_so_far() -> None:
    values = [4.0, 1.0, 7.0, 2.0]
    keep = 1 - 2 / (5 + 1)
    weights = [keep ** (3 - i) for i in range(4)]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert smooth(list(enumerate(values)), 5)[-1][1] == pytest.approx(expected)


def test_the_span_follows_the_length_of_the_run() -> None:
    assert [smoothing_span(count) for count in (1, 60, 2000, 100_000)] == [5, 5, 100, 200]


def test_thinning_keeps_ends_spikes_and_dips_of_a_long_run() -> None:
    points = [(float(step), 1.0) for step in range(20_000)]
    points[7_003] = (7_003.0, 9.0)
    points[12_345] = (12_345.0, -9.0)
    kept = thin(points, columns=300)
    assert len(kept) <= 602
    assert {points[0], points[-1], points[7_003], points[12_345]} <= set(kept)
    assert list(kept) == sorted(kept)


def test_a_short_run_is_drawn_whole() -> None:
    points = [(float(step), float(step % 7)) for step in range(600)]
    assert thin(points) == tuple(points)


def test_a_few_slow_steps_do_not_flatten_the_rest_and_are_told() -> None:
    points = tuple((float(step), 90.0 if step == 1 else 2.0) for step in range(1, 101))
    html = chart_html(Chart("seconds", "Seconds per step", (Series("seconds", points),), robust=True))
    high = float(re.search(r'data-y="\S+ (\S+)"', html).group(1))
    assert 2.0 <= high <= 5.0
    assert "1 value is off the scale, the highest 90." in html


def test_no_points_no_chart() -> None:
    assert chart_html(Chart("lr", "Learning rate", (Series("learning rate", ()),))) == ""


def test_names_are_escaped() -> None:
    html = chart_html(Chart("x", "<b>", (Series('"><script>', ((1.0, 1.0), (2.0, 2.0))),)))
    assert "<script>" not in html and "<b>" not in html


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e-4, "1e-4"), (2.55e-5, "2.55e-5"), (0.03125, "0.0312"), (1.27, "1.27"), (412, "412"), (12000, "12k")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text
