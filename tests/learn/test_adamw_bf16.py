"""AdamW on bfloat16 weights: rounding that is right on average, nothing lost, and draws that belong to their place."""

from __future__ import annotations

import math

import pytest
import torch

from ltxtrain.learn.optimizers.adamw_bf16 import DEBT_LIMIT, AdamWBF16, round_into


def optimizer_on(weights: dict[str, torch.Tensor], seed: int = 1, **settings: float) -> AdamWBF16:
    """On ``weights`` themselves, with the guides' settings where none are given."""
    options = {"lr": 1e-3, "eps": 1e-6, "weight_decay": 0.0} | settings
    betas = (options.pop("beta1", 0.9), options.pop("beta2", 0.999))
    parameters = {name: torch.nn.Parameter(value) for name, value in weights.items()}
    return AdamWBF16(parameters, seed, betas=betas, **options)


def step(optimizer: AdamWBF16, gradient: float | torch.Tensor) -> None:
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.full_like(parameter, 1.0) * torch.as_tensor(gradient, dtype=torch.bfloat16)
    optimizer.step()


def weight_and_shift(optimizer: AdamWBF16) -> torch.Tensor:
    """What the weights would be if they could hold all that waits for them."""
    (parameter,) = optimizer.param_groups[0]["params"]
    return parameter.detach().double() + optimizer.state[parameter]["shift"].double()


def by_hand(weight: float, gradients: list[float], lr: float, eps: float = 1e-6) -> float:
    """The documented update in double precision, without rounding: no correction of the first moment's start."""
    mean = square = 0.0
    for number, gradient in enumerate(gradients, 1):
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        weight -= lr * math.sqrt(1 - 0.999**number) * mean / (math.sqrt(square) + eps)
    return weight


def test_rounding_goes_to_a_neighbour_and_is_right_on_average() -> None:
    """Between 1 and the next number above it, 1 + 2^-7."""
    generator = torch.Generator().manual_seed(0)
    for part in (0.1, 0.5, 0.875):
        values = torch.full((200_000,), 1 + part * 2**-7)
        rounded = torch.empty(values.shape, dtype=torch.bfloat16)
        round_into(rounded, values, generator)
        assert set(rounded.unique().tolist()) == {1.0, 1 + 2**-7}
        assert float((rounded.double().mean() - 1) * 2**7) == pytest.approx(part, abs=0.005)


def test_rounding_keeps_what_needs_none_and_signs() -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 0.15625, -3e38, 2**-126])
    rounded = torch.empty(values.shape, dtype=torch.bfloat16)
    exact = values.to(torch.bfloat16).float()
    round_into(rounded, exact.clone(), torch.Generator().manual_seed(0))
    assert torch.equal(rounded.float(), exact)
    negative = torch.full((50_000,), -1 - 0.25 * 2**-7)
    rounded = torch.empty(negative.shape, dtype=torch.bfloat16)
    round_into(rounded, negative, torch.Generator().manual_seed(0))
    assert float((rounded.double().mean() + 1) * 2**7) == pytest.approx(-0.25, abs=0.01)


def test_on_average_steps_are_those_of_the_formula() -> None:
    gradients = [0.5, 0.25, -0.125, 0.5, 0.375, 0.25, -0.5, 0.125]
    optimizer = optimizer_on({"weight": torch.ones(100_000, dtype=torch.bfloat16)}, lr=1e-2)
    for gradient in gradients:
        step(optimizer, gradient)
        (state,) = optimizer.state.values()
        assert len(state["exp_avg"].unique()) > 1 == len(state["exp_avg_sq"].unique()), "rounded by chance, and not"
    moved = 1 - weight_and_shift(optimizer).mean().item()
    # The second moment is rounded to the nearest: each of its steps may be off by 2^-9, its root by half of that.
    assert moved == pytest.approx(1 - by_hand(1.0, gradients, 1e-2), rel=0.01)


