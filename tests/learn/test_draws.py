"""Random draws are functions of their place, and leave everybody else's random state alone."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch

from ltxtrain.learn.draws import Place, dropout_seed

HERE = Place(seed=42, step=7, micro=1, rank=0)
CPU = torch.device("cpu")


def everything_at(place: Place, sample: str = "set/a.mp4#0") -> tuple[float, float, float]:
    noise = place.noise("noise", sample, (4,))
    return float(noise[0]), float(place.scalars("sigma", sample).random()), float(place.number("x", sample))


def test_same_place_gives_the_same_draws() -> None:
    assert everything_at(HERE) == everything_at(Place(42, 7, 1))
    assert torch.equal(HERE.noise("noise", "a", (2, 3)), HERE.noise("noise", "a", (2, 3)))


@pytest.mark.parametrize("field", ["seed", "step", "micro", "rank"])
def test_each_part_of_the_place_changes_the_draws(field: str) -> None:
    other = everything_at(replace(HERE, **{field: 5}))
    assert not set(other) & set(everything_at(HERE))


def test_samples_and_purposes_have_streams_of_their_own() -> None:
    numbers = {HERE.number(purpose, sample) for purpose in ("noise", "sigma", "caption") for sample in ("a", "b", "")}
    assert len(numbers) == 9
    assert not torch.equal(HERE.noise("noise", "a", (4,)), HERE.noise("noise", "b", (4,)))


def test_draws_do_not_depend_on_what_was_drawn_before() -> None:
    alone = Place(1, 2, 0).noise("noise", "a", (3,))
    Place(1, 1, 0).noise("noise", "a", (1000,))
    torch.randn(17)
    assert torch.equal(Place(1, 2, 0).noise("noise", "a", (3,)), alone)


def test_noise_is_standard_normal_and_new_at_each_step() -> None:
    steps = torch.stack([Place(3, step, 0).noise("noise", "a", (16, 4, 8, 8)) for step in range(1, 9)])
    assert steps.dtype == torch.float32
    assert abs(float(steps.mean())) < 0.01
    assert float(steps.std()) == pytest.approx(1.0, abs=0.01)
    assert float((steps**4).mean()) == pytest.approx(3.0, abs=0.1)
    correlation = torch.corrcoef(steps.flatten(1)) - torch.eye(8)
    assert float(correlation.abs().max()) < 0.04


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_something_happens_as_often_as_asked(probability: float) -> None:
    times = sum(Place(1, step, 0).happens("first frame", "a", probability) for step in range(4000))
    assert times == pytest.approx(4000 * probability, abs=4 * (4000 * probability * (1 - probability)) ** 0.5)


def test_draws_and_dropout_leave_every_global_random_state_untouched() -> None:
    before = (torch.get_rng_state(), repr(np.random.get_state()), random.getstate())
    everything_at(HERE)
    HERE.happens("caption dropout", "a", 0.5)
    with dropout_seed(HERE, CPU):
        torch.nn.functional.dropout(torch.ones(100), 0.5)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (repr(np.random.get_state()), random.getstate()) == before[1:]


def test_global_state_comes_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="stop"), dropout_seed(HERE, CPU):
        torch.rand(3)
        raise ValueError("stop")
    assert torch.equal(torch.get_rng_state(), before)


def test_no_generator_is_seeded_but_those_that_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """``torch.manual_seed`` reaches the generators of every accelerator through these."""
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    monkeypatch.setattr(torch.mps, "manual_seed", seeded.append)
    monkeypatch.setattr(torch.xpu, "manual_seed_all", seeded.append)
    dropped_at(HERE)
    assert seeded == []


def test_on_apples_gpu_its_generator_is_seeded_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a generator of the CPU in place of Metal's: the calls are torch.mps's own."""
    gpu = torch.Generator().manual_seed(5)
    monkeypatch.setattr(torch.mps, "_get_default_mps_generator", lambda: gpu)
    monkeypatch.setattr(torch._C, "_has_mps", True)
    before = gpu.get_state()
    drawn = []
    for place in (HERE, HERE, replace(HERE, step=8)):
        with dropout_seed(place, torch.device("mps")):
            drawn.append(torch.rand(4, generator=gpu).tolist())
        assert torch.equal(gpu.get_state(), before)
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(ValueError, match="stop"), dropout_seed(HERE, torch.device("mps")):
        torch.rand(3, generator=gpu)
        raise ValueError("stop")
    assert torch.equal(gpu.get_state(), before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU of CUDA or ROCm")
def test_on_a_gpu_the_seed_decides_and_every_gpu_has_its_state_back() -> None:
    before = [state.clone() for state in torch.cuda.get_rng_state_all()]
    last = torch.device("cuda", torch.cuda.device_count() - 1)
    dropped = []
    for device in (torch.device("cuda"), last, last):
        with dropout_seed(HERE, device):
            dropped.append(torch.nn.functional.dropout(torch.ones(64, device=device), 0.5).cpu())
    assert torch.equal(dropped[0], dropped[1])
    assert torch.equal(dropped[1], dropped[2])
    assert all(map(torch.equal, torch.cuda.get_rng_state_all(), before))


def dropped_at(place: Place) -> torch.Tensor:
    with dropout_seed(place, CPU):
        return torch.nn.functional.dropout(torch.ones(64), 0.5)


def test_same_place_drops_the_same_and_another_place_another() -> None:
    here = dropped_at(HERE)
    torch.manual_seed(99)
    assert torch.equal(dropped_at(HERE), here)
    assert not torch.equal(dropped_at(replace(HERE, step=8)), here)
    assert not torch.equal(dropped_at(replace(HERE, micro=0)), here)


def test_dropout_of_the_backward_pass_is_that_of_the_forward_pass_with_checkpointing() -> None:
    weights = torch.ones(64, requires_grad=True)
    with dropout_seed(HERE, CPU):
        dropped = torch.utils.checkpoint.checkpoint(
            lambda tensor: torch.nn.functional.dropout(tensor * 3, 0.5), weights, use_reentrant=False
        )
        dropped.sum().backward()
    assert weights.grad is not None
    assert torch.equal(weights.grad, dropped.detach())
