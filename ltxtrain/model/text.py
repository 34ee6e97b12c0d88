"""Captions to prompt embeddings, exactly as ``LTXPipeline`` makes them.

Shape legend: B batch, L text tokens (128), D width of the text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import LTXPipeline
from transformers import T5EncoderModel, T5Tokenizer

MAX_TOKENS = 128


@dataclass(frozen=True)
class PromptEmbedding:
    """``embeds_LD`` in the encoder's dtype, ``mask_L`` bool (True at real tokens).

    ``tokens`` is the prompt's own length, end token included: more than 128 means that the prompt was cut.
    """

    embeds_LD: torch.Tensor
    mask_L: torch.Tensor
    tokens: int


def make_text_pipeline(encoder: T5EncoderModel, tokenizer: T5Tokenizer) -> LTXPipeline:
    """A pipeline that holds the text encoder alone. Its ``encode_prompt`` is the definition that we follow."""
    return LTXPipeline(scheduler=None, vae=None, text_encoder=encoder, tokenizer=tokenizer, transformer=None)


def encode_prompt(pipeline: LTXPipeline, prompt: str) -> PromptEmbedding:
    """Encode one prompt: ``encode_prompts`` of one."""
    return encode_prompts(pipeline, [prompt])[0]


@torch.no_grad()
def encode_prompts(pipeline: LTXPipeline, prompts: Sequence[str]) -> list[PromptEmbedding]:
    """Encode prompts in one pass, each padded or cut to 128 tokens: no mask into T5, the mask kept for the transformer.

    Which others are encoded beside a prompt may change the last bits of its result.
    """
    embeds_BLD, mask_BL, _, _ = pipeline.encode_prompt(
        prompt=list(prompts), do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS
    )
    return [
        PromptEmbedding(embeds_LD.cpu().clone(), mask_L.bool().cpu().clone(), len(pipeline.tokenizer(prompt).input_ids))
        for embeds_LD, mask_L, prompt in zip(embeds_BLD, mask_BL, prompts, strict=True)
    ]
