"""AdamW as its paper says, its settings, clipping, and its state through a checkpoint."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load, save

from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.errors import CheckpointError, ConfigError
from ltxtrain.learn.optimizers import (
    clip_gradients,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
)

NAMES = ["down.weight", "up.weight"]


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((3, 2), (4,))]


def adamw(weights: list[torch.nn.Parameter], **options: object) -> torch.optim.Optimizer:
    return make_optimizer(dict(zip(NAMES, weights, strict=False)), OptimizerConfig(**options), 0)  # type: ignore[arg-type]


def take_steps(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()


def adamw_by_hand(weight: float, gradients: list[float], **settings: float) -> float:
    """Loshchilov and Hutter 2019, algorithm 2, with the schedule at 1."""
    beta1, beta2 = settings.get("beta1", 0.9), settings.get("beta2", 0.999)
    mean = square = 0.0
    for step, gradient in enumerate(gradients, 1):
        mean = beta1 * mean + (1 - beta1) * gradient
        square = beta2 * square + (1 - beta2) * gradient**2
        ratio = (mean / (1 - beta1**step)) / (math.sqrt(square / (1 - beta2**step)) + settings.get("eps", 1e-8))
        weight -= settings["lr"] * (ratio + settings.get("weight_decay", 1e-2) * weight)
    return weight


SETTINGS = {
    "defaults": ({}, {}),
    "betas": ({"optimizer_beta1": 0.5, "optimizer_beta2": 0.8}, {"beta1": 0.5, "beta2": 0.8}),
    "weight_decay": ({"optimizer_config": "weight_decay=0.5"}, {"weight_decay": 0.5}),
    "no weight_decay": ({"optimizer_config": "weight_decay=0"}, {"weight_decay": 0.0}),
    "eps": ({"optimizer_config": "eps=0.3"}, {"eps": 0.3}),
    "several": (
        {"optimizer_beta1": 0.7, "optimizer_beta2": 0.9, "optimizer_config": "eps=0.1, weight_decay=0.2"},
        {"beta1": 0.7, "beta2": 0.9, "eps": 0.1, "weight_decay": 0.2},
    ),
}


def stepped(section: OptimizerConfig, gradients: list[float]) -> float:
    weight = torch.nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = make_optimizer({"weight": weight}, section, 0)
    for gradient in gradients:
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    return float(weight.detach())


@pytest.mark.parametrize("kind", SETTINGS)
def test_steps_are_those_of_the_paper_with_each_setting(kind: str) -> None:
    given, by_hand = SETTINGS[kind]
    gradients = [0.3, -1.2, 0.7, 0.05, 2.0]
    section = OptimizerConfig(learning_rate=0.05, **given)
    expected = adamw_by_hand(1.5, gradients, lr=0.05, **by_hand)
    assert stepped(section, gradients) == pytest.approx(expected, rel=1e-7)
    if given:
        assert expected != pytest.approx(adamw_by_hand(1.5, gradients, lr=0.05), rel=1e-4)


def test_amsgrad_never_forgets_a_large_gradient() -> None:
    gradients = [5.0] + [0.1] * 60
    fast = {"optimizer_beta1": 0.9, "optimizer_beta2": 0.5}
    plain, kept = (
        stepped(OptimizerConfig(learning_rate=0.01, **fast, optimizer_config=text), gradients)
        for text in ("weight_decay=0", "weight_decay=0,amsgrad=true")
    )
    assert 1.5 - kept < 0.5 * (1.5 - plain)


@pytest.mark.parametrize(
    "text", ["momentum=0.9", "weight_decay=high", "weight_decay=true", "eps=0", "amsgrad=1", "weight_decay=-0.1"]
)
def test_setting_that_adamw_cannot_take_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=text.partition("=")[0]) as caught:
        adamw(parameters(), optimizer_config=text)
    assert caught.value.exit_code == 2


def test_learning_rate_that_is_set_is_the_one_that_is_used() -> None:
    weights = parameters()
    optimizer = adamw(weights, learning_rate=1.0)
    before = [weight.detach().clone() for weight in weights]
    set_learning_rate(optimizer, 0.0)
    take_steps(optimizer, weights, range(1))
    assert all(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))
    set_learning_rate(optimizer, 0.1)
    take_steps(optimizer, weights, range(1))
    assert not any(torch.equal(weight, old) for weight, old in zip(weights, before, strict=True))


@pytest.fixture
def with_gradients() -> Callable[..., list[torch.nn.Parameter]]:
    def make(*gradients: list[float] | None) -> list[torch.nn.Parameter]:
        made = [torch.nn.Parameter(torch.zeros(len(values or [0.0]))) for values in gradients]
        for parameter, values in zip(made, gradients, strict=True):
            parameter.grad = None if values is None else torch.tensor(values)
        return made

    return make


def of(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights)


# The norm of (3, 4) and (12) together is 13.
@pytest.mark.parametrize(
    ("method", "limit", "expected"),
    [
        ("norm", 6.5, [[1.5, 2.0], [6.0]]),
        ("norm", 13.0, [[3.0, 4.0], [12.0]]),
        ("norm", 100.0, [[3.0, 4.0], [12.0]]),
        ("norm", 0.0, [[3.0, 4.0], [12.0]]),
        ("value", 3.5, [[3.0, 3.5], [3.5]]),
        ("value", 20.0, [[3.0, 4.0], [12.0]]),
        ("value", 0.0, [[3.0, 4.0], [12.0]]),
    ],
)
def test_gradients_are_clipped_as_worked_by_hand(
    method: str, limit: float, expected: list[list[float]], with_gradients: Callable[..., list[torch.nn.Parameter]]
) -> None:
    weights = with_gradients([3.0, 4.0], None, [12.0])
    section = OptimizerConfig(grad_clip_method=method, max_grad_norm=limit)  # type: ignore[arg-type]
    assert float(clip_gradients(of(weights), section)) == pytest.approx(13.0)
    got = [weight.grad.tolist() for weight in weights if weight.grad is not None]
    assert got == [pytest.approx(values, rel=1e-5) for values in expected]


def test_negative_values_are_clipped_too(with_gradients: Callable[..., list[torch.nn.Parameter]]) -> None:
    (weight,) = with_gradients([-3.0, 0.5])
    clip_gradients(of([weight]), OptimizerConfig(grad_clip_method="value", max_grad_norm=1.0))
    assert weight.grad is not None
    assert weight.grad.tolist() == [-1.0, 0.5]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norm_tells_of_gradients_that_are_not_finite(
    bad: float, with_gradients: Callable[..., list[torch.nn.Parameter]]
) -> None:
    assert not math.isfinite(clip_gradients(of(with_gradients([3.0, bad], [1.0])), OptimizerConfig()))


def test_the_norm_of_bfloat16_gradients_is_exact_and_bounds_what_is_left_of_them() -> None:
    """4096 values of 1 and one of 3: the norm is the root of 4105, near which bfloat16 has 64 and 64.5 alone."""
    weights = [torch.nn.Parameter(torch.zeros(count, dtype=torch.bfloat16)) for count in (4096, 1)]
    for weight, value in zip(weights, (1.0, 3.0), strict=True):
        weight.grad = torch.full_like(weight, value)
    norm = clip_gradients(of(weights), OptimizerConfig(max_grad_norm=8.0))
    assert norm.dtype == torch.float32 and float(norm) == pytest.approx(math.sqrt(4105), rel=1e-6)
    left = torch.cat([weight.grad.double() for weight in weights if weight.grad is not None])
    assert float(left.norm()) == pytest.approx(8.0, rel=4e-3)  # each value is rounded to bfloat16 by itself


def test_gradients_of_optimisers_that_bound_their_own_steps_are_left_as_they_are(
    with_gradients: Callable[..., list[torch.nn.Parameter]],
) -> None:
    for name, expected in (("optimi-stableadamw", 3.0), ("prodigy", 3.0), ("optimi-adamw", 1.0)):
        (weight,) = with_gradients([3.0])
        norm = clip_gradients(of([weight]), OptimizerConfig(optimizer=name, max_grad_norm=1.0))  # type: ignore[arg-type]
        assert weight.grad is not None
        assert (float(norm), weight.grad.item()) == (3.0, pytest.approx(expected, rel=1e-5)), name


def test_state_goes_through_a_file_bit_for_bit_and_training_goes_on_the_same() -> None:
    weights = parameters()
    optimizer = adamw(weights, learning_rate=0.01)
    take_steps(optimizer, weights, range(5))
    saved = load(save(optimizer_tensors(optimizer, NAMES)))
    states = {f"{key}|{name}" for key in ("step", "exp_avg", "exp_avg_sq") for name in NAMES}
    assert set(saved) == states | {"optimizer:torch-adamw|"}

    resumed = copy.deepcopy(weights)
    other = adamw(resumed, learning_rate=0.01)
    load_optimizer_tensors(other, NAMES, saved)
    again = optimizer_tensors(other, NAMES)
    assert all(torch.equal(again[label], saved[label]) for label in saved)
    take_steps(optimizer, weights, range(5, 9))
    take_steps(other, resumed, range(5, 9))
    assert all(torch.equal(one, two) for one, two in zip(weights, resumed, strict=True))


def test_settings_of_now_apply_after_a_resume() -> None:
    weights = parameters()
    optimizer = adamw(weights, learning_rate=0.01)
    take_steps(optimizer, weights, range(2))
    other = adamw(parameters(), learning_rate=0.5, optimizer_config="weight_decay=0.3")
    load_optimizer_tensors(other, NAMES, optimizer_tensors(optimizer, NAMES))
    assert (other.param_groups[0]["lr"], other.param_groups[0]["weight_decay"]) == (0.5, 0.3)


def test_saved_state_does_not_change_when_training_goes_on() -> None:
    weights = parameters()
    optimizer = adamw(weights)
    take_steps(optimizer, weights, range(2))
    saved = optimizer_tensors(optimizer, NAMES)
    before = {label: tensor.clone() for label, tensor in saved.items()}
    take_steps(optimizer, weights, range(2, 4))
    assert all(torch.equal(saved[label], before[label]) for label in saved)


def test_amsgrad_turned_on_in_the_middle_of_a_run_is_refused() -> None:
    weights = parameters()
    plain = adamw(weights)
    take_steps(plain, weights, range(2))
    with_amsgrad = adamw(parameters(), optimizer_config="amsgrad=true")
    load_optimizer_tensors(with_amsgrad, NAMES, optimizer_tensors(adamw(parameters()), NAMES))  # before the first step
    with pytest.raises(CheckpointError, match="amsgrad"):
        load_optimizer_tensors(with_amsgrad, NAMES, optimizer_tensors(plain, NAMES))
    take_steps(with_amsgrad, weights, range(1))
