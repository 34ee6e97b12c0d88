"""The models as a run uses them. The transformer is put together in a fixed order:

    load, quantised where that is asked for -> attach adapter -> gradient checkpointing -> place

Each of these is a plain function of the transformer and its own section of the configuration; here they only meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import AutoencoderKLLTXVideo, LTXPipeline, LTXVideoTransformer3DModel

from ltxtrain.config.optimizers import adapter_dtype
from ltxtrain.model.adapter import AdapterSpec, attach_adapter
from ltxtrain.model.checkpointing import set_checkpointing
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.text import make_text_pipeline

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.config.compute import PrecisionConfig


def assemble_transformer(
    model: ModelFolder, config: TrainConfig, spec: AdapterSpec, device: torch.device, dtype: torch.dtype
) -> tuple[LTXVideoTransformer3DModel, dict[str, torch.nn.Parameter]]:
    """The transformer on ``device`` in training mode, and what of it is trained, by name."""
    transformer = load_transformer(model, base_loading(config.precision, device, dtype))
    trained = getattr(torch, adapter_dtype(config.optimizer.optimizer))
    parameters = attach_adapter(transformer, spec, config.model.seed, trained)
    set_checkpointing(transformer, config.memory)
    transformer.to(device).train()
    return transformer, parameters


def assemble_text_pipeline(
    model: ModelFolder, precision: PrecisionConfig, device: torch.device, dtype: torch.dtype
) -> LTXPipeline:
    """A pipeline with the text encoder alone, on ``device``."""
    loading = Loading(dtype, format=precision.text_encoder_1_precision, device=device, via=precision.quantize_via)
    return make_text_pipeline(*load_text_encoder(model, loading))


def assemble_vae(model: ModelFolder, device: torch.device, dtype: torch.dtype) -> AutoencoderKLLTXVideo:
    return load_vae(model, Loading(dtype, device=device))


def base_loading(precision: PrecisionConfig, device: torch.device, dtype: torch.dtype) -> Loading:
    """How the frozen base is loaded for training in ``dtype``."""
    return Loading(dtype, format=precision.base_model_precision, device=device, via=precision.quantize_via)
