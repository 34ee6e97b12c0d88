"""LTX-Video in its real sizes, with random weights: a folder of settings alone, for measuring memory and speed.

Nothing is downloaded, and nothing large is written: each tensor is drawn from a seed and its name where it is to lie,
when the component is loaded. What such a model renders is noise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel

from ltxtrain.facts.digests import sha256_of
from ltxtrain.facts.models import RANDOM_2B, RANDOM_13B
from ltxtrain.model.tiny import LATENT_CHANNELS, built_folder, make_scheduler, make_tokenizer, make_vae
from ltxtrain.model.weights import SEED_FILE

WEIGHTED = ("transformer", "vae", "text_encoder")
# Goes up when other values are drawn from the same seed: what was cached with the old ones is made again.
DRAWING = 1


@dataclass(frozen=True)
class RandomSpec:
    """Sizes of a pipeline. The defaults are those of LTX-Video 2B, of T5-XXL, and of the VAE since 0.9.5."""

    layers: int = 28
    heads: int = 32
    head_dim: int = 64
    text_layers: int = 24
    text_heads: int = 64
    text_width: int = 4096
    text_feed_forward: int = 10240
    vocabulary: int = 32128
    encoder_channels: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    encoder_layers: tuple[int, ...] = (4, 6, 6, 2, 2)
    decoder_channels: tuple[int, ...] = (256, 512, 1024)
    decoder_layers: tuple[int, ...] = (5, 5, 5, 5)
    seed: int = 0

    @property
    def key(self) -> str:
        return sha256_of("random", DRAWING, asdict(self))[:12]


SPECS = {RANDOM_2B: RandomSpec(), RANDOM_13B: RandomSpec(layers=48, head_dim=128)}


def random_folder(models: Path, spec: RandomSpec) -> Path:
    """The folder of a random pipeline under ``models``, made there on first use."""
    return built_folder(models / f"random-{spec.key}", lambda folder: _write(spec, folder), "a model's settings")


def _write(spec: RandomSpec, folder: Path) -> None:
    """Settings in diffusers' layout, and beside those of each component with weights the seed that they come from."""
    pipeline = _skeleton(spec)
    pipeline.save_config(folder)
    for part in ("transformer", "vae"):
        pipeline.components[part].save_config(folder / part)
    for part, component in (
        ("text_encoder", pipeline.text_encoder.config),
        ("tokenizer", pipeline.tokenizer),
        ("scheduler", pipeline.scheduler),
    ):
        component.save_pretrained(folder / part)
    for part in WEIGHTED:
        told = {"seed": spec.seed, "drawing": DRAWING}
        (folder / part / SEED_FILE).write_text(json.dumps(told) + "\n", encoding="utf-8")


def _skeleton(spec: RandomSpec) -> LTXPipeline:
    """The components without values."""
    width = spec.heads * spec.head_dim
    with torch.device("meta"):
        transformer = LTXVideoTransformer3DModel(
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_attention_heads=spec.heads,
            attention_head_dim=spec.head_dim,
            cross_attention_dim=width,
            num_layers=spec.layers,
            caption_channels=spec.text_width,
        )
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=spec.vocabulary,
                d_model=spec.text_width,
                d_kv=spec.text_width // spec.text_heads,
                d_ff=spec.text_feed_forward,
                num_layers=spec.text_layers,
                num_heads=spec.text_heads,
                feed_forward_proj="gated-gelu",
            )
        )
        vae = make_vae(spec.encoder_channels, spec.encoder_layers, spec.decoder_channels, spec.decoder_layers)
    return LTXPipeline(
        scheduler=make_scheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=make_tokenizer(),
        transformer=transformer,
    )
