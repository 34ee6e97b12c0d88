"""Gradients that are taken as soon as each is there, in the middle of the backward pass, and freed on the device.

They are sent to main memory, or used up at once by the update of their weights. Either way no more than a few gradients
ever lie on the device together, and their norm is still that of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

EARLY = "ltxtrain_early"
"""The key of a parameter group under which the ``Early`` of its gradients stands."""
Take = Callable[[torch.nn.Parameter], None]


class Early:
    """Hands each gradient of ``parameters`` to ``take`` and frees it, from ``start`` to ``stop``."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], take: Take) -> None:
        self._parameters, self._take = list(parameters), take
        self._norms: dict[torch.nn.Parameter, torch.Tensor] = {}
        self._handles: list[Any] = []

    def start(self) -> None:
        self._handles = [each.register_post_accumulate_grad_hook(self._taken) for each in self._parameters]

    def stop(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def norm(self) -> torch.Tensor:
        """The global L2 norm of the gradients since the last ``forget``, on the device."""
        norms = [self._norms[each] for each in self._parameters if each in self._norms]
        return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.tensor(0.0)

    def forget(self) -> None:
        self._norms = {}

    @torch.no_grad()
    def _taken(self, parameter: torch.nn.Parameter) -> None:
        self._norms[parameter] = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)
        self._take(parameter)
        parameter.grad = None


def take_over(optimizer: torch.optim.Optimizer) -> None:
    """From here on the gradients are this optimiser's, if it takes them early."""
    early: Early | None = optimizer.param_groups[0].get(EARLY)
    if early is not None:
        early.start()


def let_go(optimizer: torch.optim.Optimizer) -> None:
    """Another optimiser's turn on the same parameters, or the end of this one."""
    early: Early | None = optimizer.param_groups[0].get(EARLY)
    if early is not None:
        early.stop()


class Alone:
    """Steps one parameter of an optimiser at a time. ``shared`` are the keys of its group that count steps: they move
    on once all parameters have been stepped, in ``finish``."""

    def __init__(self, optimizer: torch.optim.Optimizer, shared: Sequence[str]) -> None:
        self._group, self._own, self._shared = optimizer.param_groups[0], optimizer.step, shared
        self._after: dict[str, Any] | None = None

    def step(self, parameter: torch.nn.Parameter) -> None:
        group, before = self._group, self._copied()
        everything, group["params"] = group["params"], [parameter]
        try:
            self._own()
        finally:
            group["params"] = everything
        self._after = self._copied()
        for key in self._after.keys() - before.keys():
            del group[key]
        group |= before

    def finish(self) -> None:
        if self._after is not None:
            self._group |= self._after
            self._after = None

    def _copied(self) -> dict[str, Any]:
        found = {key: self._group[key] for key in self._shared if key in self._group}
        return {key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in found.items()}
