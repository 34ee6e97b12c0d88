"""A transformer of a few small blocks with an adapter, the same each time."""

from __future__ import annotations

import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.model.adapter import AdapterSpec, attach_adapter


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def small_transformer(layers: int, head_dim: int, text: int) -> LTXVideoTransformer3DModel:
    """Two heads; ``text`` is the width of captions."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return LTXVideoTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=head_dim,
            cross_attention_dim=2 * head_dim,
            num_layers=layers,
            caption_channels=text,
        )


def with_adapter(transformer: LTXVideoTransformer3DModel, spec: AdapterSpec) -> dict[str, torch.nn.Parameter]:
    """The adapter's parameters. Its second factors are zero at the start, which would hide all that comes before."""
    parameters = attach_adapter(transformer, spec, seed=3)
    for number, (name, parameter) in enumerate(parameters.items()):
        if "lora_B" in name:
            parameter.data = draw(*parameter.shape, seed=number) * 0.1
    return parameters
