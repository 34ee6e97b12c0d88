"""torch.compile of the transformer. Here without the code generator, but for one test that is asked for by name."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch._dynamo.utils import counters

from ltxtrain.config.compute import MemoryConfig, SpeedConfig
from ltxtrain.model.adapter import AdapterSpec, adapter_off
from ltxtrain.model.attention import set_attention
from ltxtrain.model.checkpointing import set_checkpointing
from ltxtrain.model.compiling import compile_blocks
from ltxtrain.model.offload import place_transformer
from ltxtrain.model.transformer import predict_velocity
from tests.quantised import quantise
from tests.small import draw, small_transformer, with_adapter

BLOCKS = 3
SPEC = AdapterSpec(2, 2.0, 0.0, ("to_q", "to_k", "to_v", "to_out.0"))
EAGER = SpeedConfig(dynamo_backend="eager", dynamo_fullgraph=True)
OFF = MemoryConfig(gradient_checkpointing=False)


def build(memory: MemoryConfig = OFF, precision: str = "no_change") -> LTXVideoTransformer3DModel:
    """Three small blocks with an adapter, put together in the order of training, but for compiling."""
    transformer = small_transformer(BLOCKS, head_dim=16, text=8)
    if precision != "no_change":
        quantise(transformer, "transformer", precision, torch.float32)
    with_adapter(transformer, SPEC)
    set_checkpointing(transformer, memory)
    place_transformer(transformer, torch.device("cpu"), memory)
    set_attention(transformer, SpeedConfig(), training=True)
    return transformer.train()


def step(
    transformer: LTXVideoTransformer3DModel, frames: int = 2, batch: int = 1
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The velocity and the adapter's gradients."""
    transformer.zero_grad()
    mask_BL = torch.arange(8).expand(batch, 8) < 5
    velocity = predict_velocity(
        transformer,
        draw(batch, 128, frames, 2, 2, seed=1),
        torch.full((batch,), 0.5),
        draw(batch, 8, 8, seed=2),
        mask_BL,
        25.0,
    )
    velocity.square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in transformer.named_parameters() if p.requires_grad}
    return velocity.detach(), gradients


def same(
    one: tuple[torch.Tensor, dict[str, torch.Tensor]], other: tuple[torch.Tensor, dict[str, torch.Tensor]]
) -> bool:
    return torch.equal(one[0], other[0]) and all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.fixture(autouse=True)
def from_anew() -> Iterator[None]:
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit = limits


@pytest.mark.parametrize(
    ("memory", "precision"),
    [
        (OFF, "no_change"),
        (MemoryConfig(), "int8-torchao"),
        (
            MemoryConfig(gradient_checkpointing_backend="unsloth", gradient_checkpointing_interval=2),
            "no_change",
        ),
        (MemoryConfig(gradient_checkpointing_free_blocks=1, enable_group_offload=True), "no_change"),
        (MemoryConfig(gradient_checkpointing=False, musubi_blocks_to_swap=2), "int8-quanto"),
    ],
    ids=["plain", "checkpointing+int8", "moved pieces", "offload", "swap+int8"],
)
def test_blocks_give_the_same_bits_and_share_what_is_compiled(memory: MemoryConfig, precision: str) -> None:
    transformer = build(memory, precision)
    expected = step(transformer)
    compile_blocks(transformer, EAGER)
    assert same(step(transformer), expected)
    # One for the first block, whose input needs no gradient, and one for all the others.
    assert counters["stats"]["unique_graphs"] == 2
    assert same(step(transformer), expected)
    assert counters["stats"]["unique_graphs"] == 2


def test_as_a_whole_it_is_one_graph() -> None:
    transformer = build()
    expected = step(transformer)
    compile_blocks(transformer, SpeedConfig(dynamo_backend="eager", dynamo_use_regional_compilation=False))
    assert same(step(transformer), expected)
    assert counters["stats"]["unique_graphs"] == 1


def shown(transformer: LTXVideoTransformer3DModel, shapes: tuple[int, ...]) -> int:
    """How many graphs it takes to go through clips of these many latent frames."""
    with torch.no_grad():
        for frames in shapes:
            noisy_BCFHW = draw(1, 128, frames, 1, 3, seed=frames)
            predict_velocity(transformer, noisy_BCFHW, torch.full((1,), 0.5), draw(1, 8, 8, seed=2), None, 25.0)
    return int(counters["stats"]["unique_graphs"])


def test_more_shapes_than_torchs_own_limit_are_all_compiled() -> None:
    torch._dynamo.config.recompile_limit = 2  # it is 8; beyond it a shape runs uncompiled, which only a log tells
    transformer = build()
    compile_blocks(transformer, EAGER)
    assert shown(transformer, (1, 2, 3, 4)) == 4


def test_one_graph_can_do_for_all_shapes() -> None:
    transformer = build()
    compile_blocks(transformer, EAGER.model_copy(update={"dynamo_dynamic": True}))
    assert shown(transformer, (2, 3, 5)) == 1


def test_the_untouched_model_and_validation_are_compiled_for_themselves() -> None:
    transformer = build()
    given = (draw(1, 128, 2, 2, 2, seed=1), torch.full((1,), 0.5), draw(1, 8, 8, seed=2), None, 25.0)
    with torch.no_grad():
        with adapter_off(transformer):
            untouched = predict_velocity(transformer, *given)
        rendered = predict_velocity(transformer.eval(), *given)
        compile_blocks(transformer.train(), EAGER)
        assert torch.equal(predict_velocity(transformer, *given), rendered)
        with adapter_off(transformer):
            assert torch.equal(predict_velocity(transformer, *given), untouched)
        assert torch.equal(predict_velocity(transformer.eval(), *given), rendered)
    assert not torch.equal(untouched, rendered)


def test_without_a_back_end_nothing_is_compiled() -> None:
    transformer = build()
    compile_blocks(transformer, SpeedConfig(dynamo_mode="default", dynamo_fullgraph=True))
    step(transformer)
    assert not counters["stats"]


@pytest.mark.slow
@pytest.mark.skipif("COMPILE" not in os.environ, reason="takes minutes, and a C++ compiler: set COMPILE to run it")
@pytest.mark.parametrize("precision", ["no_change", "int8-torchao"])
def test_generated_code_computes_the_same_but_for_rounding(precision: str) -> None:
    transformer, shapes = build(MemoryConfig(), precision), (2, 3)
    expected = [step(transformer, frames) for frames in shapes]
    compile_blocks(transformer, SpeedConfig(dynamo_backend="inductor", dynamo_fullgraph=True))
    for frames, (velocity, gradients) in zip(shapes, expected, strict=True):
        found, found_gradients = step(transformer, frames)
        torch.testing.assert_close(found, velocity, rtol=1e-2, atol=2e-3)
        for name, gradient in gradients.items():
            assert torch.cosine_similarity(found_gradients[name].flatten(), gradient.flatten(), 0) > 0.999
