"""One forward pass of the LTX transformer on latents.

Shape legend: B batch, C latent channels (128), F latent frames, H W latent size, S = F*H*W tokens, L text tokens,
D width.
"""

from __future__ import annotations

import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel

from ltxtrain.facts.models import TransformerFacts, transformer_params

TEMPORAL_RATIO = 8
SPATIAL_RATIO = 32


def predict_velocity(
    transformer: LTXVideoTransformer3DModel,
    noisy_BCFHW: torch.Tensor,
    sigma: torch.Tensor,
    embeds_BLD: torch.Tensor,
    mask_BL: torch.Tensor | None,
    framerate: float,
) -> torch.Tensor:
    """The model's velocity for noisy latents, as [B, C, F, H, W].

    ``mask_BL`` is False at the padding of captions; None, as ``caption_mask`` gives it, where there is none.

    ``sigma`` is [B], or [B, S] where tokens differ (first-frame conditioning). The model is called with timestep
    ``1000 * sigma`` and with the rotary scale of ``LTXPipeline``, (8 / framerate, 32, 32): its time axis is in seconds.
    """
    _, _, frames, height, width = noisy_BCFHW.shape
    tokens_BSC = LTXPipeline._pack_latents(noisy_BCFHW, 1, 1)
    velocity_BSC = transformer(
        hidden_states=tokens_BSC,
        encoder_hidden_states=embeds_BLD,
        timestep=sigma * 1000.0,
        encoder_attention_mask=mask_BL,
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(TEMPORAL_RATIO / framerate, SPATIAL_RATIO, SPATIAL_RATIO),
        return_dict=False,
    )[0]
    return LTXPipeline._unpack_latents(velocity_BSC, frames, height, width, 1, 1)


def caption_mask(mask_BL: torch.Tensor) -> torch.Tensor | None:
    """None where every token is a real one: attention without a mask runs on faster kernels.

    To be asked of a mask in main memory: of one on a device, the answer would have to be waited for.
    """
    return None if bool(mask_BL.all()) else mask_BL


def facts_of(transformer: LTXVideoTransformer3DModel) -> TransformerFacts:
    """The sizes of a transformer that is there, whatever it was loaded from."""
    config = transformer.config
    width = config.num_attention_heads * config.attention_head_dim
    params = transformer_params(
        config.num_layers, width, config.cross_attention_dim, config.caption_channels, config.in_channels
    )
    return TransformerFacts(
        params, config.num_layers, width, config.cross_attention_dim, config.caption_channels, config.in_channels
    )
