"""The number formats that frozen weights may be kept in: what each stores, and what becomes of its name.

Only the linear layers inside the blocks are quantised. Embeddings, norms, the layers before the first and after the
last block, and the layers that read the time and the captions keep their number format: they are 2 % of the weights
and do the most harm when they are rounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from ltxtrain.config.verdicts import Verdict

Part = Literal["transformer", "text_encoder"]

LAYERS: Final[Mapping[Part, re.Pattern[str]]] = {
    "transformer": re.compile(r"transformer_blocks\.\d+\.(attn[12]\.(to_[qkv]|to_out\.0)|ff\.net\.(0\.proj|2))"),
    "text_encoder": re.compile(
        r"encoder\.block\.\d+\.layer\.\d+\.(SelfAttention\.[qkvo]|DenseReluDense\.(wi(_[01])?|wo))"
    ),
}
"""The names of the layers that are quantised; ``wo`` of T5 among them, a fifth of its weights."""


@dataclass(frozen=True)
class Format:
    """How one number format keeps the weight of a linear layer, [rows, columns].

    ``bits`` is the width of one weight's code, and ``group`` the number of neighbours in a row that share a scale; 0 is
    the whole row. ``bytes_per_value`` counts the codes and what each group keeps, ``bytes_per_row`` what each row keeps
    and ``bytes_per_layer`` what the layer keeps once. ``library`` is the one whose numbers these are. ``error`` is how
    far normally distributed weights, 2048 to a row, come back from what they were in bf16, as a share of their norm.
    ``activations`` says that the layer's input is rounded as well.
    """

    verdict: Verdict
    bits: int = 16
    group: int = 0
    bytes_per_value: float = 2.0
    bytes_per_row: int = 0
    bytes_per_layer: int = 0
    library: str = ""
    error: float = 0.0
    activations: bool = False

    @property
    def quantised(self) -> bool:
        return bool(self.library)

    def stored_bytes(self, rows: int, columns: int) -> int:
        """Bytes of one weight as it is kept, to the byte where ``group`` divides ``columns``."""
        return math.ceil(rows * columns * self.bytes_per_value) + rows * self.bytes_per_row + self.bytes_per_layer


def is_quantised_layer(part: Part, name: str) -> bool:
    """Whether the module of this name, counted from the top of the model, is quantised when its model is."""
    return LAYERS[part].fullmatch(name) is not None


def in_float32(name: str, default_dtype: str) -> bool:
    """Whether a base in the format ``name`` is computed in float32, whatever ``mixed_precision`` says."""
    return FORMATS[name].quantised and default_dtype == "fp32"


def _refused(why: str, instead: str) -> Format:
    return Format(Verdict(on=(), why=why, instead=instead))


def _sdnq(instead: str) -> Format:
    return _refused(
        "it is a format of the sdnq package, which is under the GPL version 3 alone and cannot be part of this program",
        instead,
    )


_ACTIVATIONS: Final = "it rounds activations as well, and the adapter's gradients would be silently wrong"

FORMATS: Final[Mapping[str, Format]] = {
    "no_change": Format(Verdict(why="the base model in the number format of mixed_precision")),
    "int8-quanto": Format(
        Verdict(why="one scale for each row; no package is needed"),
        bits=8,
        bytes_per_value=1.0,
        bytes_per_row=4,
        library="optimum-quanto",
        error=0.0088,
    ),
    "int4-quanto": Format(
        Verdict(why="a scale and a shift for every 128 weights; no package is needed"),
        bits=4,
        group=128,
        bytes_per_value=0.5 + 4 / 128,
        library="optimum-quanto",
        error=0.1,
    ),
    "int2-quanto": Format(
        Verdict(why="a scale and a shift for every 128 weights: four values are left of each, too few for good videos"),
        bits=2,
        group=128,
        bytes_per_value=0.25 + 4 / 128,
        library="optimum-quanto",
        error=0.5,
    ),
    "fp8-quanto": _refused("LTX-Video does not work in it", "fp8wo-torchao"),
    "fp8uz-quanto": _refused(
        "it is the fp8 of one family of AMD cards, and LTX-Video does not work in it", "fp8wo-torchao"
    ),
    "int8-torchao": Format(
        Verdict(why="one scale for each row; weights alone, no package is needed"),
        bits=8,
        bytes_per_value=1.0,
        bytes_per_row=4,
        library="torchao",
        error=0.0084,
    ),
    "int8dq-torchao": _refused(_ACTIVATIONS, "int8-torchao"),
    "int8dq-int4-torchao": _refused(_ACTIVATIONS, "int4-torchao"),
    "int4-torchao": Format(
        Verdict(why="one scale for every 32 weights; two weights to the byte, no package is needed"),
        bits=4,
        group=32,
        bytes_per_value=0.5 + 2 / 32,
        library="torchao",
        error=0.095,
    ),
    "fp8-torchao": Format(
        Verdict(
            on=("cuda", "rocm"),
            capability=(8, 9),
            why="products in fp8, activations rounded too; gradients are taken with the weights",
            instead="fp8wo-torchao",
        ),
        bits=8,
        bytes_per_value=1.0,
        bytes_per_row=4,
        library="torchao",
        error=0.0265,
        activations=True,
    ),
    "fp8wo-torchao": Format(
        Verdict(
            on=("cuda", "rocm", "cpu"),
            why="one scale for each row; weights alone, on any NVIDIA or AMD card",
            instead="int8-torchao",
        ),
        bits=8,
        bytes_per_value=1.0,
        bytes_per_row=4,
        library="torchao",
        error=0.0265,
    ),
    "fp8-int4-torchao": _refused("it needs the package mslk, of which no working release is published", "int4-torchao"),
    "fp8-native": _refused(
        "it keeps weights without a scale; the same size with scales is more exact", "fp8wo-torchao"
    ),
    "fp8-transformerengine": _refused(
        "it needs transformer-engine, which is built on the machine itself", "fp8-torchao"
    ),
    "nf4-bnb": Format(
        Verdict(
            on=("cuda", "rocm", "cpu"),
            needs="bitsandbytes",
            why="4 bits on the quantiles of a normal distribution, scales of every 64 weights kept in 8 bits",
            instead="int4-quanto",
        ),
        bits=4,
        group=64,
        bytes_per_value=0.5 + 1 / 64 + 4 / (64 * 256),
        bytes_per_layer=4 * 256 + 4,
        library="bitsandbytes",
        error=0.092,
    ),
    "int8-sdnq": _sdnq("int8-torchao"),
    "uint8-sdnq": _sdnq("int8-quanto"),
    "int16-sdnq": _sdnq("no_change"),
    "uint16-sdnq": _sdnq("no_change"),
    "fp16-sdnq": _sdnq("no_change"),
    "fp8-sdnq": _sdnq("fp8wo-torchao"),
    "int6-sdnq": _sdnq("int8-torchao"),
    "int5-sdnq": _sdnq("int8-torchao"),
    "uint5-sdnq": _sdnq("int8-quanto"),
    "uint4-sdnq": _sdnq("int4-quanto"),
    "uint3-sdnq": _sdnq("int4-quanto"),
    "uint2-sdnq": _sdnq("int2-quanto"),
}
"""One row for each value of ``base_model_precision`` and ``text_encoder_1_precision``."""

WORKING: Final = tuple(name for name, known in FORMATS.items() if not known.verdict.refused)
