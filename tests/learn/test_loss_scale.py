"""The loss scale of float16: halved by an overflow, doubled after long without one, kept in a checkpoint."""

from __future__ import annotations

from ltxtrain.learn.loss_scale import GROWS_AFTER, LossScale


def test_it_starts_as_high_as_float16_reaches_and_doubles_after_each_two_thousand_good_steps() -> None:
    scale = LossScale()
    values = []
    for _ in range(2 * GROWS_AFTER):
        scale.went_well()
        values.append(scale.value)
    assert GROWS_AFTER == 2000
    assert values == [65536.0] * 1999 + [131072.0] * 2000 + [262144.0]


def test_an_overflow_halves_it_and_good_steps_are_counted_anew() -> None:
    scale = LossScale(8.0, good=GROWS_AFTER - 1)
    assert scale.lower() and scale.value == 4.0
    scale.went_well()
    assert (scale.value, scale.good) == (4.0, 1)


def test_it_goes_down_to_the_least_normal_number_of_float16_and_no_further() -> None:
    scale = LossScale()
    halvings = 0
    while scale.lower():
        halvings += 1
    assert halvings == 16 + 14


def test_it_goes_on_from_its_state_and_starts_afresh_where_there_is_none() -> None:
    scale = LossScale(32.0, good=7)
    again = LossScale()
    again.restore(scale.state())
    assert again == scale
    again.restore(None)
    assert again == scale
