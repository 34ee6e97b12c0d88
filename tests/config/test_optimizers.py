"""The table of optimisers: one row for each name, the guides' settings, and bytes worked out by hand."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from ltxtrain.config import load_config
from ltxtrain.config.optim import OptimizerName
from ltxtrain.config.optimizers import OPTIMIZERS, adapter_dtype, clips, settings_of, state_bytes, taken_words
from ltxtrain.config.verdicts import EVERYWHERE
from ltxtrain.errors import ConfigError

# Section 5.1 of the guides: betas and settings that they state.
DOCUMENTED = {
    "adamw_bf16": ((0.9, 0.999), {"weight_decay": 1e-2, "eps": 1e-6}),
    "bnb-adamw": ((0.9, 0.999), {"weight_decay": 1e-2, "eps": 1e-6}),
    "bnb-adamw8bit": ((0.9, 0.999), {"weight_decay": 1e-2, "eps": 1e-6}),
    "bnb-adamw-paged": ((0.9, 0.999), {"weight_decay": 1e-2, "eps": 1e-6}),
    "bnb-adamw8bit-paged": ((0.9, 0.999), {"weight_decay": 1e-2, "eps": 1e-6}),
    "bnb-lion8bit-paged": ((0.9, 0.99), {"weight_decay": 0.0, "min_8bit_size": 4096}),
    "optimi-stableadamw": ((0.9, 0.99), {"weight_decay": 1e-2, "eps": 1e-6}),
}


def test_each_name_has_a_row_and_no_other() -> None:
    assert OPTIMIZERS.keys() == set(get_args(OptimizerName))


@pytest.mark.parametrize("name", DOCUMENTED)
def test_defaults_are_the_documented_ones(name: str) -> None:
    betas, settings = DOCUMENTED[name]
    assert OPTIMIZERS[name].betas == betas
    assert settings_of(name, None).items() >= settings.items()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_does_not_work_everywhere_names_another_that_does(name: str) -> None:
    verdict = OPTIMIZERS[name].verdict
    if verdict.refused:
        assert verdict.why and not OPTIMIZERS[verdict.instead].verdict.refused
    elif verdict.on != EVERYWHERE or verdict.needs or verdict.capability:
        seen = {name}
        while (verdict.on, verdict.needs, verdict.capability) != (EVERYWHERE, "", None):
            name = verdict.instead
            assert name not in seen
            seen.add(name)
            verdict = OPTIMIZERS[name].verdict
    else:
        assert not verdict.instead


def test_bitsandbytes_and_torchao_are_not_for_apple() -> None:
    names = [name for name, facts in OPTIMIZERS.items() if facts.library in ("bitsandbytes", "torchao")]
    assert len(names) == 20 and all("mps" not in OPTIMIZERS[name].verdict.on for name in names)


def test_bytes_of_states() -> None:
    million = 1_000_000
    assert state_bytes("torch-adamw", million) == 8_000_000  # two buffers in float32
    assert state_bytes("torch-adamw", million, text="amsgrad=true") == 12_000_000
    assert state_bytes("torch-sgd", million) == 0
    assert state_bytes("torch-sgd", million, text="momentum=0.9") == 4_000_000
    assert state_bytes("adamw_bf16", million) == 6_000_000  # two moments and the carry, two bytes each
    assert state_bytes("optimi-lion", million) == 4_000_000  # one moment and Kahan's
    assert state_bytes("bnb-lion8bit-paged", million) == 1_015_625  # a byte, and a float32 for each 256
    small, large = (32, 100), (100, 100)
    assert state_bytes("bnb-lion8bit", 13_200, [small, large]) == 4 * 3200 + 10_156
    assert state_bytes("bnb-lion8bit", 13_200, [small, large], "min_8bit_size=1000") == 13_406
    assert state_bytes("torch-adafactor", 13_200, [small, large]) == 4 * (132 + 200)
    assert state_bytes("soap", 13_200, [small, large]) == 8 * 13_200 + 8 * (32**2 + 3 * 100**2)
    assert state_bytes("soap", 13_200, [small, large], "max_precondition_dim=50") == 8 * 13_200 + 8 * 32**2


def test_rates_are_compared_as_lr_scale_makes_them() -> None:
    cosine = {"lr_scheduler": "cosine", "learning_rate": 3e-7, "lr_end": 4e-7, "train_batch_size": 2}
    with pytest.raises(ConfigError, match="not below learning_rate 3e-07 "):
        load_config(env={}, flags=cosine)
    load_config(env={}, flags=cosine | {"lr_scale": True})
    load_config(env={}, flags={"optimizer": "prodigy", "learning_rate": 0.005, "lr_scale": True, "train_batch_size": 2})


@pytest.mark.parametrize(("old", "new"), [("adafactor", "torch-adafactor"), ("adamw8bit", "bnb-adamw8bit")])
def test_obsolete_names_are_refused_with_what_does_the_same(old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=rf"'{old}' is an obsolete name \(use {new}\)"):
        load_config(env={}, flags={"optimizer": old})
    assert not OPTIMIZERS[new].verdict.refused


def test_betas_among_the_settings_are_answered_with_their_options() -> None:
    with pytest.raises(ConfigError, match="its betas are optimizer_beta1 and optimizer_beta2"):
        load_config(env={}, flags={"optimizer_config": "betas=0.9"})


def test_adamw_bf16_trains_over_a_base_in_any_dtype() -> None:
    load_config(env={}, flags={"base_model_default_dtype": "fp32", "optimizer": "adamw_bf16"})


def test_weights_are_in_bfloat16_only_where_rounding_is_carried_along() -> None:
    halved = {name for name in OPTIMIZERS if adapter_dtype(name) == "bfloat16"}
    assert halved == {"adamw_bf16", *(name for name in OPTIMIZERS if name.startswith("optimi-"))}


def test_gradients_of_two_are_not_clipped_and_their_limits_are_told_to_be_idle() -> None:
    assert [name for name in OPTIMIZERS if not clips(name)] == ["optimi-stableadamw", "prodigy"]
    loaded = load_config(env={}, flags={"optimizer": "optimi-stableadamw", "max_grad_norm": "0.5"})
    assert "max_grad_norm has no effect while optimizer is optimi-stableadamw" in loaded.notices


def test_betas_are_told_to_be_idle_where_there_are_none() -> None:
    flags = {"optimizer": "torch-sgd", "optimizer_beta1": "0.8", "optimizer_beta2": "0.9"}
    loaded = load_config(env={}, flags=flags)
    assert "optimizer_beta1, optimizer_beta2 have no effect while optimizer is torch-sgd" in loaded.notices


@pytest.mark.parametrize(
    ("name", "text", "settings"),
    [
        ("optimi-ranger", "k=5,alpha=0.25", {"k": 5, "alpha": 0.25}),
        ("bnb-ademamix", "alpha=8,t_alpha=1000,beta3=0.99", {"alpha": 8.0, "t_alpha": 1000, "beta3": 0.99}),
        ("torch-adafactor", "beta2_decay=-0.5", {"beta2_decay": -0.5}),
        ("prodigy", "d_coef=2,decouple=false", {"d_coef": 2.0, "decouple": False}),
        ("torch-sgd", "momentum=0.9,nesterov=true", {"momentum": 0.9, "nesterov": True}),
        ("muon", "momentum=0,ns_steps=99", {"momentum": 0.0, "ns_steps": 99}),
    ],
)
def test_settings_are_taken_over_the_defaults(name: str, text: str, settings: dict[str, object]) -> None:
    taken = settings_of(name, text)
    assert taken.items() >= settings.items() and taken.keys() == OPTIMIZERS[name].settings.keys()
    assert all(type(value) is type(taken[key]) for key, value in settings.items())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("optimi-ranger", "k=0"),
        ("optimi-ranger", "k=true"),
        ("optimi-ranger", "alpha=1.5"),
        ("torch-sgd", "momentum=1"),
        ("torch-adadelta", "rho=2"),
        ("torch-adafactor", "beta2_decay=0.5"),
        ("prodigy", "d0=0"),
        ("adamw_bf16", "eps=0"),
        ("optimi-adam", "eps=1e-46"),
        ("prodigy", "slice_p=1e+30"),
        ("muon", "ns_steps=100"),
        ("adamw_schedulefree", "r=31"),
        ("prodigy", "slice_p=0"),
        ("optimi-adan", "beta3=1"),
        ("bnb-lion", "min_8bit_size=1"),
        ("optimi-lion", "kahan_sum=false"),
        ("torch-adamw", "weight_decay=much"),
    ],
)
def test_settings_out_of_range_or_of_others_are_named(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{name} cannot take {text}")):
        settings_of(name, text)


def test_what_is_told_of_a_range_is_never_what_was_given() -> None:
    assert taken_words("optimi-adam", "eps=1e-40") == "eps takes a number, 1e-37 or more"
    assert taken_words("optimi-adam", "weight_decay=-1") == "weight_decay takes a number, 0 or more"
