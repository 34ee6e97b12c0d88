"""Operations of a step, against torch's own counter over the real class without weights."""

from __future__ import annotations

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from peft import LoraConfig
from torch.utils.flop_counter import FlopCounterMode

from ltxtrain.facts.models import KNOWN_MODELS, TransformerFacts, _transformer
from ltxtrain.model.transformer import facts_of
from ltxtrain.plan.flops import Trained, sample_flops
from ltxtrain.plan.records import Bucket
from ltxtrain.plan.targets import DEFAULT_TARGETS

LTX_2B = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"].transformer
LORA = Trained(16, DEFAULT_TARGETS)


def without_weights(facts: TransformerFacts, head_dim: int) -> LTXVideoTransformer3DModel:
    with torch.device("meta"):
        return LTXVideoTransformer3DModel(
            num_attention_heads=facts.width // head_dim,
            attention_head_dim=head_dim,
            cross_attention_dim=facts.cross_width,
            num_layers=facts.layers,
            caption_channels=facts.caption_channels,
        )


def counted(
    transformer: LTXVideoTransformer3DModel, bucket: Bucket, trained: Trained, *, checkpointing: bool
) -> tuple[int, int]:
    """Forward, and forward and backward together, as torch counts them operation by operation."""
    if trained.rank:
        transformer.requires_grad_(False)
        with torch.device("meta"):
            transformer.add_adapter(LoraConfig(r=trained.rank, target_modules=list(trained.targets)))
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.train()
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        velocity = transformer(
            hidden_states=torch.empty(1, bucket.tokens, 128),
            encoder_hidden_states=torch.empty(1, 128, transformer.config.caption_channels),
            timestep=torch.empty(1),
            encoder_attention_mask=torch.ones(1, 128),
            num_frames=bucket.latent_frames,
            height=bucket.latent_height,
            width=bucket.latent_width,
            return_dict=False,
        )[0]
        forward = counter.get_total_flops()
        velocity.sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize(
    ("trained", "checkpointing"),
    [
        (LORA, False),
        (LORA, True),
        (Trained(0), False),
        (Trained(0), True),
        (Trained(4, ("attn1.to_q",)), False),
        (Trained(4, ("transformer_blocks.1.ff.net.2",)), False),
        (Trained(4, ("transformer_blocks.1.attn2.to_k", "caption_projection.linear_1")), False),
        (Trained(4, ("time_embed.linear",)), False),
        (Trained(4, ("proj_in", "proj_out")), False),
    ],
)
def test_they_are_those_that_torch_counts(trained: Trained, checkpointing: bool) -> None:
    facts = KNOWN_MODELS["ltxtrain/tiny"].transformer
    bucket = Bucket(96, 64, 17)
    forward, whole = counted(without_weights(facts, 32), bucket, trained, checkpointing=checkpointing)
    mine = sample_flops(facts, bucket.tokens, trained)
    assert mine.forward == forward
    assert mine.useful + checkpointing * facts.layers * mine.block == whole


@pytest.mark.parametrize(
    ("bucket", "forward", "whole"),
    [(Bucket(480, 480, 49), 5.90, 12.34), (Bucket(768, 512, 49), 10.70, 23.07), (Bucket(768, 512, 121), 29.25, 67.25)],
)
def test_of_ltx_video_2b_they_are_as_published(bucket: Bucket, forward: float, whole: float) -> None:
    mine = sample_flops(LTX_2B, bucket.tokens, LORA)
    assert (round(mine.forward / 1e12, 2), round(mine.useful / 1e12, 2)) == (forward, whole)


def test_at_the_real_width_torch_counts_the_same() -> None:
    bucket = Bucket(768, 512, 49)
    two_blocks = _transformer(layers=2, width=2048, caption_channels=4096)
    transformer = without_weights(two_blocks, 64)
    assert facts_of(transformer) == two_blocks
    forward, whole = counted(transformer, bucket, LORA, checkpointing=False)
    mine = sample_flops(two_blocks, bucket.tokens, LORA)
    assert (mine.forward, mine.useful) == (forward, whole)
