"""Clipping the gradients of one step."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.config.optimizers import clips
from ltxtrain.learn.optimizers.early import EARLY
from ltxtrain.learn.optimizers.main_memory import trained_by


def clip_gradients(optimizer: torch.optim.Optimizer, section: OptimizerConfig) -> torch.Tensor:
    """Clip in place and return the global L2 norm from before, on the device: reading it is left to the caller.

    Gradients that are taken early are clipped where they are used.
    """
    group = optimizer.param_groups[0]
    if EARLY in group:
        norm: torch.Tensor = group[EARLY].norm()
        return norm
    parameters = trained_by(optimizer)
    norm = _norm([p.grad for p in parameters if p.grad is not None])
    clip(parameters, section, norm)
    return norm


def clip(parameters: Sequence[torch.nn.Parameter], section: OptimizerConfig, norm: torch.Tensor) -> None:
    """``norm`` scales all gradients together so that their norm is at most ``max_grad_norm``; ``value`` clamps each
    element. 0 clips nothing, and optimisers that bound their own updates get their gradients as they are.
    """
    limit = section.max_grad_norm if clips(section.optimizer) else 0.0
    if limit > 0 and section.grad_clip_method == "norm":
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)
    elif limit > 0:
        torch.nn.utils.clip_grad_value_(list(parameters), limit)


def _norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """Summed up in float32 also where the gradients are in bfloat16, whose own sum would be some tenths of a percent
    off."""
    if all(gradient.dtype == torch.float32 for gradient in gradients):
        return torch.nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float32)))
