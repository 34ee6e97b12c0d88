"""What is recomputed and where it waits changes memory and time, and not one bit of the gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.config import load_config
from ltxtrain.config.compute import MemoryConfig
from ltxtrain.errors import ConfigError
from ltxtrain.model.activations import MovedInputs
from ltxtrain.model.adapter import AdapterSpec
from ltxtrain.model.checkpointing import recomputed_pieces, set_checkpointing
from ltxtrain.model.transformer import predict_velocity
from tests.small import draw, small_transformer, with_adapter

LAYERS = 5
SPEC = AdapterSpec(rank=2, alpha=2.0, dropout=0.25, targets=("to_q", "to_k", "to_v", "to_out.0", "net.2"))


GIVEN = (draw(2, 128, 3, 2, 4, seed=1), torch.tensor([0.25, 0.8]), draw(2, 16, 32, seed=2))
MASK_BL = torch.arange(16).expand(2, 16) < 9


def made(**options: Any) -> tuple[LTXVideoTransformer3DModel, dict[str, torch.nn.Parameter]]:
    """The same model each time: five blocks, and an adapter with dropout."""
    transformer = small_transformer(LAYERS, head_dim=16, text=32)
    parameters = with_adapter(transformer, SPEC)
    set_checkpointing(transformer, MemoryConfig(**options))
    return transformer.train(), parameters


def loss_of(transformer: LTXVideoTransformer3DModel) -> torch.Tensor:
    velocity_BCFHW = predict_velocity(transformer, *GIVEN, MASK_BL, 25.0)
    return velocity_BCFHW.square().mean()


def gradients(**options: Any) -> dict[str, torch.Tensor]:
    """Of two steps' sum, after a forward pass without gradients, as an evaluation between them is."""
    transformer, parameters = made(**options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(7)
        loss_of(transformer).backward()
        with torch.no_grad():
            loss_of(transformer)
        loss_of(transformer).backward()
        after = torch.rand(())
    return {name: parameter.grad for name, parameter in parameters.items()} | {"the random state": after}


@pytest.fixture(scope="module")
def plain() -> dict[str, torch.Tensor]:
    return gradients(gradient_checkpointing=False)


WAYS: list[dict[str, Any]] = [
    {},
    {"gradient_checkpointing_interval": 2},
    {"gradient_checkpointing_interval": 9},
    {"gradient_checkpointing_free_blocks": 2},
    {"gradient_checkpointing_free_blocks": 99},
    {"gradient_checkpointing_interval": 2, "gradient_checkpointing_free_blocks": 2},
    {"gradient_checkpointing_interval": 2, "gradient_checkpointing_segment_stride": 4},
    {"gradient_checkpointing_backend": "unsloth"},
    {"gradient_checkpointing_backend": "unsloth", "gradient_checkpointing_offload_prefetch": True},
    {
        "gradient_checkpointing_backend": "unsloth",
        "gradient_checkpointing_offload_prefetch": True,
        "gradient_checkpointing_interval": 2,
        "gradient_checkpointing_free_blocks": 1,
    },
    {"gradient_checkpointing_backend": "torch-ffn"},
    {"gradient_checkpointing_backend": "torch-ffn", "gradient_checkpointing_free_blocks": 2},
    {"gradient_checkpointing_backend": "unsloth-ffn"},
    {"gradient_checkpointing_backend": "unsloth-ffn", "gradient_checkpointing_offload_prefetch": True},
]


def named(way: dict[str, Any]) -> str:
    return "-".join(f"{name.removeprefix('gradient_checkpointing_')}={value}" for name, value in way.items()) or "whole"


@pytest.mark.parametrize("way", WAYS, ids=named)
def test_gradients_are_those_of_plain_training_bit_for_bit(way: dict[str, Any], plain: dict[str, torch.Tensor]) -> None:
    mine = gradients(gradient_checkpointing=True, **way)
    assert mine.keys() == plain.keys() and len(mine) == 2 * 9 * LAYERS + 1
    for name, gradient in plain.items():
        assert torch.equal(mine[name], gradient), name
        assert gradient.any(), name


@contextmanager
def counted_forwards(transformer: LTXVideoTransformer3DModel, part: str = "") -> Iterator[list[int]]:
    """How often each block, or that part of it, computed."""
    counts = [0] * LAYERS
    hooks = []
    for number, block in enumerate(transformer.transformer_blocks):

        def count(*_: object, number: int = number) -> None:
            counts[number] += 1

        # The last thing inside: a recomputation ends where all that backward needs is there.
        hooks.append(block.get_submodule(part or "attn1.to_q").register_forward_hook(count))
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"gradient_checkpointing": False}, [1, 1, 1, 1, 1]),
        ({}, [2, 2, 2, 2, 2]),
        ({"gradient_checkpointing_interval": 2}, [2, 2, 2, 2, 2]),
        ({"gradient_checkpointing_free_blocks": 2}, [2, 2, 2, 1, 1]),
        ({"gradient_checkpointing_interval": 2, "gradient_checkpointing_segment_stride": 3}, [2, 2, 1, 2, 2]),
        ({"gradient_checkpointing_backend": "unsloth", "gradient_checkpointing_free_blocks": 4}, [2, 1, 1, 1, 1]),
        ({"gradient_checkpointing_backend": "torch-ffn"}, [1, 1, 1, 1, 1]),
    ],
    ids=lambda case: named(case) if isinstance(case, dict) else None,
)
def test_blocks_are_recomputed_as_often_as_the_options_say(options: dict[str, Any], expected: list[int]) -> None:
    transformer, _ = made(**options)
    with counted_forwards(transformer) as counts:
        loss_of(transformer).backward()
    assert counts == expected
    with counted_forwards(transformer) as counts, torch.no_grad():
        loss_of(transformer)
    assert counts == [1] * LAYERS


