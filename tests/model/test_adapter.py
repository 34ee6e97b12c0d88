from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.config.model import AdapterConfig
from ltxtrain.errors import ConfigError, ModelError
from ltxtrain.model.adapter import (
    AdapterSpec,
    adapter_off,
    adapter_spec,
    adapter_weights,
    attach_adapter,
    load_adapter_weights,
)
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_transformer
from ltxtrain.model.tiny import TinySpec
from ltxtrain.model.transformer import predict_velocity

TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
WIDTH, BLOCKS, TEXT_WIDTH = TinySpec().heads * TinySpec().head_dim, TinySpec().layers, TinySpec().text_dim
SPEC = AdapterSpec(rank=4, alpha=4.0, dropout=0.0, targets=TARGETS)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def velocity(transformer: LTXVideoTransformer3DModel) -> torch.Tensor:
    noisy_BCFHW, embeds_BLD = draw(1, 128, 2, 2, 2, seed=1), draw(1, 128, TEXT_WIDTH, seed=2)
    mask_BL = torch.ones(1, 128, dtype=torch.bool)
    dtype = transformer.dtype
    return predict_velocity(
        transformer, noisy_BCFHW.to(dtype), torch.tensor([0.5]), embeds_BLD.to(dtype), mask_BL, 25.0
    )


def train(transformer: LTXVideoTransformer3DModel, parameters: dict[str, torch.nn.Parameter], steps: int = 5) -> None:
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-2)
    for _ in range(steps):
        velocity(transformer).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.fixture(scope="module")
def untouched(tiny: ModelFolder) -> torch.Tensor:
    """What the base model says of the one example of this file."""
    with torch.no_grad():
        return velocity(load_transformer(tiny, Loading(torch.float32)))


@pytest.fixture
def other_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(987)
        yield


def test_the_documented_targets_are_the_projections_of_both_attentions(
    transformer: LTXVideoTransformer3DModel,
) -> None:
    parameters = attach_adapter(transformer, adapter_spec(AdapterConfig()), 0)
    wrapped = {name.partition(".lora_")[0] for name in parameters}
    assert wrapped == {
        f"transformer_blocks.{block}.{attention}.{projection}"
        for block in range(BLOCKS)
        for attention in ("attn1", "attn2")
        for projection in ("to_k", "to_q", "to_v", "to_out.0")
    }
    assert list(parameters) == sorted(parameters)
    assert {name for name, p in transformer.named_parameters() if p.requires_grad} == set(parameters)


def test_other_targets_come_from_a_list_or_a_json_file(transformer: LTXVideoTransformer3DModel, tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(["proj_in", "ff.net.2"]))
    from_list = adapter_spec(AdapterConfig(peft_lora_target_modules=("proj_in", "ff.net.2")))
    from_file = adapter_spec(AdapterConfig(peft_lora_target_modules=path))
    assert from_list == from_file
    wrapped = {name.partition(".lora_")[0] for name in attach_adapter(transformer, from_file, 0)}
    assert wrapped == {"proj_in", *(f"transformer_blocks.{block}.ff.net.2" for block in range(BLOCKS))}
    path.write_text("{}")
    with pytest.raises(ConfigError, match="holds no list of module names"):
        adapter_spec(AdapterConfig(peft_lora_target_modules=path))


@pytest.mark.parametrize("target", ["to_query", "attn1", "to_out", "o_q", "norm_q"])
def test_a_target_that_is_no_linear_module_is_refused_with_the_names_there_are(
    transformer: LTXVideoTransformer3DModel, target: str
) -> None:
    with pytest.raises(ModelError, match=f"no module of the transformer is called '{target}'") as refused:
        attach_adapter(transformer, AdapterSpec(4, 4.0, 0.0, ("to_q", target)), 0)
    names = {"linear", "linear_1", "linear_2", "net.2", "proj", "proj_in", "proj_out", *TARGETS}
    assert refused.value.hint == "the linear modules are called " + ", ".join(sorted(names))
    assert not any("lora" in name for name, _ in transformer.named_parameters())


@torch.no_grad()
def test_at_the_start_the_output_is_unchanged_bit_for_bit(
    transformer: LTXVideoTransformer3DModel, untouched: torch.Tensor
) -> None:
    attach_adapter(transformer, SPEC, 0)
    assert torch.equal(velocity(transformer), untouched)


def test_with_the_adapter_off_the_base_is_untouched_also_after_training(
    transformer: LTXVideoTransformer3DModel, untouched: torch.Tensor
) -> None:
    parameters = attach_adapter(transformer, SPEC, 0)
    train(transformer, parameters)
    with torch.no_grad():
        trained = velocity(transformer)
        with adapter_off(transformer):
            assert torch.equal(velocity(transformer), untouched)
        assert torch.equal(velocity(transformer), trained)
    assert not torch.allclose(trained, untouched, atol=1e-3)
    assert all(parameter.requires_grad for parameter in parameters.values())


def test_the_adapter_is_on_again_after_an_error(transformer: LTXVideoTransformer3DModel) -> None:
    train(transformer, attach_adapter(transformer, SPEC, 0), steps=2)
    with torch.no_grad():
        trained = velocity(transformer)
        with pytest.raises(KeyError), adapter_off(transformer):
            raise KeyError
        assert torch.equal(velocity(transformer), trained)


