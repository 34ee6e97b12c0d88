"""The sizes behind the estimate: weights of the releases in each format, and what the VAE and the text encoder hold.

Everything has the releases' real sizes and no values: the meta device for weights, torch's fake mode for passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from torch._subclasses import FakeTensorMode
from transformers import T5Config, T5EncoderModel

from ltxtrain.config.formats import WORKING, is_quantised_layer
from ltxtrain.facts.models import KNOWN_MODELS, ModelFacts, TextFacts, block_layers
from ltxtrain.model.formats import quantised_linear
from ltxtrain.model.vae import set_pieces
from ltxtrain.plan.memory import Offload, TrainingSetup
from ltxtrain.plan.memory.phases import text_lines, validation_lines
from ltxtrain.plan.memory.pixels import decode_peak, encode_peak
from ltxtrain.plan.memory.weights import block_params, resident_bytes, text_bytes, transformer_bytes
from ltxtrain.plan.records import Bucket
from tests.allocations import Allocations, held_bytes
from tests.plan.test_memory_measured import LTX_2B, make_transformer, without_values

GIB = 1024**3
MODEL = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"]
LARGE = KNOWN_MODELS["Lightricks/LTX-Video-0.9.7-dev"]
SETUP = TrainingSetup(16, ("to_q",), 2, 2, 1, True, False, "cpu", None)
SIZES = {MODEL.name: LTX_2B, LARGE.name: {"heads": 32, "head_dim": 128, "layers": 48, "text": 4096}}


def on_meta(make: Callable[[], Any]) -> Any:
    with torch.device("meta"):
        return make()


def t5_xxl() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
            feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip


def vae_095(dtype: torch.dtype, *, whole: bool) -> AutoencoderKLLTXVideo:
    """The release's VAE, or one of its widths with two layers in each block, which takes as much at a time."""
    vae = AutoencoderKLLTXVideo(
        block_out_channels=(128, 256, 512, 1024, 2048),
        down_block_types=("LTXVideo095DownBlock3D",) * 4,
        layers_per_block=(4, 6, 6, 2, 2) if whole else (2,) * 5,
        spatio_temporal_scaling=(True,) * 4,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        decoder_block_out_channels=(256, 512, 1024),
        decoder_layers_per_block=(5, 5, 5, 5) if whole else (2,) * 4,
        decoder_spatio_temporal_scaling=(True,) * 3,
        decoder_inject_noise=(False,) * 4,
        upsample_residual=(True,) * 3,
        upsample_factor=(2,) * 3,
        timestep_conditioning=True,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    return vae.to(dtype).eval()


@pytest.mark.parametrize("model", [MODEL, LARGE], ids=lambda model: model.name)
def test_the_transformers_layers_and_bytes_are_the_real_ones(model: ModelFacts) -> None:
    real: LTXVideoTransformer3DModel = on_meta(lambda: make_transformer(SIZES[model.name], torch.bfloat16))
    assert sum(each.numel() for each in real.parameters()) == model.transformer.params
    assert held_bytes(real) == transformer_bytes(model.transformer, SETUP)
    assert sum(each.numel() for each in real.transformer_blocks[0].parameters()) == block_params(model.transformer)
    inside = [each for name, each in real.named_modules() if is_quantised_layer("transformer", name)]
    assert sum(block_layers(model.transformer).values()) == len(inside)
    values = sum(prod(shape) * count for shape, count in block_layers(model.transformer).items())
    assert values == sum(each.weight.numel() for each in inside)


def test_published_sizes_of_formats() -> None:
    """stated elsewhere in GiB: int8 1.83 and 12.29, nf4 with double quantisation 0.99 and 6.48."""
    for precision, small, large in (("int8-torchao", 1.83, 12.29), ("nf4-bnb", 0.985, 6.48)):
        setup = replace(SETUP, precision=precision)
        assert transformer_bytes(MODEL.transformer, setup) / GIB == pytest.approx(small, rel=0.01)
        assert transformer_bytes(LARGE.transformer, setup) / GIB == pytest.approx(large, rel=0.01)


def test_t5_xxl_has_these_layers_and_is_a_quarter_in_nf4() -> None:
    encoder = on_meta(t5_xxl)
    inside = [each for name, each in encoder.named_modules() if is_quantised_layer("text_encoder", name)]
    assert sum(MODEL.text.linear_layers().values()) == len(inside)
    assert MODEL.text_params == sum(each.numel() for each in encoder.parameters())
    assert text_bytes(MODEL, SETUP) == 2 * MODEL.text_params
    assert 2.3 * GIB < text_bytes(MODEL, replace(SETUP, text_precision="nf4-bnb")) < 2.6 * GIB
    wo = sum(each.weight.numel() for name, each in encoder.named_modules() if name.endswith(".wo"))
    assert text_bytes(MODEL, replace(SETUP, text_half=True)) - 2 * MODEL.text_params == 2 * wo


@pytest.mark.parametrize("name", [name for name in WORKING if name != "no_change"])
def test_a_layer_takes_the_bytes_that_its_format_says(name: str) -> None:
    linear = torch.nn.Linear(512, 256, bias=False)
    known = TextFacts(layers=1, width=512, inner=512, feed_forward=512)
    model = replace(MODEL, text=known, text_params=7 * 512 * 512)
    told = text_bytes(model, replace(SETUP, text_precision=name))
    whole = torch.nn.Linear(512, 512, bias=False)
    assert told == 7 * held_bytes(quantised_linear(whole, name, torch.bfloat16))
    assert held_bytes(quantised_linear(linear, name, torch.bfloat16)) < 512 * 256 * 1.1


def counted_pass(vae: AutoencoderKLLTXVideo, clip: Bucket, *, tiled: bool, framewise: bool, decodes: bool) -> int:
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        without_values(vae)
        set_pieces(vae, tiled=tiled, framewise=framewise)
        kind = {"dtype": vae.dtype}
        if decodes:
            given = torch.zeros(1, 128, clip.latent_frames, clip.latent_height, clip.latent_width, **kind)  # type: ignore[arg-type]
        else:
            given = torch.zeros(1, 3, clip.frames, clip.height, clip.width, **kind)  # type: ignore[arg-type]
        with Allocations(vae, *([] if decodes else [given])) as counted:
            weights = held_bytes(vae)
            if decodes:
                vae.decode(given, torch.zeros(1, **kind), return_dict=False)  # type: ignore[arg-type]
            else:
                vae.encode(given).latent_dist.mode()
    return counted.peak - weights


@pytest.mark.parametrize(
    ("clip", "tiled", "framewise"),
    [
        (Bucket(480, 480, 49), False, False),
        (Bucket(768, 256, 25), True, False),
        (Bucket(256, 256, 41), False, True),
        (Bucket(544, 256, 25), True, True),
    ],
    ids=str,
)
def test_the_vae_takes_what_was_said(clip: Bucket, tiled: bool, framewise: bool) -> None:
    for dtype, size in ((torch.bfloat16, 2), (torch.float32, 4)):
        if size == 4 and framewise:
            continue
        vae = on_meta(lambda dtype=dtype: vae_095(dtype, whole=not tiled and not framewise))
        encoding = counted_pass(vae, clip, tiled=tiled, framewise=framewise, decodes=False)
        told = encode_peak(clip, MODEL.vae.encoder_width, size, tiled=tiled, framewise=framewise)
        assert told == pytest.approx(encoding, rel=0.1)
        decoding = counted_pass(vae, clip, tiled=tiled, framewise=framewise, decodes=True)
        told = decode_peak(clip, MODEL.vae.decoder_width, size, tiled=tiled, framewise=framewise)
        assert told == pytest.approx(decoding, rel=0.1)


@pytest.mark.parametrize("texts", [1, 4])
def test_the_text_encoder_takes_what_was_said(texts: int) -> None:
    encoder = on_meta(lambda: t5_xxl().to(torch.bfloat16).eval())
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        without_values(encoder)
        encoder.encoder.embed_tokens.weight = encoder.shared.weight
        ids = torch.zeros(texts, 128, dtype=torch.long)
        with Allocations(encoder) as counted:
            encoder(ids)
    told = sum(size for _, size in text_lines(MODEL, replace(SETUP, texts=texts)))
    assert told == pytest.approx(counted.peak, rel=0.02)


def test_offload_leaves_a_few_blocks_on_the_device() -> None:
    whole = resident_bytes(MODEL.transformer, SETUP)
    block = 2 * block_params(MODEL.transformer)
    one, ahead, swapped, leaves = (
        resident_bytes(MODEL.transformer, replace(SETUP, offload=offload))
        for offload in (
            Offload(group=1),
            Offload(group=2, ahead=True),
            Offload(swapped=7),
            Offload(group=1, leaves=True),
        )
    )
    assert whole - one == 27 * block and whole - ahead == 24 * block and whole - swapped == 6 * block
    assert leaves < one


def test_models_that_take_turns_are_never_together() -> None:
    clip = Bucket(768, 512, 121)
    together = sum(size for _, size in validation_lines(MODEL, clip, SETUP))
    lines = dict(validation_lines(MODEL, clip, replace(SETUP, offload=Offload(models=True))))
    assert not {"transformer weights", "weights of the VAE's decoder"} <= lines.keys()
    assert sum(lines.values()) < together - 2 * (MODEL.vae.params - MODEL.vae.encoder_params) + 1
