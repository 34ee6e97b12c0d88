"""Which optimisers wait for the device in each step is known, and the others do not."""

from __future__ import annotations

import pytest

from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.learn.optimizers import clip_gradients, make_optimizer, set_learning_rate
from tests.learn.test_optimizers import SEED, WORKING, loss_of, parameters, section
from tests.waiting import Waiting


@pytest.mark.parametrize("name", WORKING)
def test_only_marked_optimisers_wait_for_the_device(name: str) -> None:
    weights, chosen = parameters(name), section(name, max_grad_norm=0.1)
    optimizer = make_optimizer(weights, chosen, SEED)
    waiting = Waiting(weights.values())
    for number in range(2):  # the first one makes the state
        loss_of(weights, number).backward()
        waiting.know(weight.grad for weight in weights.values())
        waiting.found.clear()
        with waiting:
            clip_gradients(optimizer, chosen)
            set_learning_rate(optimizer, 1e-3)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert bool(waiting.found) == OPTIMIZERS[name].waits, waiting.found
