"""Videos from the transformer as it stands, through diffusers' ``LTXPipeline`` and cached prompt embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel

from ltxtrain.config.data import CacheConfig
from ltxtrain.config.validation import ValidationConfig
from ltxtrain.model.text import PromptEmbedding
from ltxtrain.model.vae import set_pieces
from ltxtrain.plan.memory import in_groups, in_tiles
from ltxtrain.plan.prompts import ValidationVideo
from ltxtrain.plan.records import Bucket


@dataclass(frozen=True)
class RenderSettings:
    """Documented validation settings. Sizes are pixels, multiples of 32; ``frames`` is 8k+1."""

    width: int
    height: int
    frames: int
    framerate: float
    inference_steps: int
    guidance: float
    guidance_rescale: float
    seed: int
    tiled: bool = False
    framewise: bool = False

    @classmethod
    def of(cls, video: ValidationVideo, section: ValidationConfig, framerate: float, cache: CacheConfig) -> Self:
        shape = Bucket(video.width, video.height, video.frames)
        return cls(
            width=video.width,
            height=video.height,
            frames=video.frames,
            framerate=framerate,
            inference_steps=section.validation_num_inference_steps,
            guidance=section.validation_guidance,
            guidance_rescale=section.validation_guidance_rescale,
            seed=video.seed,
            tiled=in_tiles(shape, cache.vae_enable_tiling),
            framewise=in_groups(shape, cache.vae_enable_framewise_encoding),
        )


def make_render_pipeline(
    transformer: LTXVideoTransformer3DModel, vae: AutoencoderKLLTXVideo, scheduler: FlowMatchEulerDiscreteScheduler
) -> LTXPipeline:
    pipeline = LTXPipeline(scheduler=scheduler, vae=vae, text_encoder=None, tokenizer=None, transformer=transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def render_video(
    pipeline: LTXPipeline,
    prompt: PromptEmbedding,
    negative: PromptEmbedding,
    settings: RenderSettings,
    should_stop: Callable[[], bool] = lambda: False,
) -> np.ndarray | None:
    """uint8 frames [F, H, W, 3], or None when ``should_stop`` said so between two denoising steps.

    The noise comes from a CPU generator of ``settings.seed``: the same on every device. The transformer is left in the
    mode, training or evaluation, that it was in. Raises ``ValueError`` for a number of frames that is not 8k+1.
    """
    if settings.frames % 8 != 1:
        raise ValueError(f"{settings.frames} frames: want 8k+1, the pipeline would floor it silently")
    set_pieces(pipeline.vae, tiled=settings.tiled, framewise=settings.framewise)
    transformer = pipeline.transformer

    def batch(embedding: PromptEmbedding) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            embedding.embeds_LD[None].to(transformer.device, transformer.dtype),
            embedding.mask_L[None].to(transformer.device),
        )

    def after_step(pipe: LTXPipeline, step: int, timestep: torch.Tensor, tensors: dict[str, Any]) -> dict[str, Any]:
        if should_stop():
            raise _StopRendering
        return tensors

    embeds_BLD, mask_BL = batch(prompt)
    negative_BLD, negative_mask_BL = batch(negative)
    # No autocast: the adapter casts its own input, and the VAE keeps the dtype that it was loaded with.
    with suppress(_StopRendering), _evaluating(transformer):
        video_BFHWC = pipeline(
            prompt_embeds=embeds_BLD,
            prompt_attention_mask=mask_BL,
            negative_prompt_embeds=negative_BLD,
            negative_prompt_attention_mask=negative_mask_BL,
            width=settings.width,
            height=settings.height,
            num_frames=settings.frames,
            frame_rate=settings.framerate,
            num_inference_steps=settings.inference_steps,
            guidance_scale=settings.guidance,
            guidance_rescale=settings.guidance_rescale,
            generator=torch.Generator("cpu").manual_seed(settings.seed),
            output_type="np",
            callback_on_step_end=after_step,
        ).frames
        return to_frames(video_BFHWC[0])
    return None


def to_frames(video_FHWC: np.ndarray) -> np.ndarray:
    """The pipeline's floats in [0, 1] to uint8 frames."""
    return (np.asarray(video_FHWC) * 255.0).round().clip(0, 255).astype(np.uint8)


@contextmanager
def _evaluating(module: torch.nn.Module) -> Iterator[None]:
    was_training = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(was_training)


class _StopRendering(Exception):
    """Leaves the pipeline's loop early; never seen outside this module."""
