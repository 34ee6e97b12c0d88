"""Under autocast the adapter's input is not cast up to be cast down again."""

from __future__ import annotations

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from peft.tuners.lora import LoraLayer

from ltxtrain.config.compute import SpeedConfig
from ltxtrain.model.adapter import AdapterSpec, attach_adapter
from ltxtrain.model.compiling import compile_blocks
from ltxtrain.model.transformer import predict_velocity

SPEC = AdapterSpec(2, 2.0, 0.0, ("to_q", "to_k", "to_v", "to_out.0"))


def build() -> tuple[LTXVideoTransformer3DModel, dict[str, torch.nn.Parameter]]:
    """A base in bf16 with an adapter in float32, as training has them."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformer = LTXVideoTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32, num_layers=2, caption_channels=8
        )
    parameters = attach_adapter(transformer.to(torch.bfloat16), SPEC, 0)
    for index, parameter in enumerate(parameters.values()):
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return transformer.train(), parameters


def velocity(transformer: LTXVideoTransformer3DModel, *, autocast: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noisy_BCFHW = torch.randn(1, 128, 2, 2, 2, generator=generator).bfloat16()
    embeds_BLD = torch.randn(1, 8, 8, generator=generator).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        return predict_velocity(transformer, noisy_BCFHW, torch.tensor([0.5]), embeds_BLD, None, 25.0)


def saved_bytes(transformer: LTXVideoTransformer3DModel) -> int:
    """Of what the backward pass keeps, each stretch of memory once."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = velocity(transformer, autocast=True)
        assert found.requires_grad
        return sum(kept.values())


def as_peft_does(transformer: LTXVideoTransformer3DModel) -> None:
    for module in transformer.modules():
        if isinstance(module, LoraLayer):
            del module._cast_input_dtype


def test_gradients_are_the_same_bits_and_less_is_kept() -> None:
    found = {}
    for ours in (True, False):
        transformer, parameters = build()
        if not ours:
            as_peft_does(transformer)
        kept = saved_bytes(transformer)
        velocity(transformer, autocast=True).float().square().mean().backward()
        found[ours] = kept, {name: parameter.grad for name, parameter in parameters.items()}
    for name, gradient in found[True][1].items():
        assert gradient.abs().max() > 0 and torch.equal(gradient, found[False][1][name])
    assert found[True][0] < found[False][0]


def test_without_autocast_it_is_cast_as_before() -> None:
    transformer, _ = build()
    ours = velocity(transformer, autocast=False)
    as_peft_does(transformer)
    assert torch.equal(velocity(transformer, autocast=False), ours)


@pytest.mark.parametrize("autocast", [True, False])
def test_it_compiles(autocast: bool) -> None:
    transformer, _ = build()
    expected = velocity(transformer, autocast=autocast)
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    try:
        compile_blocks(transformer, SpeedConfig(dynamo_backend="eager", dynamo_fullgraph=True))
        assert torch.equal(velocity(transformer, autocast=autocast), expected)
    finally:
        torch._dynamo.reset()
        torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit = limits
