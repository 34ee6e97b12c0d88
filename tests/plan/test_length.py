"""How long a run is: from steps, from epochs, or by default."""

from __future__ import annotations

import pytest

from ltxtrain.config import Schedule
from ltxtrain.errors import ConfigError
from ltxtrain.plan.length import DEFAULT_STEPS, RunLength, run_length
from tests.plan.test_order import clips, order_of


def test_length_from_steps_from_epochs_and_from_neither() -> None:
    order = order_of(clips(7), accumulation=2)
    from_steps = run_length(order, 2, 70, None)
    assert (from_steps.steps, from_steps.steps_per_epoch, from_steps.epochs) == (70, 4, 20.0)
    assert run_length(order, 2, 0, 3) == RunLength(11, 4, 3.0), "21 batches: the last step has one"
    assert run_length(order, 2, None, None).steps == DEFAULT_STEPS
    with pytest.raises(ConfigError, match="both"):
        run_length(order, 2, 10, 10)


def test_a_remainder_is_a_batch_of_its_own() -> None:
    assert run_length(order_of(clips(7), batch_size=4), 1, None, 5).steps == 10


@pytest.mark.parametrize("accumulation", [1, 2, 3, 8])
def test_a_run_of_so_many_epochs_shows_no_more_than_those(accumulation: int) -> None:
    order = order_of(clips(9), {"clips": Schedule(end_epoch=10)}, accumulation=accumulation)
    length = run_length(order, accumulation, None, 10)
    assert length.epochs == 10.0
    assert (length.steps - 1) * accumulation < 90 <= length.steps * accumulation


def test_data_sets_that_come_later_make_later_epochs_longer() -> None:
    order = order_of(clips(4, "a") + clips(10, "b"), {"b": Schedule(start_epoch=3)})
    length = run_length(order, 1, None, 3)
    assert (length.steps, length.steps_per_epoch, length.epochs) == (4 + 4 + 14, 4, 3.0)
    assert run_length(order, 1, 15, None).epochs == 2.5


def test_a_run_that_goes_on_after_the_last_data_set_has_ended_is_refused() -> None:
    order = order_of(clips(4), {"clips": Schedule(end_step=10)}, accumulation=2)
    assert run_length(order, 2, 10, None).steps == 10
    with pytest.raises(ConfigError, match="no data set is active at step 11"):
        run_length(order, 2, 11, None)