@pytest.mark.parametrize(("free", "expected"), [(0, [2, 2, 2, 2, 2]), (2, [2, 2, 2, 1, 1])])
@pytest.mark.parametrize("backend", ["torch-ffn", "unsloth-ffn"])
def test_only_the_feed_forward_is_recomputed(backend: str, free: int, expected: list[int]) -> None:
    transformer, _ = made(gradient_checkpointing_backend=backend, gradient_checkpointing_free_blocks=free)
    set_checkpointing(  # once more is once
        transformer,
        MemoryConfig(gradient_checkpointing_backend=backend, gradient_checkpointing_free_blocks=free),
    )
    with counted_forwards(transformer, "ff.net.0") as counts:
        loss_of(transformer).backward()
    assert counts == expected


@pytest.mark.parametrize(
    ("layers", "options", "expected"),
    [
        (6, {"interval": 1, "stride": None, "free": 0}, [[0], [1], [2], [3], [4], [5]]),
        (6, {"interval": 4, "stride": None, "free": 0}, [[0, 1, 2, 3], [4, 5]]),
        (6, {"interval": 2, "stride": None, "free": 3}, [[0, 1], [2]]),
        (8, {"interval": 2, "stride": 4, "free": 0}, [[0, 1], [4, 5]]),
        (6, {"interval": 1, "stride": 3, "free": 0}, [[0], [3]]),
        (6, {"interval": 1, "stride": None, "free": 6}, []),
        (6, {"interval": 1, "stride": None, "free": 7}, []),
    ],
)
def test_pieces_are_runs_of_blocks(layers: int, options: dict[str, Any], expected: list[list[int]]) -> None:
    assert [list(piece) for piece in recomputed_pieces(layers, **options)] == expected


def kept_bytes(**options: Any) -> int:
    """Bytes that autograd keeps between forward and backward, but for the model's own weights, each storage once."""
    transformer, _ = made(**options)
    weights = {tensor.untyped_storage().data_ptr() for tensor in transformer.parameters()}
    kept: dict[int, int] = {}

    def pack(saved: torch.Tensor) -> torch.Tensor:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        loss = loss_of(transformer)
    loss.backward()
    return sum(kept.values())


def test_each_way_keeps_less_than_the_one_before() -> None:
    ways = [
        {"gradient_checkpointing": False},
        {"gradient_checkpointing_backend": "torch-ffn"},
        {"gradient_checkpointing_free_blocks": 2},
        {"gradient_checkpointing_free_blocks": 1},
        {},
        {"gradient_checkpointing_interval": 2},
        {"gradient_checkpointing_interval": 5},
    ]
    sizes = [kept_bytes(**way) for way in ways]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(sizes)


def test_an_input_waits_as_a_copy_and_the_one_before_it_is_fetched_ahead() -> None:
    moved = MovedInputs(ahead=True)
    inputs = [draw(2, 24, 32, seed=number).requires_grad_() for number in range(3)]
    waiting = []
    outputs = []
    for one in inputs:
        with moved.waiting(one):
            outputs.append(one.square())
        waiting.append(moved._last())
    assert [entry.host.data_ptr() != one.data_ptr() for entry, one in zip(waiting, inputs, strict=True)] == [True] * 3
    outputs[2].sum().backward()
    assert [entry.fetched is not None for entry in waiting] == [False, True, False]
    outputs[1].sum().backward()
    assert [entry.fetched is not None for entry in waiting] == [True, False, False]
    outputs[0].sum().backward()
    for one in inputs:
        assert torch.equal(one.grad, 2 * one)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gradient_checkpointing_backend": "torch-ffn", "gradient_checkpointing_interval": 2}, "by itself"),
        ({"gradient_checkpointing_interval": 3, "gradient_checkpointing_segment_stride": 2}, "would overlap"),
        ({"gradient_checkpointing_offload_attention": True}, "is not built yet"),
    ],
)
def test_what_cannot_be_is_refused_with_a_way_out(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(flags=options, env={})
    (fault,) = caught.value.faults
    assert words in fault.problem and fault.suggestion
