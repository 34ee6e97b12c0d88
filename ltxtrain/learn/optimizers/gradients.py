"""Clipping the gradients of one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.config.optimizers import clips


def clip_gradients(parameters: Sequence[torch.nn.Parameter], section: OptimizerConfig) -> torch.Tensor:
    """Clip in place and return the global L2 norm from before, on the device: reading it is left to the caller.

    ``norm`` scales all gradients together so that their norm is at most ``max_grad_norm``; ``value`` clamps each
    element. 0 clips nothing, and optimisers that bound their own updates get their gradients as they are.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    limit = section.max_grad_norm if clips(section.optimizer) else 0.0
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit > 0 and section.grad_clip_method == "norm":
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)
    elif limit > 0:
        torch.nn.utils.clip_grad_value_(list(parameters), limit)
    return norm
