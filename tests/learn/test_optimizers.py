"""Every optimiser that works here: it lowers a loss, and goes on from its saved state bit for bit."""

from __future__ import annotations

from functools import cache
from typing import get_args

import pytest
import torch
from safetensors.torch import load, save

from ltxtrain.config.optim import OptimizerConfig, OptimizerName
from ltxtrain.config.optimizers import OPTIMIZERS, adapter_dtype, state_bytes
from ltxtrain.learn.optimizers import (
    clip_gradients,
    evaluating,
    let_go,
    load_optimizer_tensors,
    make_optimizer,
    optimizer_tensors,
    set_learning_rate,
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
    rate = {"prodigy": 1.0, "torch-adadelta": 1.0, "muon": 0.3, "torch-adafactor": 0.1, "soap": 0.1}.get(name, 1e-2)
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


def train_while_the_rate_falls(
    weights: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range, rate: float
) -> None:
    """And gradients turn round after seven steps: what is remembered is more than what would be found out anew."""
    for step in steps:
        set_learning_rate(optimizer, rate * 0.5**step)
        (loss_of(weights, step) * (1 if step < 7 else -1000)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


@pytest.mark.parametrize("name", WORKING)
def test_stopped_and_resumed_ends_with_the_same_bits(name: str) -> None:
    chosen = section(name, optimizer_config="use_bias_correction=true,d_coef=9" if name == "prodigy" else None)
    straight = parameters(name)
    optimizer = make_optimizer(straight, chosen, SEED)
    train_while_the_rate_falls(straight, optimizer, range(7), chosen.learning_rate)
    file = save(optimizer_tensors(optimizer, list(straight)))
    with evaluating(optimizer):  # a checkpoint keeps what is exported, which need not be what is trained
        adapter = {key: weight.detach().clone() for key, weight in straight.items()}
    train_while_the_rate_falls(straight, optimizer, range(7, 12), chosen.learning_rate)

    resumed = {key: torch.nn.Parameter(weight) for key, weight in adapter.items()}
    other = make_optimizer(resumed, chosen, SEED)
    saved = load(file)
    load_optimizer_tensors(other, list(resumed), saved)
    assert same(optimizer_tensors(other, list(resumed)), saved)
    train_while_the_rate_falls(resumed, other, range(7, 12), chosen.learning_rate)
    assert same(dict(straight), dict(resumed))
    assert same(optimizer_tensors(optimizer, list(straight)), optimizer_tensors(other, list(resumed)))


OFFLOADED = {"optimizer_cpu_offload_method": "torchao"}
SENT = {**OFFLOADED, "optimizer_offload_gradients": True}
RELEASED = {"optimizer_release_gradients": True}


@pytest.mark.parametrize("name", WORKING)
def test_where_and_when_the_update_is_computed_changes_no_bit_and_may_change_at_a_resume(name: str) -> None:
    """Gradients are clipped by their values, so that what is used up early can be, too."""
    clipped = {"grad_clip_method": "value", "max_grad_norm": 0.05}
    straight, moved = parameters(name), parameters(name)
    optimizer = make_optimizer(straight, section(name, **clipped), SEED)
    saved: dict[str, torch.Tensor] = {}
    for number, place in enumerate((OFFLOADED, SENT, SENT if name == "prodigy" else RELEASED)):
        chosen = section(name, **clipped, **place)
        other = make_optimizer(moved, chosen, SEED)
        load_optimizer_tensors(other, list(moved), saved or optimizer_tensors(other, list(moved)))
        for step in range(3 * number, 3 * number + 3):
            norms = []
            for weights, its in ((straight, optimizer), (moved, other)):
                loss_of(weights, step).backward()
                norms.append(clip_gradients(its, chosen))
                if its is other and place is not OFFLOADED:
                    assert all(weight.grad is None for weight in weights.values())
                its.step()
                its.zero_grad(set_to_none=True)
            assert torch.equal(*norms)
        saved = load(save(optimizer_tensors(other, list(moved))))
        let_go(other)
        assert same(dict(straight), dict(moved))
        assert same(optimizer_tensors(optimizer, list(straight)), saved)
        with evaluating(optimizer), evaluating(other):
            assert same(dict(straight), dict(moved))


@pytest.mark.parametrize("name", WORKING)
def test_lowers_a_loss(name: str) -> None:
    weights = parameters(name)
    optimizer = make_optimizer(weights, section(name), SEED)
    train(weights, optimizer, range(25))
    with evaluating(optimizer):
        assert loss_of(weights, 0).item() < 0.85 * loss_of(parameters(name), 0).item()


@pytest.mark.parametrize("name", WORKING)
def test_a_learning_rate_that_is_changed_at_a_resume_is_the_one_of_the_next_steps(name: str) -> None:
    weights = parameters(name)
    optimizer = make_optimizer(weights, section(name), SEED)
    train(weights, optimizer, range(3))
    saved = optimizer_tensors(optimizer, list(weights))
    start = {key: weight.detach().clone() for key, weight in weights.items()}
    rate = optimizer.param_groups[0]["lr"] * 0.25

    ends = []
    for configured, set_later in ((float(rate), False), (float(rate), True), (float(rate) * 4, False)):
        resumed = {key: torch.nn.Parameter(weight.clone()) for key, weight in start.items()}
        other = make_optimizer(resumed, section(name, learning_rate=configured), SEED)
        load_optimizer_tensors(other, list(resumed), saved)
        if set_later:  # as the schedule does before each step
            set_learning_rate(other, configured)
        train(resumed, other, range(3, 5))  # ASGD's own rate is one step late
        ends.append(resumed)
    assert same(dict(ends[0]), dict(ends[1]))
    assert not same(dict(ends[0]), dict(ends[2]))


@pytest.mark.parametrize("name", WORKING)
def test_bytes_of_the_state_are_what_the_plan_reckons_with(name: str) -> None:
    weights = parameters(name)
    optimizer = make_optimizer(weights, section(name), SEED)
    train(weights, optimizer, range(1))
    tensors = optimizer_tensors(optimizer, list(weights))
    held = sum(value.nbytes for label, value in tensors.items() if value.dim() and "trained_weights" not in label)
    shapes = [tuple(weight.shape) for weight in weights.values()]
    count = sum(weight.numel() for weight in weights.values())
    reckoned = state_bytes(name, count, shapes)
    if name == "prodigy":  # reckoned for adapters of which half starts at zero; here it is a fortieth
        reckoned = count * 16 - weights["a.up"].numel() * 4
    assert held == pytest.approx(reckoned, rel=0.01)
    large = sum(weight.numel() for weight in weights.values() if weight.numel() >= 4096)
    alone = sum(
        value.nbytes
        for label, value in tensors.items()
        if label.endswith(".down") and value.dim() and "trained_weights" not in label
    )
    by_shape = ("prodigy", "soap", "torch-adafactor")
    assert name in by_shape or alone == pytest.approx(state_bytes(name, large), rel=0.01)


COMPANIONS = {
    "nesterov": "momentum=0.9",
    "dampening": "momentum=0.9",
    "decouple": "weight_decay=5",
    "decouple_wd": "weight_decay=5",
    "decoupled_weight_decay": "weight_decay=5",
    "safeguard_warmup": "d0=0.001",
    "d_coef": "d0=0.001",
    "slice_p": "d0=0.001",
}
OTHER_VALUES = {
    "beta2_decay": -0.5,
    "eps": 0.5,
    "k": 3,
    "max_precondition_dim": 20,
    "min_8bit_size": 100_000,
    "ns_steps": 3,
    "slice_p": 7,
    "t_alpha": 30,
    "t_beta3": 30,
    "weight_decay": 5,
}
SETTINGS = [(name, setting) for name in WORKING for setting in OPTIMIZERS[name].settings]


@pytest.mark.parametrize(("name", "setting"), SETTINGS, ids=str)
def test_every_setting_changes_what_is_learned(name: str, setting: str) -> None:
    default = OPTIMIZERS[name].settings[setting]
    assert not isinstance(default, str)
    value = OTHER_VALUES.get(setting, not default if isinstance(default, bool) else default * 0.5 or 0.5)
    company = COMPANIONS.get(setting, "")
    changed = f"{company},{setting}={str(value).lower()}".lstrip(",")
    assert steps_with(name, optimizer_config=company) != steps_with(name, optimizer_config=changed)


@pytest.mark.parametrize("name", [name for name in WORKING if OPTIMIZERS[name].betas])
def test_both_betas_change_what_is_learned_and_their_defaults_are_those_of_the_table(name: str) -> None:
    beta1, beta2 = OPTIMIZERS[name].betas or (0.0, 0.0)
    with_defaults = steps_with(name)
    assert steps_with(name, optimizer_beta1=beta1, optimizer_beta2=beta2) == with_defaults
    assert steps_with(name, optimizer_beta1=0.5, optimizer_beta2=beta2) != with_defaults
    assert steps_with(name, optimizer_beta1=beta1, optimizer_beta2=0.8) != with_defaults


@cache
def steps_with(name: str, **options: object) -> list[bytes]:
    """The weights and states after steps with a rising rate and a gradient that falls."""
    weights = parameters(name)
    optimizer = make_optimizer(weights, section(name, **options), SEED)
    rate = float(optimizer.param_groups[0]["lr"])
    for step in range(9):
        set_learning_rate(optimizer, rate * (step + 1))
        (loss_of(weights, step) * 0.5**step).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    kept = [weight.detach() for weight in weights.values()]
    if "min_8bit_size" in str(options):  # Lion takes the sign alone, which a rounded state hardly ever turns
        kept += optimizer_tensors(optimizer, list(weights)).values()
    return [value.contiguous().view(torch.uint8).numpy().tobytes() for value in kept if value.dim()]
