"""Captions to prompt embeddings, exactly as ``LTXPipeline`` makes them.

Shape legend: B batch, L text tokens (128), D width of the text encoder.
"""

from __future__ import annotations

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


@torch.no_grad()
def encode_prompt(pipeline: LTXPipeline, prompt: str) -> PromptEmbedding:
    """Encode one prompt: padded or cut to 128 tokens, no mask into T5, the mask kept for the transformer.

    One prompt at a time, so that a result never depends on which others were encoded with it.
    """
    embeds_BLD, mask_BL, _, _ = pipeline.encode_prompt(
        prompt=[prompt], do_classifier_free_guidance=False, max_sequence_length=MAX_TOKENS
    )
    tokens = len(pipeline.tokenizer(prompt).input_ids)
    return PromptEmbedding(embeds_BLD[0].cpu().contiguous(), mask_BL[0].bool().cpu(), tokens)
