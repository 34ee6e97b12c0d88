"""The transformer as training uses it, put together in a fixed order.

    load -> quantise -> attach adapter -> gradient checkpointing -> offload or place -> attention -> compile

Each of these is a plain function of the transformer and its own section of the configuration; here they only meet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.model.adapter import AdapterSpec, attach_adapter
from ltxtrain.model.folder import ModelFolder, load_transformer

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig


def assemble_transformer(
    model: ModelFolder, config: TrainConfig, spec: AdapterSpec, device: torch.device, dtype: torch.dtype
) -> tuple[LTXVideoTransformer3DModel, dict[str, torch.nn.Parameter]]:
    """The transformer on ``device`` in training mode, and what of it is trained, by name."""
    transformer = load_transformer(model, dtype)
    parameters = attach_adapter(transformer, spec, config.model.seed)
    if config.memory.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.to(device).train()
    return transformer, parameters
