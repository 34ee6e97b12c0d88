"""The models as a run uses them. The transformer is put together in a fixed order:

    load, quantised where that is asked for -> attach adapter -> gradient checkpointing -> place or offload
    -> attention -> compile

Each of these is a plain function of the transformer and its own section of the configuration; here they only meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

from ltxtrain.config.formats import in_float32
from ltxtrain.config.optimizers import adapter_dtype
from ltxtrain.model.adapter import AdapterSpec, attach_adapter, load_exported
from ltxtrain.model.arithmetic import set_tf32
from ltxtrain.model.attention import set_attention
from ltxtrain.model.checkpointing import set_checkpointing
from ltxtrain.model.compiling import compile_blocks
from ltxtrain.model.folder import ModelFolder, load_scheduler
from ltxtrain.model.formats import Quantised
from ltxtrain.model.loading import Half, Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.offload import Offload, loading_device, place_text_encoder, place_transformer, place_vae
from ltxtrain.model.render import make_render_pipeline
from ltxtrain.model.text import make_text_pipeline
from ltxtrain.units import counted, format_bytes

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.config.compute import MemoryConfig, PrecisionConfig


@dataclass(frozen=True)
class Place:
    """Where models are computed, and in which dtype those of training are."""

    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class Trainable:
    """``parameters`` are what is trained, by name; ``told`` is what the user should know of how it was put together."""

    transformer: LTXVideoTransformer3DModel
    parameters: dict[str, torch.nn.Parameter]
    offload: Offload
    told: tuple[str, ...]


def assemble_transformer(model: ModelFolder, config: TrainConfig, place: Place, spec: AdapterSpec) -> Trainable:
    """The transformer with a new adapter of ``spec``, in training mode."""
    transformer, told = _load_base(model, config, place)
    trained = getattr(torch, adapter_dtype(config.optimizer.optimizer))
    parameters = attach_adapter(transformer, spec, config.model.seed, trained)
    set_checkpointing(transformer, config.memory)
    offload = place_transformer(transformer, place.device, config.memory)
    set_attention(transformer, config.speed, training=True)
    compile_blocks(transformer, config.speed)
    return Trainable(transformer.train(), parameters, offload, told)


def assemble_pipeline(
    model: ModelFolder, config: TrainConfig, place: Place, adapter: Path | None, vae_dtype: torch.dtype
) -> tuple[LTXPipeline, tuple[Offload, ...]]:
    """What renders with an exported adapter, or with the base alone."""
    transformer, _ = _load_base(model, config, place)
    vae, vae_offload = assemble_vae(model, config.memory, Place(place.device, vae_dtype), "decoder")
    pipeline = make_render_pipeline(transformer, vae, load_scheduler(model))
    if adapter is not None:
        load_exported(pipeline, adapter)
    offload = place_transformer(transformer.requires_grad_(False), place.device, config.memory)
    set_attention(transformer, config.speed, training=False)
    compile_blocks(transformer, config.speed)
    return pipeline, (offload, vae_offload)


def _load_base(
    model: ModelFolder, config: TrainConfig, place: Place
) -> tuple[LTXVideoTransformer3DModel, tuple[str, ...]]:
    set_tf32(disabled=config.precision.disable_tf32)
    told: list[Quantised] = []
    transformer = load_transformer(model, base_loading(config.precision, config.memory, place), told.append)
    return transformer, tuple(quantised_sentence("transformer", found) for found in told)


def base_dtype(precision: PrecisionConfig, dtype: torch.dtype) -> torch.dtype:
    """What the base computes in where ``dtype`` is asked for: a quantised one may keep float32 for all that is not."""
    kept = in_float32(precision.base_model_precision, precision.base_model_default_dtype)
    return torch.float32 if kept else dtype


def base_loading(precision: PrecisionConfig, memory: MemoryConfig, place: Place) -> Loading:
    """How the frozen base is loaded."""
    return Loading(
        base_dtype(precision, place.dtype),
        format=precision.base_model_precision,
        device=loading_device("transformer", place.device, memory),
        via=precision.quantize_via,
        accelerator=place.device,
    )


def assemble_text_pipeline(
    model: ModelFolder, precision: PrecisionConfig, memory: MemoryConfig, place: Place
) -> tuple[LTXPipeline, tuple[str, ...]]:
    """A pipeline with the text encoder alone, and what the user should know of it."""
    told: list[Quantised] = []
    loading = Loading(
        place.dtype,
        format=precision.text_encoder_1_precision,
        device=loading_device("text_encoder", place.device, memory),
        via=precision.quantize_via,
        accelerator=place.device,
    )
    encoder, tokenizer = load_text_encoder(model, loading, told.append)
    place_text_encoder(encoder, place.device, memory)
    return make_text_pipeline(encoder, tokenizer), tuple(quantised_sentence("text encoder", found) for found in told)


def assemble_vae(
    model: ModelFolder, memory: MemoryConfig, place: Place, half: Half
) -> tuple[AutoencoderKLLTXVideo, Offload]:
    """The half of the VAE that is used: what encodes does not decode."""
    vae = load_vae(model, Loading(place.dtype, device=loading_device("vae", place.device, memory)), half)
    return vae, place_vae(vae, place.device, memory)


def quantised_sentence(part: str, found: Quantised) -> str:
    """``transformer: 280 linear layers in nf4-bnb, 3.5 GiB -> 0.9 GiB, weights differ by 9.2 %``."""
    sizes = f"{format_bytes(found.before)} -> {format_bytes(found.after)}"
    layers = counted(len(found.layers), "linear layer")
    return f"{part}: {layers} in {found.name}, {sizes}, weights differ by {100 * found.error:.1f} %"
