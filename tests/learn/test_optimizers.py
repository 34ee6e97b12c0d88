"""Every optimiser that works here: it lowers a loss, and goes on from its saved state bit for bit."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from safetensors.torch import load, save

from ltxtrain.config.optim import OptimizerConfig, OptimizerName
from ltxtrain.config.optimizers import OPTIMIZERS, adapter_dtype
from ltxtrain.learn.optimizers import (
    evaluating,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
)

WORKING = [name for name in get_args(OptimizerName) if "cpu" in OPTIMIZERS[name].verdict.on]
LARGE = (16, 512)  # 8192 values: enough for 8-bit states
SHAPES = {"a.down": LARGE, "a.up": (24, 16), "b.down": LARGE}
SEED = 11


def parameters(name: str) -> dict[str, torch.nn.Parameter]:
    """As of an adapter: the second factor starts at zero."""
    generator = torch.Generator().manual_seed(3)
    made = {key: torch.randn(shape, generator=generator) * 0.1 for key, shape in SHAPES.items()}
    made["a.up"].zero_()
    dtype = getattr(torch, adapter_dtype(name))
    return {key: torch.nn.Parameter(value.to(dtype)) for key, value in made.items()}


def section(name: str, **more: object) -> OptimizerConfig:
    rate = 1.0 if name in ("prodigy", "torch-adadelta") else 1e-2
    return OptimizerConfig(**{"optimizer": name, "learning_rate": rate, **more})  # type: ignore[arg-type]


def loss_of(weights: dict[str, torch.nn.Parameter], step: int) -> torch.Tensor:
    """Squared distance to fixed goals, under noise that is a function of the step."""
    generator = torch.Generator().manual_seed(1000 + step)
    total = torch.zeros(())
    for key, weight in weights.items():
        goal = torch.full(SHAPES[key], 0.3)
        noise = 0.02 * torch.randn(SHAPES[key], generator=generator)
        total = total + ((weight.float() - goal + noise) ** 2).sum()
    return total


def train(weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        loss_of(weights, step).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("name", WORKING)
def test_stopped_and_resumed_ends_with_the_same_bits(name: str) -> None:
    straight = parameters(name)
    optimizer = make_optimizer(straight, section(name), SEED)
    train(straight, optimizer, range(7))
    file = save(optimizer_tensors(optimizer, list(straight)))
    with evaluating(optimizer):  # a checkpoint keeps what is exported, which need not be what is trained
        adapter = {key: weight.detach().clone() for key, weight in straight.items()}
    train(straight, optimizer, range(7, 12))

    resumed = {key: torch.nn.Parameter(weight) for key, weight in adapter.items()}
    other = make_optimizer(resumed, section(name), SEED)
    saved = load(file)
    load_optimizer_tensors(other, list(resumed), saved)
    assert same(optimizer_tensors(other, list(resumed)), saved)
    train(resumed, other, range(7, 12))
    assert same(dict(straight), dict(resumed))
    assert same(optimizer_tensors(optimizer, list(straight)), optimizer_tensors(other, list(resumed)))
