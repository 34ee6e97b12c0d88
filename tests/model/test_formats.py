"""Frozen layers in a few bits: what is kept, and that what is trained on them has the right gradients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import T5Config, T5EncoderModel

from ltxtrain.config.formats import FORMATS, WORKING
from ltxtrain.model.adapter import AdapterSpec, attach_adapter
from ltxtrain.model.format_codes import decode
from ltxtrain.model.formats import (
    QuantisedLinear,
    is_quantised_layer,
    quantisation_error,
    quantised_linear,
)
from ltxtrain.model.fp8 import fp8_rows, read_fp8_rows
from ltxtrain.model.transformer import predict_velocity
from tests.quantised import dequantised, quantise

QUANTISED = [name for name in WORKING if name != "no_change"]
SPEC = AdapterSpec(rank=4, alpha=4.0, dropout=0.0, targets=("to_k", "to_q", "to_v", "to_out.0", "net.0.proj", "net.2"))


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def fixed_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def small_transformer() -> LTXVideoTransformer3DModel:
    return LTXVideoTransformer3DModel(
        num_attention_heads=2, attention_head_dim=64, cross_attention_dim=128, num_layers=2, caption_channels=32
    )


def small_t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=40, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu"
    )
    return T5EncoderModel(config).eval()


def velocity(transformer: LTXVideoTransformer3DModel) -> torch.Tensor:
    noisy_BCFHW, embeds_BLD = draw(1, 128, 2, 2, 2, seed=1), draw(1, 8, 32, seed=2)
    mask_BL, sigma = torch.ones(1, 8, dtype=torch.bool), torch.tensor([0.5])
    dtype = transformer.proj_in.weight.dtype
    return predict_velocity(transformer, noisy_BCFHW.to(dtype), sigma, embeds_BLD.to(dtype), mask_BL, 25.0)


def gradients(transformer: LTXVideoTransformer3DModel, checkpointing: bool = False) -> dict[str, torch.Tensor]:
    """Of a LoRA whose second factors are not zero, so that those of the first are not either."""
    parameters = attach_adapter(transformer, SPEC, seed=5)
    for number, parameter in enumerate(parameters.values()):
        parameter.data = draw(*parameter.shape, seed=number) * 0.05
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.train()
    velocity(transformer).float().square().mean().backward()
    return {name: parameter.grad for name, parameter in parameters.items()}


class Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return read_fp8_rows(*fp8_rows(x.reshape(-1, x.shape[-1]))).to(x.dtype).view(x.shape)

    @staticmethod
    def backward(ctx: object, grad: torch.Tensor) -> torch.Tensor:
        return grad


class RoundedInput(nn.Linear):
    """A layer whose input is rounded to fp8, with the gradient of one whose input is not."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(Rounded.apply(x))


def reference(layer: QuantisedLinear) -> nn.Linear:
    """What ``layer`` should compute, as an ordinary layer with the weights that its codes stand for."""
    plain = dequantised(layer)
    if not FORMATS[layer.format].activations:
        return plain
    rounded = RoundedInput(layer.in_features, layer.out_features)
    rounded.weight, rounded.bias = plain.weight, plain.bias
    return rounded


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, own = name.rpartition(".")
    model.get_submodule(owner)._modules[own] = module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize("name", QUANTISED)
def test_gradients_of_an_adapter_are_those_over_the_weights_that_the_codes_stand_for(
    name: str, dtype: torch.dtype
) -> None:
    found = []
    for plain in (False, True):
        torch.manual_seed(0)
        transformer = small_transformer().to(dtype)
        for layer in quantise(transformer, "transformer", name, dtype).layers:
            if plain:
                put(transformer, layer, reference(transformer.get_submodule(layer)))
        found.append(gradients(transformer))
    got, expected = found
    assert got.keys() == expected.keys() and len(got) == 40
    for key, gradient in got.items():
        assert gradient.norm() > 0, key
        assert torch.equal(gradient, expected[key]), key


@pytest.mark.parametrize("name", QUANTISED)
def test_recomputing_activations_changes_no_bit_of_the_gradients(name: str) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        transformer = small_transformer()
        quantise(transformer, "transformer", name, torch.float32)
        found.append(gradients(transformer, checkpointing))
    kept, recomputed = found
    assert all(torch.equal(kept[key], recomputed[key]) for key in kept)


@pytest.mark.parametrize("name", QUANTISED)
def test_nothing_of_the_size_of_the_weight_is_kept_for_the_backward_pass(name: str) -> None:
    layer = quantised_linear(nn.Linear(256, 512), name, torch.bfloat16)
    own = {tensor.untyped_storage().data_ptr() for tensor in layer.parameters()}
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(torch.zeros(2, 3, 256, requires_grad=True))
    assert kept and {tensor.untyped_storage().data_ptr() for tensor in kept} <= own


