from __future__ import annotations

import pytest
import torch
from diffusers import LTXPipeline

from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_text_encoder
from ltxtrain.model.text import MAX_TOKENS, encode_prompt, make_text_pipeline
from ltxtrain.model.tiny import TinySpec

SHORT = "a red square moves to the right"
LONG = "a blue circle falls from the top to the bottom of a grey frame. " * 10


@pytest.fixture(scope="module")
def text_pipeline(tiny: ModelFolder) -> LTXPipeline:
    return make_text_pipeline(*load_text_encoder(tiny, Loading(torch.float32)))


@pytest.mark.parametrize("prompt", [SHORT, "", LONG, "Ä 红色方块 🎬\n\ttwo  spaces", SHORT.upper()])
def test_a_prompt_is_encoded_bit_for_bit_as_by_the_whole_pipeline(
    text_pipeline: LTXPipeline, whole_pipeline: LTXPipeline, prompt: str
) -> None:
    with torch.no_grad():
        embeds_BLD, mask_BL, _, _ = whole_pipeline.encode_prompt(prompt, do_classifier_free_guidance=False)
    mine = encode_prompt(text_pipeline, prompt)
    assert torch.equal(mine.embeds_LD, embeds_BLD[0])
    assert torch.equal(mine.mask_L, mask_BL[0].bool())


def test_there_are_128_tokens_and_the_mask_is_true_at_real_ones(text_pipeline: LTXPipeline) -> None:
    embedding = encode_prompt(text_pipeline, SHORT)
    assert embedding.embeds_LD.shape == (128, TinySpec().text_dim)
    assert embedding.mask_L.dtype == torch.bool
    count = len(text_pipeline.tokenizer(SHORT).input_ids)
    assert embedding.tokens == count < MAX_TOKENS
    assert embedding.mask_L.tolist() == [True] * count + [False] * (128 - count)


def test_the_encoder_sees_no_mask(text_pipeline: LTXPipeline) -> None:
    ids_BL = text_pipeline.tokenizer([SHORT], padding="max_length", max_length=128, return_tensors="pt").input_ids
    embedding = encode_prompt(text_pipeline, SHORT)
    with torch.no_grad():
        unmasked_BLD = text_pipeline.text_encoder(ids_BL)[0]
        masked_BLD = text_pipeline.text_encoder(ids_BL, attention_mask=embedding.mask_L[None])[0]
    real_L = embedding.mask_L
    assert torch.equal(embedding.embeds_LD, unmasked_BLD[0])
    assert not torch.allclose(embedding.embeds_LD[real_L], masked_BLD[0][real_L], atol=1e-3)


def test_a_long_caption_is_cut_and_its_own_length_is_told(text_pipeline: LTXPipeline) -> None:
    embedding = encode_prompt(text_pipeline, LONG)
    assert embedding.embeds_LD.shape == (128, TinySpec().text_dim)
    assert bool(embedding.mask_L.all())
    assert embedding.tokens == len(text_pipeline.tokenizer(LONG).input_ids) > MAX_TOKENS
