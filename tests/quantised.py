"""Models that are quantised as a whole, and layers that are taken back, to compare with what loading makes."""

from __future__ import annotations

import torch
from torch import nn

from ltxtrain.config.formats import Part
from ltxtrain.model.formats import (
    Quantised,
    QuantisedLinear,
    computing_dtype,
    is_quantised_layer,
    quantisation_error,
    quantised_linear,
)


def quantise(model: nn.Module, part: Part, name: str, dtype: torch.dtype) -> Quantised:
    """Replace the linear layers in the blocks of ``model``, which computes in ``dtype``, by quantised ones."""
    linear_layers = [layer for layer, module in model.named_modules() if type(module) is nn.Linear]
    layers = [layer for layer in linear_layers if is_quantised_layer(part, layer)]
    before = after = 0
    errors = []
    for layer in layers:
        owner, _, own = layer.rpartition(".")
        linear = model.get_submodule(layer)
        made = quantised_linear(linear, name, computing_dtype(part, layer, dtype))
        before, after = before + linear.weight.nbytes, after + made.stored_bytes()
        errors.append(quantisation_error(linear, made))
        model.get_submodule(owner)._modules[own] = made
    return Quantised(name, tuple(layers), before, after, sum(errors) / max(1, len(errors)))


def dequantised(module: QuantisedLinear) -> nn.Linear:
    """An ordinary frozen layer with the weight that the codes of ``module`` stand for, in its dtype."""
    with torch.device("meta"):
        linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    linear.weight = nn.Parameter(module.weight_in(module.dtype), requires_grad=False)
    if module.bias is not None:
        linear.bias = nn.Parameter(module.bias.detach().clone(), requires_grad=False)
    return linear.train(module.training)
