"""Linear layers whose frozen weights are kept in a few bits, and models made of them.

The adapter's gradients are exactly those over the weights that the codes stand for: what is kept between the forward
and the backward pass is the codes, and the weight is made from them each time, one layer at a time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import nn

from ltxtrain.config.formats import FORMATS, Part, is_quantised_layer
from ltxtrain.model.format_codes import Stored, decode, encode, pieces, stored_piece
from ltxtrain.model.fp8 import fp8_product

__all__ = [
    "Quantised",
    "QuantisedLinear",
    "computing_dtype",
    "is_quantised_layer",
    "quantisation_error",
    "quantised_linear",
]

MEASURED_PIECES = 8


class QuantisedLinear(nn.Linear):
    """A frozen linear layer that computes in ``dtype`` with a weight in the format ``name``.

    ``weight`` holds the codes, always as int8: T5 casts its activations to the dtype of the next weight unless that is
    int8, and peft gives its factors the dtype of a weight that is floating. All that is kept are plain parameters, so
    they move between devices, to memory of the host and into files like any other weight.
    """

    def __init__(self, linear: nn.Linear, name: str, dtype: torch.dtype) -> None:
        nn.Module.__init__(self)  # not nn.Linear's, which would make a weight
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.format = name
        self.dtype = dtype
        stored = encode(name, linear.weight)
        self.weight = _frozen(stored.pop("codes"))
        self.kept = tuple(stored)
        for part, tensor in stored.items():
            self.register_parameter(part, _frozen(tensor))
        self.register_parameter("bias", None if linear.bias is None else _frozen(linear.bias.detach().to(dtype)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features], in ``dtype`` whatever the dtype of ``x``."""
        stored = self.stored()
        return _Product.apply(x.to(self.dtype), self.bias, self.format, tuple(stored), *stored.values())

    def stored(self) -> dict[str, torch.Tensor]:
        """What the format keeps of the weight: its codes and scales."""
        return {"codes": self.weight} | {part: getattr(self, part) for part in self.kept}

    def weight_in(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight that the codes stand for, [out_features, in_features]."""
        return decode(self.format, self.stored(), self.out_features, self.in_features).to(dtype)

    def stored_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.stored().values())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, format={self.format}, dtype={self.dtype}"

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        before = {part: tensor.dtype for part, tensor in self.stored().items()}
        super()._apply(fn, recurse)
        changed = [part for part, tensor in self.stored().items() if tensor.dtype != before[part]]
        if changed:
            raise TypeError(
                f"{changed[0]} of a layer in {self.format} cannot be cast: choose its dtype when it is made"
            )
        return self


class _Product(torch.autograd.Function):
    """``x @ weight.T + bias`` of a weight that is made from its codes, in each of the two passes."""

    @staticmethod
    def forward(ctx, x, bias, *rest):  # type: ignore[no-untyped-def]
        # torch.compile counts the parameters to see whether ctx is one: no format may have as many parts as these.
        name, parts, *tensors = rest
        ctx.save_for_backward(*tensors)
        ctx.name, ctx.parts, ctx.columns = name, parts, x.shape[-1]
        stored = dict(zip(parts, tensors, strict=True))
        if FORMATS[name].activations:
            product = fp8_product(x.reshape(-1, x.shape[-1]), stored["codes"], stored["scale"], bias)
            return product.unflatten(0, x.shape[:-1])
        return nn.functional.linear(x, _weight(name, stored, x.shape[-1]).to(x.dtype), bias)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        stored = dict(zip(ctx.parts, ctx.saved_tensors, strict=True))
        weight = _weight(ctx.name, stored, ctx.columns).to(grad.dtype)
        return grad @ weight, *(None,) * (3 + len(stored))


def _weight(name: str, stored: Stored, columns: int) -> torch.Tensor:
    rows = stored["codes"].numel() * 8 // FORMATS[name].bits // columns
    return decode(name, stored, rows, columns)


@dataclass(frozen=True)
class Quantised:
    """What became of a model: its layers in the format ``name``, and their weights' bytes ``before`` and ``after``.

    ``error`` is the mean over the layers of how far the weights are off, as a share of their norm.
    """

    name: str
    layers: tuple[str, ...]
    before: int
    after: int
    error: float


def quantised_linear(linear: nn.Linear, name: str, dtype: torch.dtype) -> QuantisedLinear:
    """``linear`` with its weight in the format ``name``, quantised on the device where it lies. Made to compute in
    ``dtype``; ``linear`` itself is left as it is, and shares its bias where that has this dtype already.

    Raises ``ValueError`` for a name that is no working format, and for a width that its groups do not fit.
    """
    known = FORMATS[name]
    if not known.quantised or known.verdict.refused:
        raise ValueError(f"{name} is not a format that weights are kept in")
    if linear.in_features % (8 // known.bits):
        raise ValueError(f"a layer with {linear.in_features} inputs cannot be kept in {name}")
    return QuantisedLinear(linear, name, dtype)


def quantisation_error(linear: nn.Linear, quantised: QuantisedLinear) -> float:
    """How far the weights are from what they were in bf16, as a share of their norm (Frobenius); 0 where all are 0,
    and not finite where the weights are not, or are too large for the format.

    Of a large layer two million weights are looked at, in rows that are spread over it.
    """
    name, stored, columns = quantised.format, quantised.stored(), quantised.in_features
    norm = error = 0.0
    ranges = pieces(name, quantised.out_features, columns)
    for start, stop in ranges[:: max(1, len(ranges) // MEASURED_PIECES)]:
        piece = stored_piece(name, stored, columns, start, stop)
        before = linear.weight.detach()[start:stop].to(torch.bfloat16).float()
        norm += float(before.square().sum())
        error += float((before - decode(name, piece, stop - start, columns)).square().sum())
    return 0.0 if norm == 0 else math.sqrt(error / norm)


def computing_dtype(part: Part, layer: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype that a layer computes in. T5's ``wo`` overflows in fp16, so that it stays in float32 there."""
    return torch.float32 if part == "text_encoder" and layer.endswith(".wo") and dtype == torch.float16 else dtype


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)
