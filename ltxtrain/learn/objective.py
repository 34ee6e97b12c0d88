"""The flow-matching objective: noisy latents, velocity target, first-frame conditioning, loss.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, S = F*H*W tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ltxtrain.errors import LtxtrainError


@dataclass(frozen=True)
class Noised:
    """What the model sees and what it should answer.

    ``sigma`` is [B] when all tokens of a sample share one level, else [B, S]. ``conditioned_B`` is true for samples
    whose first latent frame is given clean, None where there is none.
    """

    noisy_BCFHW: torch.Tensor
    target_BCFHW: torch.Tensor
    sigma: torch.Tensor
    conditioned_B: torch.Tensor | None


def levels_of(
    sigmas: Sequence[float], conditioned: Sequence[bool], frames: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The noise level of each latent frame, [B, F], and which samples are conditioned, [B]; None where none is.

    A conditioned sample keeps its first latent frame clean, which has sigma 0. A sample of one latent frame is never
    conditioned: nothing of it would be left to learn. Both are made in main memory, to be sent: to choose by a mask on
    a device, its answer would have to be waited for.
    """
    clean = [bool(wanted) and frames > 1 for wanted in conditioned]
    rows = [
        [0.0, *[sigma] * (frames - 1)] if first else [sigma] * frames
        for sigma, first in zip(sigmas, clean, strict=True)
    ]
    return torch.tensor(rows, dtype=torch.float32), torch.tensor(clean) if any(clean) else None


def add_noise(
    latents_BCFHW: torch.Tensor,
    noise_BCFHW: torch.Tensor,
    sigma_BF: torch.Tensor,
    conditioned_B: torch.Tensor | None,
) -> Noised:
    """``x = (1 - sigma) x0 + sigma e`` with target velocity ``e - x0``, at the levels that ``levels_of`` gives."""
    _, _, _, height, width = latents_BCFHW.shape
    level = sigma_BF[:, None, :, None, None]
    noisy_BCFHW = (1.0 - level) * latents_BCFHW + level * noise_BCFHW
    sigma = sigma_BF[:, 0]
    if conditioned_B is not None:
        sigma = sigma_BF[:, :, None].expand(*sigma_BF.shape, height * width).flatten(1)
    return Noised(noisy_BCFHW, noise_BCFHW - latents_BCFHW, sigma, conditioned_B)


def velocity_loss(velocity_BCFHW: torch.Tensor, noised: Noised) -> torch.Tensor:
    """Mean squared error of each sample, [B] in float32. A clean first frame is outside the loss."""
    errors_BCFHW = (velocity_BCFHW - noised.target_BCFHW.float()) ** 2
    whole_B = errors_BCFHW.mean(dim=(1, 2, 3, 4))
    if noised.conditioned_B is None:
        return whole_B
    return torch.where(noised.conditioned_B, errors_BCFHW[:, :, 1:].mean(dim=(1, 2, 3, 4)), whole_B)


def refuse_non_finite(step: int, what: str, value: float, clips: str) -> None:
    """Raise ``LtxtrainError`` for NaN or infinity, before anything that it has touched is saved.

    The clips may be the cause, or the update before this step, after which nothing looks at the weights themselves.
    """
    if math.isfinite(value):
        return
    raise LtxtrainError(
        f"the {what} of step {step} is {value}: stopped, and nothing of this step is saved (clips: {clips})",
        hint="lower learning_rate, or look at optimizer_config and at these clips; "
        "the next start goes on from the last checkpoint",
    )
