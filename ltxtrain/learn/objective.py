"""The flow-matching objective: noisy latents, velocity target, first-frame conditioning, loss.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S = F*H*W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ltxtrain.errors import LtxtrainError
from ltxtrain.learn.device import sent


@dataclass(frozen=True)
class Noised:
    """What the model sees and what it should answer.

    ``sigma`` is [B] when all tokens of a sample share one level, else [B, S]. ``conditioned`` says for each sample
    whether its first latent frame is given clean.
    """

    noisy_BCFHW: torch.Tensor
    target_BCFHW: torch.Tensor
    sigma: torch.Tensor
    conditioned: tuple[bool, ...]


def add_noise(
    latents_BCFHW: torch.Tensor, noise_BCFHW: torch.Tensor, sigmas: Sequence[float], conditioned: Sequence[bool]
) -> Noised:
    """``x = (1 - sigma) x0 + sigma e`` with target velocity ``e - x0``.

    A conditioned sample keeps its first latent frame clean, and that frame's tokens have sigma 0. A sample of one
    latent frame is never conditioned: nothing of it would be left to learn.
    """
    batch, _, frames, height, width = latents_BCFHW.shape
    kept = tuple(bool(wanted) and frames > 1 for wanted in conditioned)
    # Made in main memory and sent: to choose by a mask on a device, its answer would have to be waited for.
    sigma_B = torch.tensor(sigmas, dtype=torch.float32)
    sigma_BF = sigma_B[:, None].repeat(1, frames)
    sigma_BF[torch.tensor(kept), 0] = 0.0
    sigma_B, sigma_BF = sent([sigma_B, sigma_BF], latents_BCFHW.device)
    level = sigma_BF[:, None, :, None, None]
    noisy_BCFHW = (1.0 - level) * latents_BCFHW + level * noise_BCFHW
    sigma_BS = sigma_BF[:, :, None].expand(batch, frames, height * width).flatten(1)
    return Noised(noisy_BCFHW, noise_BCFHW - latents_BCFHW, sigma_BS if any(kept) else sigma_B, kept)


def velocity_loss(velocity_BCFHW: torch.Tensor, noised: Noised) -> torch.Tensor:
    """Mean squared error of each sample, [B] in float32. A clean first frame is outside the loss."""
    errors_BCFHW = (velocity_BCFHW - noised.target_BCFHW.float()) ** 2
    if not any(noised.conditioned):
        return errors_BCFHW.mean(dim=(1, 2, 3, 4))
    whole_B = errors_BCFHW.mean(dim=(1, 2, 3, 4))
    without_first_B = errors_BCFHW[:, :, 1:].mean(dim=(1, 2, 3, 4))
    (conditioned_B,) = sent([torch.tensor(noised.conditioned)], whole_B.device)
    return torch.where(conditioned_B, without_first_B, whole_B)


def refuse_non_finite(step: int, what: str, value: float, clips: str) -> None:
    """Raise ``LtxtrainError`` for NaN or infinity, before anything is updated with it."""
    if math.isfinite(value):
        return
    raise LtxtrainError(
        f"the {what} of step {step} is {value}: stopped before the update, no weight has changed (last batch: {clips})",
        hint="lower learning_rate, or look at these clips; the next start goes on from the last checkpoint",
    )
