"""A complete LTX-Video pipeline with random weights, built in code and written as an ordinary diffusers folder.

The classes are the real ones (transformer, timestep-conditioned 0.9.5 VAE, T5 encoder, a tokenizer trained on the
spot), only small; so what runs on it runs on ``Lightricks/LTX-Video-0.9.5``. One seed gives the same bytes each time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from uuid import uuid4

import sentencepiece
import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from safetensors import SafetensorError
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from ltxtrain.facts.digests import sha256_of
from ltxtrain.files import room_at, system_error

LATENT_CHANNELS = 128
TINY_BYTES = 10 * 1024**2
# The tokenizer learns its pieces from these words; any other text falls back to single letters.
CORPUS = (
    "a red square moves to the right on a dark background",
    "a blue circle falls from the top to the bottom of a grey frame",
    "a green triangle rises slowly while a yellow bar stands still",
    "a white ball bounces from left to right over a black floor",
    "a man in a bright office signs a word with both hands before a blue whiteboard",
    "a woman stands near a window and lifts her fingers up to her forehead",
    "worst quality, inconsistent motion, blurry, jittery, distorted",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?'-()",
)


@dataclass(frozen=True)
class TinySpec:
    """Sizes of a small pipeline. The defaults are the built-in ``ltxtrain/tiny`` (2 M parameters, 8 MB)."""

    layers: int = 2
    heads: int = 4
    head_dim: int = 32
    text_dim: int = 32
    text_layers: int = 2
    encoder_channels: tuple[int, ...] = (8, 16, 32, 64, 64)
    encoder_layers: tuple[int, ...] = (1, 1, 1, 1, 1)
    decoder_channels: tuple[int, ...] = (8, 16, 32)
    decoder_layers: tuple[int, ...] = (1, 1, 1, 1)
    seed: int = 0

    @property
    def key(self) -> str:
        return sha256_of("tiny-2", asdict(self))[:12]


def tiny_folder(models: Path, spec: TinySpec | None = None) -> Path:
    """The folder of the tiny pipeline under ``models``, built there on first use."""
    spec = spec or TinySpec()

    def write(unfinished: Path) -> None:
        _save(build_pipeline(spec), unfinished)

    return built_folder(models / f"tiny-{spec.key}", write, "the tiny model")


def built_folder(folder: Path, write: Callable[[Path], None], what: str) -> Path:
    """``folder``, the model ``what`` as ``write`` puts it down, made on first use: whole or not at all."""
    if not (folder / "model_index.json").exists():
        with room_at(folder.parent, TINY_BYTES, what):
            _build(folder, write)
    return folder


def _build(folder: Path, write: Callable[[Path], None]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}-{uuid4().hex[:8]}.tmp")
    try:
        write(unfinished)
        # safetensors writes its files for this user alone; the others have the mode that the umask gives.
        mode = (unfinished / "model_index.json").stat().st_mode
        for weights in unfinished.glob("*/*.safetensors"):
            weights.chmod(mode)
        os.rename(unfinished, folder)
    except OSError:
        if not (folder / "model_index.json").exists():  # another process may have been faster
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _save(pipeline: LTXPipeline, folder: Path) -> None:
    """Raises ``OSError`` for what the system refuses, also where a library in Rust tells it as an error of its own."""
    try:
        pipeline.save_pretrained(folder)
    except SafetensorError as error:
        if found := system_error(error):
            raise OSError(found.errno, found.strerror, str(folder)) from error
        raise


def build_pipeline(spec: TinySpec) -> LTXPipeline:
    """Build all components from ``spec.seed``; the caller's random state is left as it was."""
    tokenizer = make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed, which seeds every GPU as well: fork_rng would not put that back.
        torch.default_generator.manual_seed(spec.seed)
        transformer = LTXVideoTransformer3DModel(
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            num_attention_heads=spec.heads,
            attention_head_dim=spec.head_dim,
            cross_attention_dim=spec.heads * spec.head_dim,
            num_layers=spec.layers,
            caption_channels=spec.text_dim,
        )
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=spec.text_dim,
                d_kv=8,
                d_ff=2 * spec.text_dim,
                num_layers=spec.text_layers,
                num_heads=4,
                feed_forward_proj="gated-gelu",
            )
        )
        vae = make_vae(spec.encoder_channels, spec.encoder_layers, spec.decoder_channels, spec.decoder_layers)
        # Measured on the made clips: with these, normalised latents have about unit variance, as with the released
        # weights.
        vae.latents_mean.normal_(0.0, 0.02)
        vae.latents_std.uniform_(0.2, 0.26)
    return LTXPipeline(
        scheduler=make_scheduler(),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer,
    )


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True,
        base_shift=0.95,
        max_shift=2.05,
        base_image_seq_len=1024,
        max_image_seq_len=4096,
        shift_terminal=0.1,
    )


def make_vae(
    encoder_channels: tuple[int, ...],
    encoder_layers: tuple[int, ...],
    decoder_channels: tuple[int, ...],
    decoder_layers: tuple[int, ...],
) -> AutoencoderKLLTXVideo:
    """A VAE of the 0.9.5 layout, with the class's own random weights."""
    depth = len(encoder_channels) - 1
    ups = len(decoder_channels)
    return AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=encoder_channels,
        down_block_types=("LTXVideo095DownBlock3D",) * depth,
        layers_per_block=encoder_layers,
        spatio_temporal_scaling=(True,) * depth,
        downsample_type=("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
        decoder_block_out_channels=decoder_channels,
        decoder_layers_per_block=decoder_layers,
        decoder_spatio_temporal_scaling=(True,) * ups,
        decoder_inject_noise=(False,) * (ups + 1),
        upsample_residual=(True,) * ups,
        upsample_factor=(2,) * ups,
        timestep_conditioning=True,
        # Said out loud: the class computes other ratios for this layout when they are left out.
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )


def make_tokenizer() -> T5Tokenizer:
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 8),
        model_writer=model,
        model_type="unigram",
        vocab_size=160,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
    )
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    vocabulary = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
    vocabulary += [(f"<extra_id_{i}>", 0.0) for i in range(99, -1, -1)]
    return T5Tokenizer(vocab=vocabulary, model_max_length=128)
