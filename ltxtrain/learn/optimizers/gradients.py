"""Clipping the gradients of one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def clip_gradients(parameters: Sequence[torch.nn.Parameter], method: str, limit: float) -> torch.Tensor:
    """Clip in place and return the global L2 norm from before, on the device: reading it is left to the caller.

    ``norm`` scales all gradients together so that their norm is at most ``limit``; ``value`` clamps each element.
    ``limit`` 0 clips nothing.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit > 0 and method == "norm":
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)
    elif limit > 0:
        torch.nn.utils.clip_grad_value_(list(parameters), limit)
    return norm
