"""The weights that an optimiser stands for, where they are not the ones that it trains."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ltxtrain.learn.optimizers.main_memory import in_main_memory


@contextmanager
def evaluating(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Inside, the parameters are what is to be measured, shown and exported; after, exactly what they were.

    Schedule-free optimisers train at one point and stand for the average of all (Defazio et al. 2024). Their own way
    back from the average rounds, so a validation would change the run: the trained point is kept aside instead.
    For all others, and inside of another ``evaluating``, nothing happens.
    """
    groups = [group for group in optimizer.param_groups if group.get("train_mode")]
    if not groups:
        yield
        return
    with in_main_memory(optimizer):
        kept = [(p, p.detach().clone()) for group in groups for p in group["params"]]
        optimizer.eval()
    try:
        yield
    finally:
        with in_main_memory(optimizer), torch.no_grad():
            for parameter, trained in kept:
                parameter.copy_(trained)
        for group in groups:
            group["train_mode"] = True