@pytest.mark.parametrize("name", QUANTISED)
def test_t5_computes_with_all_its_layers_quantised(name: str) -> None:
    encoder, words = small_t5(), torch.tensor([[5, 6, 7, 1]])
    layers = quantise(encoder, "text_encoder", name, torch.float32).layers
    assert sum(layer.endswith(".wo") for layer in layers) == 2 and len(layers) == 14
    with torch.no_grad():
        quantised = encoder(words)[0]
        for layer in layers:
            put(encoder, layer, reference(encoder.get_submodule(layer)))
        torch.testing.assert_close(quantised, encoder(words)[0], rtol=1e-4, atol=1e-5)


def test_t5_in_half_precision_keeps_its_widest_products_in_float32() -> None:
    encoder = small_t5().half()
    quantise(encoder, "text_encoder", "int8-quanto", torch.float16)
    block = encoder.encoder.block[0]
    assert block.layer[1].DenseReluDense.wo.dtype == torch.float32
    assert block.layer[1].DenseReluDense.wi_0.dtype == torch.float16
    with torch.no_grad():
        block.layer[1].DenseReluDense.wo.bias = None
        wide = block.layer[1].DenseReluDense.wo(torch.full((1, 1, 96), 60000.0, dtype=torch.float16))
    assert wide.dtype == torch.float32 and wide.isfinite().all()


@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_all_linear_layers_of_the_blocks_and_no_others_are_quantised(part: str) -> None:
    model = small_transformer() if part == "transformer" else small_t5()
    blocks = "transformer_blocks." if part == "transformer" else "encoder.block."
    expected = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith(blocks)
    ]
    assert [name for name, _ in model.named_modules() if is_quantised_layer(part, name)] == expected  # type: ignore[arg-type]
    record = quantise(model, part, "int8-quanto", torch.float32)  # type: ignore[arg-type]
    assert record.layers == tuple(expected)
    assert {name for name, module in model.named_modules() if isinstance(module, QuantisedLinear)} == set(expected)


@pytest.mark.parametrize("name", QUANTISED)
def test_the_table_tells_the_bytes_and_the_error(name: str) -> None:
    linear = nn.Linear(2048, 512)
    nn.init.normal_(linear.weight, std=0.02)
    layer = quantised_linear(linear, name, torch.bfloat16)
    assert layer.stored_bytes() == pytest.approx(FORMATS[name].stored_bytes(512, 2048), abs=4)
    assert quantisation_error(linear, layer) == pytest.approx(FORMATS[name].error, rel=0.02)


def test_the_error_is_that_of_all_rows_and_is_told_for_what_is_no_number() -> None:
    linear = nn.Linear(2048, 512)  # encoded in four pieces
    with torch.no_grad():
        linear.weight[200:, ::300] *= 20
    layer = quantised_linear(linear, "int8-quanto", torch.float32)
    before = linear.weight.detach().to(torch.bfloat16).float()
    expected = (before - layer.weight_in(torch.float32)).norm() / before.norm()
    assert quantisation_error(linear, layer) == pytest.approx(float(expected), rel=1e-4)
    linear.weight.data[300, 5] = float("nan")
    assert not math.isfinite(quantisation_error(linear, layer))


def test_a_record_tells_bytes_before_and_after_and_the_mean_error() -> None:
    transformer = small_transformer().bfloat16()
    record = quantise(transformer, "transformer", "int8-torchao", torch.bfloat16)
    values = 2 * (8 * 128 * 128 + 2 * 128 * 512)
    assert (record.name, len(record.layers), record.before) == ("int8-torchao", 20, 2 * values)
    rows = 2 * (8 * 128 + 512 + 128)
    assert record.after == values + 4 * rows
    assert 0.003 < record.error < 0.009


@pytest.mark.parametrize("name", QUANTISED)
def test_codes_do_not_depend_on_the_dtype_that_the_weight_comes_in_or_is_computed_in(name: str) -> None:
    linear = nn.Linear(64, 32).bfloat16()
    one = quantised_linear(linear, name, torch.bfloat16).stored()
    other = quantised_linear(linear.float(), name, torch.float32).stored()
    assert all(torch.equal(one[part], other[part]) for part in one)


@pytest.mark.parametrize("name", QUANTISED)
def test_rows_of_zeros_stay_zeros(name: str) -> None:
    linear = nn.Linear(128, 16, bias=False)
    with torch.no_grad():
        linear.weight[3] = 0
    weight = quantised_linear(linear, name, torch.float32).weight_in(torch.float32)
    assert weight.isfinite().all() and weight[3].abs().max() < 1e-6
    with torch.no_grad():
        linear.weight.zero_()
    assert quantised_linear(linear, name, torch.float32).weight_in(torch.float32).abs().max() < 1e-6


