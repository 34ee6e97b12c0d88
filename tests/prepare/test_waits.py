"""A server says how long it wants to be left alone, in one of two ways, or in none that can be read."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from ltxtrain.prepare.waits import MOST_WAIT_S, asked_wait


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        (" 3 ", 3),
        ("1e9", 0),
        ("", 0),
        ("soon", 0),
        ("-4", 0),
        ("²", 0),
        ("9" * 400, MOST_WAIT_S),
    ],
)
def test_a_number_of_seconds_is_waited_within_bounds(said: str, seconds: float) -> None:
    assert asked_wait({"retry-after": said}) == seconds


def test_a_time_of_day_is_waited_for() -> None:
    assert 25 < asked_wait({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
    assert asked_wait({"retry-after": formatdate(0, usegmt=True)}) == asked_wait({}) == 0