def test_parameters_are_float32_over_a_bfloat16_base(tiny: ModelFolder) -> None:
    transformer = load_transformer(tiny, Loading(torch.bfloat16))
    parameters = attach_adapter(transformer, SPEC, 0)
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    assert transformer.transformer_blocks[0].attn1.to_q.base_layer.weight.dtype == torch.bfloat16
    train(transformer, parameters, steps=2)
    assert {tensor.dtype for tensor in adapter_weights(transformer).values()} == {torch.float32}
    moved = parameters["transformer_blocks.0.attn1.to_q.lora_B.default.weight"]
    # Not representable in bfloat16: the update was not rounded away.
    assert not torch.equal(moved, moved.to(torch.bfloat16).to(torch.float32))


def test_the_seed_decides_the_start_and_nothing_else_does(tiny: ModelFolder, other_random_state: None) -> None:
    first, again, other = (load_transformer(tiny, Loading(torch.float32)) for _ in range(3))
    attach_adapter(first, SPEC, 7)
    torch.rand(5)
    attach_adapter(again, SPEC, 7)
    attach_adapter(other, SPEC, 8)
    mine, same, different = (adapter_weights(model) for model in (first, again, other))
    assert all(torch.equal(mine[name], same[name]) for name in mine)
    assert all(not torch.equal(mine[name], different[name]) for name in mine if "lora_A" in name)
    assert all(not tensor.any() for name, tensor in mine.items() if "lora_B" in name)


def test_attaching_leaves_the_random_state_of_the_caller(
    transformer: LTXVideoTransformer3DModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded_gpus: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_gpus.append)
    before = torch.get_rng_state()
    attach_adapter(transformer, SPEC, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded_gpus == []


def test_gaussian_starts_are_narrower_than_the_default(tiny: ModelFolder) -> None:
    spread = {}
    for init in ("default", "gaussian"):
        transformer = load_transformer(tiny, Loading(torch.float32))
        attach_adapter(transformer, AdapterSpec(16, 16.0, 0.0, ("to_q",), init), 0)
        first = adapter_weights(transformer)["transformer_blocks.0.attn1.to_q.lora_A.weight"]
        spread[init] = first.std().item()
    assert spread["gaussian"] == pytest.approx(1 / 16, rel=0.1)  # a normal distribution of 1 / rank
    assert spread["default"] == pytest.approx((1 / 3 / WIDTH) ** 0.5, rel=0.1)  # uniform in +-1 / sqrt(width)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1.0), (4.0, 1.0), (8.0, 2.0), (1.0, 0.25)])
def test_the_adapter_counts_alpha_divided_by_rank(
    transformer: LTXVideoTransformer3DModel, alpha: float | None, scale: float
) -> None:
    attach_adapter(transformer, adapter_spec(AdapterConfig(lora_rank=4, lora_alpha=alpha)), 0)
    layer = transformer.transformer_blocks[0].attn1.to_q
    torch.nn.init.ones_(layer.lora_B["default"].weight)
    x_SD = draw(3, WIDTH, seed=5)
    by_hand_SD = x_SD @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    torch.testing.assert_close(layer(x_SD) - layer.base_layer(x_SD), scale * by_hand_SD, atol=1e-5, rtol=1e-5)


def test_dropout_acts_in_training_only(transformer: LTXVideoTransformer3DModel, other_random_state: None) -> None:
    attach_adapter(transformer, adapter_spec(AdapterConfig(lora_rank=4, lora_dropout=0.5)), 0)
    layer = transformer.transformer_blocks[0].attn1.to_q
    torch.nn.init.ones_(layer.lora_B["default"].weight)
    x_SD = draw(3, WIDTH, seed=5)
    transformer.train()
    assert not torch.equal(layer(x_SD), layer(x_SD))
    transformer.eval()
    assert torch.equal(layer(x_SD), layer(x_SD))


def test_weights_make_the_round_trip(tiny: ModelFolder, transformer: LTXVideoTransformer3DModel) -> None:
    train(transformer, attach_adapter(transformer, SPEC, 0))
    weights = adapter_weights(transformer)
    assert list(weights)[:2] == [f"transformer_blocks.0.attn1.to_k.lora_{part}.weight" for part in "AB"]
    assert len(weights) == BLOCKS * 16
    other = load_transformer(tiny, Loading(torch.float32))
    parameters = attach_adapter(other, SPEC, 1)
    load_adapter_weights(other, weights)
    back = adapter_weights(other)
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    with torch.no_grad():
        assert torch.equal(velocity(other), velocity(transformer))
    # The very tensors that an optimiser holds have the new values, and the copies are no views of them.
    held = parameters["transformer_blocks.0.attn1.to_k.lora_A.default.weight"]
    assert torch.equal(held, weights["transformer_blocks.0.attn1.to_k.lora_A.weight"])
    held.data.zero_()
    assert back["transformer_blocks.0.attn1.to_k.lora_A.weight"].any()


@pytest.mark.parametrize("change", ["shape", "missing", "extra"])
def test_weights_that_do_not_fit_are_refused_and_change_nothing(
    transformer: LTXVideoTransformer3DModel, change: str
) -> None:
    attach_adapter(transformer, SPEC, 0)
    name = "transformer_blocks.1.attn2.to_v.lora_A.weight"
    weights = {key: tensor + 1 for key, tensor in adapter_weights(transformer).items()}
    if change == "shape":
        weights[name] = torch.zeros(8, WIDTH)
    elif change == "missing":
        del weights[name]
    else:
        name = "proj_in.lora_A.weight"
        weights[name] = torch.zeros(4, 128)
    before = adapter_weights(transformer)
    with pytest.raises(ModelError, match=name):
        load_adapter_weights(transformer, weights)
    after = adapter_weights(transformer)
    assert all(torch.equal(before[key], after[key]) for key in before)
