"""The text encoder and the VAE come in groups as well, and models take turns on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ltxtrain.config.compute import MemoryConfig
from ltxtrain.model.folder import ModelFolder, load_scheduler
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.offload import Offload, place_text_encoder, place_transformer, place_vae, taking_turns
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import PromptEmbedding, encode_prompt, make_text_pipeline
from ltxtrain.model.vae import encode_clips

CPU = torch.device("cpu")
FLOAT = Loading(torch.float32)
FRAMES_FHWC = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
LEVELS: list[dict[str, Any]] = [{}, {"group_offload_blocks_per_group": 2}, {"group_offload_type": "leaf_level"}]


def most_there(offload: Offload, module: torch.nn.Module) -> list[int]:
    """Collects what the groups have on the device, whenever a part of ``module`` computes."""
    seen: list[int] = []
    for part in module.modules():
        if not list(part.children()):
            part.register_forward_pre_hook(lambda *_: seen.append(offload.resident_bytes))
    return seen


@pytest.mark.parametrize(
    ("base", "level"), [*(("no_change", level) for level in LEVELS), ("nf4-bnb", LEVELS[1])], ids=str
)
def test_the_text_encoder_in_groups_gives_the_same_embeddings(
    tiny: ModelFolder, base: str, level: dict[str, Any]
) -> None:
    def embedded(memory: MemoryConfig) -> tuple[PromptEmbedding, Offload, list[int]]:
        encoder, tokenizer = load_text_encoder(tiny, Loading(torch.float32, format=base))
        offload = place_text_encoder(encoder, CPU, memory)
        seen = most_there(offload, encoder)
        return encode_prompt(make_text_pipeline(encoder, tokenizer), "a red square"), offload, seen

    plain, whole, _ = embedded(MemoryConfig(enable_group_offload=True, **level))
    assert not whole.groups  # only when it is asked for
    mine, offload, seen = embedded(MemoryConfig(enable_group_offload=True, group_offload_text_encoder=True, **level))
    assert torch.equal(mine.embeds_LD, plain.embeds_LD) and torch.equal(mine.mask_L, plain.mask_L)
    assert 0 < max(seen) == max(group.size for group in offload.groups)


@pytest.mark.parametrize("level", LEVELS, ids=str)
def test_the_vae_in_groups_gives_the_same_latents_and_pixels(tiny: ModelFolder, level: dict[str, Any]) -> None:
    def both_ways(memory: MemoryConfig) -> tuple[torch.Tensor, torch.Tensor, Offload, list[int]]:
        vae = load_vae(tiny, FLOAT)
        offload = place_vae(vae, CPU, memory)
        seen = most_there(offload, vae)
        latents_CFHW = encode_clips(vae, [FRAMES_FHWC], tiled=False)[0]
        with torch.no_grad():
            return latents_CFHW, vae.decode(latents_CFHW[None], torch.zeros(1)).sample, offload, seen

    latents, pixels, whole, _ = both_ways(MemoryConfig(enable_group_offload=True, **level))
    assert not whole.groups
    mine = both_ways(MemoryConfig(enable_group_offload=True, group_offload_vae=True, **level))
    assert torch.equal(mine[0], latents) and torch.equal(mine[1], pixels)
    offload, seen = mine[2:]
    assert 0 < max(seen) == max(group.size for group in offload.groups) < sum(group.size for group in offload.groups)


@pytest.mark.parametrize(
    "options", [{"enable_model_cpu_offload": True}, {"enable_group_offload": True, "group_offload_vae": True}], ids=str
)
def test_models_take_turns_while_a_video_is_rendered(tiny: ModelFolder, options: dict[str, Any]) -> None:
    prompt = PromptEmbedding(torch.randn(128, 32, generator=torch.Generator().manual_seed(1)), torch.arange(128) < 9, 9)
    settings = RenderSettings(64, 64, 9, 25.0, 2, 3.0, 0.0, 0)

    def rendered(memory: MemoryConfig) -> tuple[np.ndarray, list[tuple[int, int]], Offload, Offload]:
        transformer, vae = load_transformer(tiny, FLOAT).requires_grad_(False), load_vae(tiny, FLOAT)
        first, second = place_transformer(transformer, CPU, memory), place_vae(vae, CPU, memory)
        there: list[tuple[int, int]] = []
        for module in (transformer.transformer_blocks[0].attn1.to_q, vae.decoder.mid_block.resnets[0].conv1):
            module.register_forward_pre_hook(lambda *_: there.append((first.resident_bytes, second.resident_bytes)))
        pipeline = make_render_pipeline(transformer, vae, load_scheduler(tiny))
        with taking_turns(first, second):
            frames_FHWC = render_video(pipeline, prompt, prompt, settings)
        assert frames_FHWC is not None
        return frames_FHWC, there, first, second

    plain, there, _, _ = rendered(MemoryConfig())
    assert set(there) == {(0, 0)}
    mine, there, first, second = rendered(MemoryConfig(**options))
    assert np.array_equal(mine, plain)
    *denoising, decoding = there
    assert len(denoising) == 2 and all(one > 0 and other == 0 for one, other in denoising)
    assert decoding[0] == 0 < decoding[1]
    assert second.resident_bytes == 0 and first.others == second.others == []
