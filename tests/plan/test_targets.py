"""Targets of the adapter are checked in the plan, against the modules that the real transformer has."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from safetensors.numpy import save_file

from ltxtrain.config import LoadedConfig
from ltxtrain.errors import ConfigError
from ltxtrain.facts.machine import Machine
from ltxtrain.facts.models import KNOWN_MODELS, TransformerFacts, linear_names, lora_params, unmatched_targets
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.targets import lora_targets

AddClip = Callable[..., Path]
Load = Callable[..., LoadedConfig]


def real_layers(facts: TransformerFacts) -> dict[str, torch.nn.Linear]:
    """The linear layers of diffusers' class at these sizes, without their weights."""
    with torch.device("meta"):
        transformer = LTXVideoTransformer3DModel(
            in_channels=facts.latent_channels,
            out_channels=facts.latent_channels,
            num_attention_heads=facts.width // 32,
            attention_head_dim=32,
            cross_attention_dim=facts.cross_width,
            num_layers=facts.layers,
            caption_channels=facts.caption_channels,
        )
    return {name: module for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}


@pytest.mark.parametrize("name", ["ltxtrain/tiny", "Lightricks/LTX-Video-0.9.5"])
def test_known_linear_layers_are_those_of_the_real_class(name: str) -> None:
    facts = KNOWN_MODELS[name].transformer
    layers = real_layers(facts)
    assert unmatched_targets(facts, tuple(layers)) == ()
    for target in layers:
        shapes = [
            (layer.in_features, layer.out_features)
            for name, layer in layers.items()
            if f".{name}".endswith(f".{target}")
        ]
        assert lora_params(facts, 4, (target,)) == 4 * sum(map(sum, shapes)) > 0
    everything = sum(layer.in_features + layer.out_features for layer in layers.values())
    assert lora_params(facts, 1, linear_names(facts)) == everything


@pytest.mark.parametrize(
    "target", ["nonsense", "attn1", "to_out", "o_q", "norm_q", "transformer_blocks.attn1.to_q", ""]
)
def test_a_target_that_is_no_linear_module_is_refused_before_anything_is_spent(load: Load, target: str) -> None:
    loaded = load(peft_lora_target_modules=["to_q", target], instance_data_dir="nowhere")
    with pytest.raises(ConfigError, match=f"no module of the transformer is called '{target}'") as caught:
        make_plan(loaded)
    (fault,) = caught.value.faults
    assert (fault.key, fault.source) == ("--peft-lora-target-modules", "")
    assert "to_out.0" in fault.suggestion


def test_targets_of_a_file_are_checked_too(load: Load, tmp_path: Path) -> None:
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(["to_nothing"]))
    with pytest.raises(ConfigError, match="to_nothing"):
        make_plan(load(peft_lora_target_modules=str(path)))


def test_one_layer_of_one_block_is_a_target(add_clip: AddClip, load: Load, machine: Machine) -> None:
    add_clip("a.mp4")
    targets = ["transformer_blocks.1.attn1.to_q", "attn2.to_k", "proj_in", "1.ff.net.2"]
    make_plan(load(peft_lora_target_modules=targets), machine)
    with pytest.raises(ConfigError, match=r"'transformer_blocks\.2\.attn1\.to_q'"):
        make_plan(load(peft_lora_target_modules=["transformer_blocks.2.attn1.to_q"]), machine)


def test_targets_are_left_to_the_run_where_the_transformer_is_not_known(
    add_clip: AddClip, load: Load, machine: Machine
) -> None:
    add_clip("a.mp4")
    for model in ("pretrained_model_name_or_path", "pretrained_transformer_model_name_or_path"):
        make_plan(load(peft_lora_target_modules=["to_nothing"], **{model: "somebody/else"}), machine)


@pytest.mark.parametrize("subfolder", ["transformer", "none", "mine"])
def test_a_transformer_of_its_own_is_read_where_it_lies(
    add_clip: AddClip, load: Load, machine: Machine, tmp_path: Path, subfolder: str
) -> None:
    add_clip("a.mp4")
    folder = tmp_path / "tuned" / ("" if subfolder == "none" else subfolder)
    folder.mkdir(parents=True)
    sizes = {"num_layers": 5, "num_attention_heads": 2, "attention_head_dim": 32, "caption_channels": 32}
    (folder / "config.json").write_text(json.dumps(sizes))
    save_file({"a": np.zeros(7, np.float32)}, folder / "model.safetensors")
    options = {
        "pretrained_transformer_model_name_or_path": str(tmp_path / "tuned"),
        "pretrained_transformer_subfolder": subfolder,
    }
    make_plan(load(peft_lora_target_modules=["transformer_blocks.4.attn1.to_q"], **options), machine)
    with pytest.raises(ConfigError, match=r"transformer_blocks\.5"):
        make_plan(load(peft_lora_target_modules=["transformer_blocks.5.attn1.to_q"], **options), machine)


def test_target_modules_come_from_a_list_or_a_file(load: Load, tmp_path: Path) -> None:
    assert lora_targets(load().config.adapter) == ("to_k", "to_q", "to_v", "to_out.0")
    assert lora_targets(load(peft_lora_target_modules=["to_q"]).config.adapter) == ("to_q",)
    path = tmp_path / "targets.json"
    path.write_text(json.dumps(["ff.net.0.proj", "to_k"]))
    assert lora_targets(load(peft_lora_target_modules=str(path)).config.adapter) == ("ff.net.0.proj", "to_k")
    path.write_text("{}")
    with pytest.raises(ConfigError, match="peft_lora_target_modules"):
        lora_targets(load(peft_lora_target_modules=str(path)).config.adapter)