def test_steps_far_below_the_last_bit_add_up() -> None:
    """A plain bfloat16 weight of 1 cannot take a step below 2^-9, and would stay where it is for ever."""
    optimizer = optimizer_on({"weight": torch.ones(20_000, dtype=torch.bfloat16)}, lr=1e-5)
    for _ in range(120):
        step(optimizer, 1.0)
    expected = 1 - by_hand(1.0, [1.0] * 120, 1e-5)
    assert 1 - weight_and_shift(optimizer).mean().item() == pytest.approx(expected, rel=0.02)
    (parameter,) = optimizer.param_groups[0]["params"]
    assert 1 - parameter.detach().double().mean().item() == pytest.approx(expected, rel=0.1)


def test_weight_decay_is_saved_up_and_paid() -> None:
    optimizer = optimizer_on({"weight": torch.full((20_000,), 2.0, dtype=torch.bfloat16)}, lr=1e-2, weight_decay=0.1)
    (parameter,) = optimizer.param_groups[0]["params"]
    step(optimizer, 0.0)
    debt, expected, payments = optimizer.state[parameter]["debt"], weight_and_shift(optimizer).mean().item(), 0
    assert 0 <= debt <= DEBT_LIMIT
    for _ in range(200):
        step(optimizer, 0.0)
        debt += 1e-2 * 0.1
        if debt > DEBT_LIMIT:
            expected, debt, payments = expected * (1 - debt), 0.0, payments + 1
        assert optimizer.state[parameter]["debt"] == pytest.approx(debt, abs=1e-12)
    assert payments >= 33
    assert weight_and_shift(optimizer).mean().item() == pytest.approx(expected, rel=1e-3)


def test_draws_belong_to_seed_step_and_name_and_to_nothing_else() -> None:
    def end(seed: int, names: tuple[str, ...], of: str = "a") -> torch.Tensor:
        optimizer = optimizer_on({name: torch.ones(500, dtype=torch.bfloat16) for name in names}, seed=seed)
        for _ in range(3):
            step(optimizer, 0.5)
        return dict(zip(names, optimizer.param_groups[0]["params"], strict=True))[of].detach()

    state = torch.get_rng_state()
    alone = end(1, ("a",))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(alone, end(1, ("z", "a")))
    assert not torch.equal(alone, end(2, ("a",)))
    assert not torch.equal(alone, end(1, ("b",), of="b"))


def test_draws_of_a_payment_do_so_too() -> None:
    def paid(seed: int, number: int, name: str) -> bytes:
        optimizer = optimizer_on({name: torch.ones(500, dtype=torch.bfloat16)}, seed=seed)
        (parameter,) = optimizer.param_groups[0]["params"]
        state = optimizer._start(parameter, name) | {"step": number, "debt": 0.0}
        optimizer._charge(parameter, state, 1.001 * DEBT_LIMIT)
        return bytes(state["shift"].view(torch.uint8))  # type: ignore[attr-defined]

    assert paid(1, 3, "a") == paid(1, 3, "a")
    assert len({paid(1, 3, "a"), paid(2, 3, "a"), paid(1, 4, "a"), paid(1, 3, "b")}) == 4


def test_weights_in_float32_are_no_business_of_it() -> None:
    with pytest.raises(ValueError, match=r"bfloat16, and weight is in torch\.float32"):
        optimizer_on({"weight": torch.ones(3)})


def test_how_many_are_stepped_together_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for most in (1 << 21, 700, 1):
        monkeypatch.setattr("ltxtrain.learn.optimizers.adamw_bf16.CHUNK", most)
        weights = {str(number): torch.full((20, 15), 0.1 * number, dtype=torch.bfloat16) for number in range(5)}
        optimizer = optimizer_on(weights, weight_decay=1.0)
        for number in range(4):
            step(optimizer, torch.linspace(-1, 1, 15) / (number + 1))
        ends.append(torch.stack([parameter.detach() for parameter in optimizer.param_groups[0]["params"]]))
    assert torch.equal(ends[0], ends[1]) and torch.equal(ends[0], ends[2])
