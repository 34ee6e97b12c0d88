"""From a weight in bf16 to the codes and scales that a number format keeps of it, and back.

The integer and fp8 formats give the very numbers of the libraries that they are named after, which tests compare; they
are plain arithmetic, so nothing has to be installed or compiled. NF4 is computed by bitsandbytes.

Shape legend: R rows (outputs of the layer), C columns (its inputs), G groups in a row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final

import torch

from ltxtrain.config.formats import FORMATS
from ltxtrain.model.fp8 import fp8_rows, read_fp8_rows

Stored = Mapping[str, torch.Tensor]
"""``codes`` in int8, which libraries that look at a layer's ``weight`` leave alone, and the scales of the format."""

NESTED_GROUP: Final = 256
"""So many scales of NF4 share a scale of their own."""

NF4_NESTED: Final = NESTED_GROUP * FORMATS["nf4-bnb"].group
"""And so many weights."""

PIECE: Final = 2**18
"""About so many weights are encoded at a time: a MiB in float32."""


def encode(name: str, weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
    """What ``name`` keeps of a weight, on its device. The weight is taken in bf16, whatever it comes in.

    A few rows are encoded at a time: little memory is needed beside the weight, and what is needed stays in the cache.
    """
    weight_RC = weight_RC.detach()
    made = [_ENCODE[name](weight_RC[start:stop].to(torch.bfloat16)) for start, stop in pieces(name, *weight_RC.shape)]
    joined = {part: torch.cat([piece[part] for piece in made]) for part in made[0]}
    return _nested(joined) if name == "nf4-bnb" else joined


def pieces(name: str, rows: int, columns: int) -> list[tuple[int, int]]:
    """The rows of a weight in ranges of about ``PIECE`` weights, whose ends are the ends of groups as well."""
    group = NF4_NESTED if name == "nf4-bnb" else 1  # these groups run on over the ends of rows
    fitting = group // math.gcd(columns, group)
    step = max(1, PIECE // columns // fitting) * fitting
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def stored_piece(name: str, stored: Stored, columns: int, start: int, stop: int) -> Stored:
    """What is kept of the rows of one of ``pieces``."""
    if name != "nf4-bnb":
        return {part: tensor[start:stop] for part, tensor in stored.items()}
    first, last = start * columns, stop * columns
    each = {"codes": 2, "scale": FORMATS[name].group, "scale_scale": NF4_NESTED}
    return dict(stored) | {part: stored[part][first // size : -(-last // size)] for part, size in each.items()}


def decode(name: str, stored: Stored, rows: int, columns: int) -> torch.Tensor:
    """The weight that ``stored`` stands for, in bf16, as a tensor of its own."""
    return _DECODE[name](stored, (rows, columns))


def group_size(name: str, columns: int) -> int:
    """How many neighbours share a scale; less than the format's number only where a row is not made of whole groups."""
    return math.gcd(columns, FORMATS[name].group) or columns


# ---------------------------------------------------------------- 8 bits


def _encode_int8_quanto(weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
    scale_R1 = _not_zero(weight_RC.abs().amax(1, keepdim=True) / 127)
    codes = (weight_RC / scale_R1).round().clamp(-128, 127).to(torch.int8)
    return {"codes": codes, "scale": scale_R1.float()}


def _encode_int8_torchao(weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
    weight_RC = weight_RC.float()
    scale_R1 = _not_zero(weight_RC.abs().amax(1, keepdim=True) / 127.5)
    codes = (weight_RC * (1.0 / scale_R1)).round().clamp(-128, 127).to(torch.int8)
    return {"codes": codes, "scale": scale_R1}


def _decode_int8(stored: Stored, shape: tuple[int, int]) -> torch.Tensor:
    """On a GPU this is one pass, with no other tensor of the weight's size in between."""
    weight_RC = torch.empty(shape, dtype=torch.bfloat16, device=_device(stored))
    return torch.mul(stored["codes"], stored["scale"], out=weight_RC)


def _encode_fp8(weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
    codes, scale_R1 = fp8_rows(weight_RC)
    return {"codes": codes, "scale": scale_R1}


def _decode_fp8(stored: Stored, shape: tuple[int, int]) -> torch.Tensor:
    return read_fp8_rows(stored["codes"], stored["scale"])


# ---------------------------------------------------------------- 4 and 2 bits


def _encode_affine(name: str) -> Callable[[torch.Tensor], dict[str, torch.Tensor]]:
    top = 2 ** FORMATS[name].bits - 1

    def encode_affine(weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
        """Codes 0 to ``top`` between the least and the greatest weight of each group."""
        grouped = weight_RC.unflatten(1, (-1, group_size(name, weight_RC.shape[1])))
        least, most = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
        scale, shift = _not_zero((most - least) / top), -least
        codes = ((grouped + shift) / scale).round().clamp(0, top).to(torch.uint8)
        return {"codes": _packed(codes, FORMATS[name].bits), "scale": scale, "shift": shift}

    return encode_affine


def _decode_affine(name: str) -> Callable[[Stored, tuple[int, int]], torch.Tensor]:
    bits = FORMATS[name].bits

    def decode_affine(stored: Stored, shape: tuple[int, int]) -> torch.Tensor:
        weight, pieces = _room(name, stored, shape)
        for place, piece in enumerate(pieces):
            piece.copy_(_unpacked(stored["codes"], bits, place)).mul_(stored["scale"]).sub_(stored["shift"])
        return weight

    return decode_affine


def _encode_int4_torchao(weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
    """Codes -8 to 7 around zero, kept as 0 to 15."""
    grouped = weight_RC.unflatten(1, (-1, group_size("int4-torchao", weight_RC.shape[1])))
    most = torch.maximum(grouped.amax(-1, keepdim=True), -grouped.amin(-1, keepdim=True))
    scale = _not_zero(most / 7.5)
    codes = (grouped * (1.0 / scale)).round().clamp(-8, 7).to(torch.int8)
    return {"codes": _packed((codes + 8).to(torch.uint8), 4), "scale": scale}


def _decode_int4_torchao(stored: Stored, shape: tuple[int, int]) -> torch.Tensor:
    weight, pieces = _room("int4-torchao", stored, shape)
    for place, piece in enumerate(pieces):
        piece.copy_(_unpacked(stored["codes"], 4, place) - 8).mul_(stored["scale"])
    return weight


def _room(name: str, stored: Stored, shape: tuple[int, int]) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """An empty weight, and the views of it that the pieces of each packed byte go to, [R, G, part of a group]."""
    weight_RC = torch.empty(shape, dtype=torch.bfloat16, device=_device(stored))
    pieces = 8 // FORMATS[name].bits
    grouped = weight_RC.view(shape[0], -1, pieces, group_size(name, shape[1]) // pieces)
    return weight_RC, grouped.unbind(2)


def _packed(codes_RGN: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes of ``bits`` each, packed: byte i of a group keeps codes i, i + N/2 (or N/4, ...), lowest bits first."""
    pieces = codes_RGN.unflatten(-1, (8 // bits, -1)).unbind(2)
    packed = pieces[0].clone()
    for place, piece in enumerate(pieces[1:], start=1):
        packed += piece * 2 ** (bits * place)
    return packed.view(torch.int8)


def _unpacked(packed: torch.Tensor, bits: int, place: int) -> torch.Tensor:
    return (packed >> (bits * place)) & (2**bits - 1)


# ---------------------------------------------------------------- NF4


def _encode_nf4(weight_RC: torch.Tensor) -> dict[str, torch.Tensor]:
    """The codes, and the scales as they are before they are encoded themselves."""
    from bitsandbytes.functional import quantize_4bit

    group = FORMATS["nf4-bnb"].group
    if weight_RC.device.type == "cpu" and weight_RC.numel() % group == 0:
        codes, scale = _nf4_by_counting(weight_RC.reshape(-1, group).float())
    else:
        codes, state = quantize_4bit(weight_RC.contiguous(), blocksize=group, quant_type="nf4")
        scale = state.absmax
    return {"codes": codes.view(torch.int8), "scale": scale}


def _nf4_by_counting(weight_GN: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What bitsandbytes makes of whole groups, to the bit. It looks each weight up by itself, which takes the CPU four
    times as long as counting, for all weights at once, how many of the 15 bounds between the values are below them.
    """
    from bitsandbytes.functional import get_4bit_type

    values = get_4bit_type("nf4", weight_GN.device)
    scale_G = weight_GN.abs().amax(1)
    weight_GN = weight_GN * (1.0 / scale_G.clamp(min=1e-38)).unsqueeze(1)
    codes = torch.zeros(weight_GN.shape, dtype=torch.uint8)
    for bound in ((values[:-1] + values[1:]) / 2).tolist():
        codes += weight_GN > bound
    first, second = codes.view(-1, 2).unbind(1)
    return ((first << 4) | second).unsqueeze(1), scale_G


def _nested(stored: Stored) -> dict[str, torch.Tensor]:
    """The scales in 8 bits around their mean, with scales of their own (Dettmers et al. 2023, double quantisation)."""
    from bitsandbytes.functional import quantize_blockwise

    shift = stored["scale"].mean()
    scale, state = quantize_blockwise(stored["scale"] - shift, blocksize=NESTED_GROUP)
    return {
        "codes": stored["codes"],
        "scale": scale.view(torch.int8),
        "scale_scale": state.absmax,
        "scale_code": state.code,
        "scale_shift": shift,
    }


def _decode_nf4(stored: Stored, shape: tuple[int, int]) -> torch.Tensor:
    import bitsandbytes  # noqa: F401  its operators are defined by importing it

    operators, group = torch.ops.bitsandbytes, FORMATS["nf4-bnb"].group
    scale = operators.dequantize_blockwise(
        stored["scale"].view(torch.uint8), stored["scale_scale"], stored["scale_code"], NESTED_GROUP, torch.float32
    )
    # On the CPU the library counts groups from the start of each row, though it makes them over the whole weight: rows
    # that are not whole groups would come back wrong. So it is told of rows of one group, or of a single row.
    size = math.prod(shape)
    rows = (size // group, group) if size % group == 0 else (1, size)
    codes = stored["codes"].view(torch.uint8)
    weight = operators.dequantize_4bit(codes, scale + stored["scale_shift"], group, "nf4", rows, torch.bfloat16)
    return weight.view(shape)


# ----------------------------------------------------------------


def _not_zero(scale: torch.Tensor) -> torch.Tensor:
    """Where all weights are equal there is nothing to scale, and nothing to divide by."""
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _device(stored: Stored) -> torch.device:
    return stored["codes"].device


_ENCODE: Final[Mapping[str, Callable[[torch.Tensor], dict[str, torch.Tensor]]]] = {
    "int8-quanto": _encode_int8_quanto,
    "int4-quanto": _encode_affine("int4-quanto"),
    "int2-quanto": _encode_affine("int2-quanto"),
    "int8-torchao": _encode_int8_torchao,
    "int4-torchao": _encode_int4_torchao,
    "fp8-torchao": _encode_fp8,
    "fp8wo-torchao": _encode_fp8,
    "nf4-bnb": _encode_nf4,
}

_DECODE: Final[Mapping[str, Callable[[Stored, tuple[int, int]], torch.Tensor]]] = {
    "int8-quanto": _decode_int8,
    "int4-quanto": _decode_affine("int4-quanto"),
    "int2-quanto": _decode_affine("int2-quanto"),
    "int8-torchao": _decode_int8,
    "int4-torchao": _decode_int4_torchao,
    "fp8-torchao": _decode_fp8,
    "fp8wo-torchao": _decode_fp8,
    "nf4-bnb": _decode_nf4,
}
