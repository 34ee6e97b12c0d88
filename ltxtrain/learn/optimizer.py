"""The optimiser and gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ltxtrain.config import ADAMW_DEFAULTS, adamw_settings
from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.errors import CheckpointError, ConfigError, Fault

ADAMW_BETAS = (0.9, 0.999)  # torch's own


def make_optimizer(parameters: Sequence[torch.nn.Parameter], section: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW on ``parameters``. Raises ``ConfigError`` for what ``optimizer_config`` says that AdamW cannot take."""
    try:
        settings: dict[str, Any] = adamw_settings(section.optimizer_config)
    except ValueError as error:
        raise ConfigError(
            [Fault("optimizer_config", str(error), "", "it takes " + ", ".join(ADAMW_DEFAULTS))]
        ) from error
    betas = ADAMW_BETAS
    if section.optimizer_beta1 is not None and section.optimizer_beta2 is not None:
        betas = (section.optimizer_beta1, section.optimizer_beta2)
    return torch.optim.AdamW(list(parameters), lr=section.learning_rate, betas=betas, **settings)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_gradients(parameters: Sequence[torch.nn.Parameter], method: str, limit: float) -> float:
    """Clip in place and return the global L2 norm from before. ``limit`` 0 clips nothing.

    ``norm`` scales all gradients together so that their norm is at most ``limit``; ``value`` clamps each element.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit > 0 and method == "norm":
        torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)
    elif limit > 0:
        torch.nn.utils.clip_grad_value_(list(parameters), limit)
    return float(norm)


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """The optimiser's state as ``{"<state>|<parameter>": tensor}``, for a safetensors file."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    return {
        f"{key}|{name}": value.detach().cpu().clone()
        for name, parameter in zip(names, parameters, strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: dict[str, torch.Tensor]
) -> None:
    """Put back what ``optimizer_tensors`` gave; the settings stay those of ``optimizer``."""
    if any(group.get("amsgrad") for group in optimizer.param_groups) and not any(
        label.startswith("max_exp_avg_sq|") for label in tensors
    ):
        raise CheckpointError(
            "the checkpoint was made without amsgrad, which needs its own state from the first step on",
            hint="leave amsgrad out of optimizer_config, or start afresh",
        )
    state: dict[int, dict[str, torch.Tensor]] = {}
    index = {name: position for position, name in enumerate(names)}
    for label, tensor in tensors.items():
        key, name = label.split("|", 1)
        state.setdefault(index[name], {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
