"""The numbers of each format are those of the library that it is named after, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ltxtrain.config.formats import WORKING
from ltxtrain.model.format_codes import decode, encode, pieces, stored_piece

ROWS, COLUMNS = 1120, 640  # encoded in three pieces, of whole groups of NF4's scales only where that is seen to


@pytest.fixture(scope="module")
def weight() -> torch.Tensor:
    """Normally distributed, with a few weights that stand out, as they do in real layers."""
    weight_RC = torch.randn(ROWS, COLUMNS, generator=torch.Generator().manual_seed(0)) * 0.02
    weight_RC[::7, ::31] *= 8
    return weight_RC.to(torch.bfloat16)


def test_int8_quanto(weight: torch.Tensor) -> None:
    from optimum.quanto import AbsmaxOptimizer, qint8, quantize_weight

    theirs = quantize_weight(weight, qint8, 0, AbsmaxOptimizer()(weight, qint8, 0), optimized=False)
    ours = encode("int8-quanto", weight)
    assert torch.equal(ours["codes"], theirs._data) and torch.equal(ours["scale"], theirs._scale.float())
    assert torch.equal(decode("int8-quanto", ours, ROWS, COLUMNS), theirs.dequantize())


@pytest.mark.parametrize(("name", "bits"), [("int4-quanto", 4), ("int2-quanto", 2)])
def test_grids_of_quanto(weight: torch.Tensor, name: str, bits: int) -> None:
    from optimum.quanto import MaxOptimizer, qint2, qint4, quantize_weight

    kind = {4: qint4, 2: qint2}[bits]
    scale, shift = MaxOptimizer()(weight, kind, 0, group_size=128)
    theirs = quantize_weight(weight, kind, 0, scale, shift, group_size=128, optimized=False)
    # Read by hand: quanto's own way compiles a C++ extension first.
    packed = theirs._data._data
    codes = torch.cat([(packed >> bits * place) & 2**bits - 1 for place in range(8 // bits)])
    expected = (codes * theirs._scale - theirs._shift).reshape(ROWS, COLUMNS)
    assert torch.equal(decode(name, encode(name, weight), ROWS, COLUMNS), expected)


@pytest.mark.parametrize("name", ["int8-torchao", "fp8wo-torchao", "fp8-torchao"])
def test_rows_of_torchao(weight: torch.Tensor, name: str) -> None:
    """Of the weight in float32: from one in bf16 torchao rounds the scales to bf16 as well."""
    from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    linear = nn.Linear(COLUMNS, ROWS, bias=False)
    linear.weight.data = weight.float()
    quantize_(linear, Int8WeightOnlyConfig() if name == "int8-torchao" else Float8WeightOnlyConfig())
    ours = encode(name, weight)
    assert torch.equal(ours["codes"], linear.weight.qdata.view(torch.int8))
    assert torch.equal(ours["scale"], linear.weight.scale)
    assert torch.equal(decode(name, ours, ROWS, COLUMNS), linear.weight.dequantize().to(torch.bfloat16))


def test_int4_torchao(weight: torch.Tensor) -> None:
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

    linear = nn.Linear(COLUMNS, ROWS, bias=False, dtype=torch.bfloat16)
    linear.weight.data = weight.clone()
    quantize_(linear, IntxWeightOnlyConfig(torch.int4, PerGroup(32)))
    ours = encode("int4-torchao", weight)
    assert torch.equal(decode("int4-torchao", ours, ROWS, COLUMNS), linear.weight.dequantize())
    assert ours["codes"].nbytes * 2 == linear.weight.qdata.nbytes  # torchao gives each code a byte


def test_nf4_of_bitsandbytes(weight: torch.Tensor) -> None:
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit, Params4bit

    linear = Linear4bit(COLUMNS, ROWS, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    linear.weight = Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True, module=linear)
    theirs = linear.to("cpu").weight
    assert theirs.quant_state.nested
    expected = dequantize_4bit(theirs.data, theirs.quant_state)
    assert torch.equal(decode("nf4-bnb", encode("nf4-bnb", weight), ROWS, COLUMNS), expected)


@pytest.mark.parametrize("name", WORKING[1:])
def test_a_piece_of_what_is_kept_is_read_as_the_same_rows_of_the_whole(weight: torch.Tensor, name: str) -> None:
    stored = encode(name, weight)
    whole = decode(name, stored, ROWS, COLUMNS)
    ranges = pieces(name, ROWS, COLUMNS)
    assert len(ranges) == 3 and ranges[0][0] == 0 and ranges[-1][1] == ROWS
    for start, stop in ranges:
        piece = stored_piece(name, stored, COLUMNS, start, stop)
        assert torch.equal(decode(name, piece, stop - start, COLUMNS), whole[start:stop])
