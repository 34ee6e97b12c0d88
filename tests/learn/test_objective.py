"""The flow-matching objective, element by element, and first-frame conditioning."""

from __future__ import annotations

import pytest
import torch

from ltxtrain.learn.objective import Noised, add_noise, levels_of, velocity_loss

SHAPE = (2, 4, 3, 2, 5)  # B C F H W
LATENTS = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
NOISE = torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
TOKENS_IN_A_FRAME = 10


def noise_of(latents: torch.Tensor, noise: torch.Tensor, sigmas: list[float], conditioned: list[bool]) -> Noised:
    return add_noise(latents, noise, *levels_of(sigmas, conditioned, latents.shape[2]))


def test_noisy_latents_lie_on_the_line_between_data_and_noise() -> None:
    noised = noise_of(LATENTS, NOISE, [0.25, 0.8], [False, False])
    assert noised.noisy_BCFHW[0, 1, 2, 1, 3] == pytest.approx(
        float(0.75 * LATENTS[0, 1, 2, 1, 3] + 0.25 * NOISE[0, 1, 2, 1, 3])
    )
    assert torch.allclose(noised.noisy_BCFHW[1], 0.2 * LATENTS[1] + 0.8 * NOISE[1])
    assert torch.equal(noised.target_BCFHW, NOISE - LATENTS)


def test_target_is_the_slope_of_the_line() -> None:
    early, late = (noise_of(LATENTS, NOISE, [sigma] * 2, [False] * 2) for sigma in (0.3, 0.7))
    slope = (late.noisy_BCFHW - early.noisy_BCFHW) / 0.4
    assert torch.allclose(slope, early.target_BCFHW, atol=1e-5)


def test_ends_of_the_line_are_data_and_noise() -> None:
    noised = noise_of(LATENTS, NOISE, [0.0, 1.0], [False, False])
    assert torch.equal(noised.noisy_BCFHW[0], LATENTS[0])
    assert torch.equal(noised.noisy_BCFHW[1], NOISE[1])


def test_conditioned_sample_has_a_clean_first_frame_at_level_zero_and_the_other_none() -> None:
    noised = noise_of(LATENTS, NOISE, [0.5, 0.75], [False, True])
    assert noised.conditioned_B is not None and noised.conditioned_B.tolist() == [False, True]
    assert torch.equal(noised.noisy_BCFHW[1, :, 0], LATENTS[1, :, 0])
    assert torch.allclose(noised.noisy_BCFHW[1, :, 1:], 0.25 * LATENTS[1, :, 1:] + 0.75 * NOISE[1, :, 1:])
    assert torch.allclose(noised.noisy_BCFHW[0], 0.5 * LATENTS[0] + 0.5 * NOISE[0])
    assert noised.sigma.shape == (2, 3 * TOKENS_IN_A_FRAME)
    assert noised.sigma[0].unique().tolist() == [0.5]
    assert noised.sigma[1].tolist() == [0.0] * TOKENS_IN_A_FRAME + [0.75] * 2 * TOKENS_IN_A_FRAME


def test_levels_are_told_for_each_token_only_where_they_differ() -> None:
    noised = noise_of(LATENTS, NOISE, [0.5, 0.75], [False, False])
    assert noised.sigma.tolist() == [0.5, 0.75]
    assert noised.sigma.dtype == torch.float32


def test_single_frame_is_never_conditioned() -> None:
    """All of it would be clean and outside the loss: a mean over nothing."""
    noised = noise_of(LATENTS[:, :, :1], NOISE[:, :, :1], [0.5, 0.75], [True, True])
    assert noised.conditioned_B is None
    assert noised.sigma.shape == (2,)
    assert not torch.equal(noised.noisy_BCFHW, LATENTS[:, :, :1])
    assert velocity_loss(torch.zeros_like(noised.target_BCFHW), noised).isfinite().all()


def test_loss_is_the_mean_squared_error_of_each_sample() -> None:
    noised = noise_of(LATENTS, NOISE, [0.5, 0.5], [False, False])
    velocity = noised.target_BCFHW.clone()
    velocity[1] += 0.5
    velocity[1, 0, 0, 0, 0] += 2.0  # (2.5 ** 2 - 0.5 ** 2) / 120 more
    loss_B = velocity_loss(velocity, noised)
    assert loss_B.tolist() == pytest.approx([0.0, 0.25 + 6.0 / 120])


def test_clean_frame_is_outside_the_loss_and_gets_no_gradient() -> None:
    noised = noise_of(LATENTS, NOISE, [0.5, 0.5], [True, False])
    error = torch.zeros(SHAPE)
    error[:, :, 0] = 3.0
    error[:, :, 1:] = 1.0
    velocity = (noised.target_BCFHW + error).requires_grad_()
    loss_B = velocity_loss(velocity, noised)
    assert loss_B.tolist() == pytest.approx([1.0, (9 + 1 + 1) / 3])
    loss_B.sum().backward()
    assert velocity.grad is not None
    assert velocity.grad[0, :, 0].abs().max() == 0
    assert torch.allclose(velocity.grad[0, :, 1:], torch.tensor(2.0 / 80))
    assert torch.allclose(velocity.grad[1, :, 0], torch.tensor(6.0 / 120))


def test_loss_is_computed_in_float32_whatever_the_model_answers_in() -> None:
    noised = noise_of(LATENTS.bfloat16(), NOISE.bfloat16(), [0.5, 0.5], [False, False])
    assert noised.target_BCFHW.dtype == torch.bfloat16
    velocity = torch.full(SHAPE, 100.0, dtype=torch.bfloat16)
    loss_B = velocity_loss(velocity, noised)
    assert loss_B.dtype == torch.float32
    exact = ((velocity.double() - noised.target_BCFHW.double()) ** 2).mean(dim=(1, 2, 3, 4))
    assert loss_B.tolist() == pytest.approx(exact.tolist(), rel=1e-6)