@pytest.mark.parametrize("columns", [32, 96, 160])
@pytest.mark.parametrize("name", QUANTISED)
def test_rows_that_are_not_whole_groups_are_as_exact(name: str, columns: int) -> None:
    linear = nn.Linear(columns, 48)
    nn.init.normal_(linear.weight)  # groups differ in what is greatest in them
    assert quantisation_error(linear, quantised_linear(linear, name, torch.float32)) < 1.05 * FORMATS[name].error


@pytest.mark.parametrize("name", QUANTISED)
def test_all_is_frozen_and_goes_through_a_file(name: str, tmp_path: Path) -> None:
    layer = quantised_linear(nn.Linear(128, 64), name, torch.bfloat16)
    assert layer.weight.dtype == torch.int8
    assert not any(parameter.requires_grad for parameter in layer.parameters())
    assert all(type(tensor) is torch.Tensor for tensor in layer.state_dict().values())
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    other = quantised_linear(nn.Linear(128, 64), name, torch.bfloat16)
    other.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = draw(3, 128, seed=1)
    assert torch.equal(layer(x), other(x))


def test_scales_cannot_be_rounded_by_casting_the_model() -> None:
    model = nn.Sequential(quantised_linear(nn.Linear(64, 32), "int8-quanto", torch.float32))
    with pytest.raises(TypeError, match="scale of a layer in int8-quanto cannot be cast"):
        model.half()


def test_a_layer_keeps_the_dtype_that_it_was_made_for() -> None:
    layer = quantised_linear(nn.Linear(64, 32), "int8-torchao", torch.bfloat16)
    assert layer(draw(2, 64, seed=1)).dtype == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(draw(2, 64, seed=1)).dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["no_change", "int8dq-torchao", "int8-sdnq"])
def test_names_that_keep_no_weights_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        quantised_linear(nn.Linear(64, 32), name, torch.float32)


def test_widths_that_do_not_fill_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="63 inputs cannot be kept in int4-torchao"):
        quantised_linear(nn.Linear(63, 8), "int4-torchao", torch.float32)
    assert quantised_linear(nn.Linear(63, 8), "int8-torchao", torch.float32).weight.shape == (8, 63)


def test_a_layer_without_a_bias_and_the_shape_of_the_input_are_kept() -> None:
    linear = nn.Linear(64, 32, bias=False)
    layer = quantised_linear(linear, "fp8-torchao", torch.float32)
    assert layer.bias is None and layer(draw(2, 3, 5, 64, seed=1)).shape == (2, 3, 5, 32)
    assert dequantised(layer).bias is None


@pytest.mark.parametrize("name", QUANTISED)
def test_a_block_compiles_into_one_graph(name: str) -> None:
    layer = quantised_linear(nn.Linear(64, 32), name, torch.bfloat16)
    x = draw(2, 4, 64, seed=1).requires_grad_()
    layer(x).float().square().sum().backward()
    plain, x.grad = x.grad, None
    torch.compile(layer, fullgraph=True, backend="aot_eager")(x).float().square().sum().backward()
    assert torch.equal(x.grad, plain)


@pytest.mark.parametrize(
    ("name", "expected"), [("no_change", 8.87), ("int8-quanto", 4.56), ("nf4-bnb", 2.47), ("int4-torchao", 2.67)]
)
def test_bytes_of_the_real_text_encoder(name: str, expected: float) -> None:
    """T5 v1.1 XXL, computed on the meta device; with ``wo`` left alone NF4 would be 4.0 GiB."""
    with torch.device("meta"):
        encoder = T5EncoderModel(
            T5Config(
                vocab_size=32128,
                **dict(d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64),
                feed_forward_proj="gated-gelu",
            )
        )
    assert model_gib(encoder, "text_encoder", name) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("name", "expected"), [("no_change", 3.58), ("int8-torchao", 1.83), ("nf4-bnb", 0.99)])
def test_bytes_of_the_real_transformer(name: str, expected: float) -> None:
    with torch.device("meta"):
        transformer = LTXVideoTransformer3DModel()
    assert model_gib(transformer, "transformer", name) == pytest.approx(expected, abs=0.01)


def model_gib(model: nn.Module, part: str, name: str) -> float:
    total = 0
    for owner, module in model.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            if own == "weight" and is_quantised_layer(part, owner):  # type: ignore[arg-type]
                total += FORMATS[name].stored_bytes(*parameter.shape)
            elif not owner.endswith("embed_tokens"):  # one table of words under two names
                total += 2 * parameter.numel()
    return total / 2**30


def test_codes_of_four_bits_are_read_in_the_order_in_which_they_were_packed() -> None:
    """A weight that the format holds exactly: codes 0 to 15 on a grid, one group to a row."""
    codes = torch.randint(0, 16, (8, 128))
    codes[:, 0], codes[:, 1] = 0, 15
    linear = nn.Linear(128, 8, bias=False)
    linear.weight.data = codes.float() - 8
    layer = quantised_linear(linear, "int4-quanto", torch.float32)
    assert torch.equal(decode("int4-quanto", layer.stored(), 8, 128).float(), codes.float() - 8)
