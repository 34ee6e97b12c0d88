"""bitsandbytes' optimisers, stepped without waiting for the GPU after each tensor.

Their own step does, for the sake of states that move between main memory and the GPU while it runs. Where none does,
kernels follow one another on one stream as all others do, and the weights are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class _Unwaiting:
    """Its place is before one of bitsandbytes' classes."""

    param_groups: list[dict[str, Any]]
    state: dict[torch.nn.Parameter, dict[str, Any]]
    init_state: Callable[..., None]
    update_step: Callable[..., None]

    @torch.no_grad()
    def step(self) -> None:
        for number, group in enumerate(self.param_groups):
            for position, parameter in enumerate(group["params"]):
                if parameter.grad is None:
                    continue
                if not self.state[parameter]:
                    self.init_state(group, parameter, number, position)
                self.update_step(group, parameter, number, position)


def unwaiting(kind: type) -> type:
    """``kind`` of bitsandbytes, for states that stay where they are."""
    return type(kind.__name__, (_Unwaiting, kind), {})
