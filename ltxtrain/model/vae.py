"""Frames to latents and back.

Shape legend: B batch, C channels, F frames, H W height and width (pixels or latents, as the name says).
The range is a contract: the VAE was trained on pixels in [-1, 1], and nothing downstream would notice another one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline

from ltxtrain.plan.memory import GROUP_FRAMES, GROUP_STRIDE, TILE

TILE_OVERLAP = 64


def to_pixels(frames_FHWC: np.ndarray) -> torch.Tensor:
    """uint8 frames to ``pixels_BCFHW`` float32 in [-1, 1], B = 1."""
    pixels_FHWC = torch.from_numpy(frames_FHWC).to(torch.float32) / 127.5 - 1.0
    return pixels_FHWC.permute(3, 0, 1, 2).unsqueeze(0)


def set_pieces(vae: AutoencoderKLLTXVideo, *, tiled: bool, framewise: bool) -> None:
    """Set every flag that changes what the VAE computes, whatever it was left with.

    ``framewise`` is in groups of frames. In diffusers the flag for decoding switches encoding as well, and the one for
    encoding does nothing; so there is one for both here.
    """
    vae.use_framewise_encoding = vae.use_framewise_decoding = framewise
    vae.tile_sample_min_num_frames, vae.tile_sample_stride_num_frames = GROUP_FRAMES - 1, GROUP_STRIDE
    vae.use_slicing = False
    vae.use_tiling = tiled
    vae.tile_sample_min_height = vae.tile_sample_min_width = TILE
    vae.tile_sample_stride_height = vae.tile_sample_stride_width = TILE - TILE_OVERLAP


@torch.no_grad()
def encode_clips(
    vae: AutoencoderKLLTXVideo, clips: Sequence[np.ndarray], *, tiled: bool, framewise: bool = False
) -> list[torch.Tensor]:
    """Clips of one size, each uint8 [F, H, W, 3], in one pass to normalised ``latents_CFHW`` each.

    The posterior's mode, normalised with the VAE's own mean and standard deviation. F must be 8k+1 and H, W multiples
    of 32: the VAE would floor other sizes silently, so they are a ``ValueError`` here. What is computed for a clip
    differs in its last bits with the number of clips beside it.
    """
    frames, height, width, _ = clips[0].shape
    if frames % 8 != 1 or height % 32 or width % 32:
        raise ValueError(f"{frames} frames of {width}x{height}: want 8k+1 frames and multiples of 32 pixels")
    set_pieces(vae, tiled=tiled, framewise=framewise)
    pixels_BCFHW = torch.cat([to_pixels(frames_FHWC) for frames_FHWC in clips]).to(device=vae.device, dtype=vae.dtype)
    latents_BCFHW = vae.encode(pixels_BCFHW).latent_dist.mode().float()
    normalised_BCFHW = LTXPipeline._normalize_latents(
        latents_BCFHW, vae.latents_mean.float(), vae.latents_std.float(), vae.config.scaling_factor
    )
    kept_BCFHW = normalised_BCFHW.to(dtype=vae.dtype, device="cpu")
    return [latents_CFHW.clone().contiguous() for latents_CFHW in kept_BCFHW]
