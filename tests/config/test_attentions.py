"""The table of attention mechanisms, against the schema and against diffusers' own back ends."""

from __future__ import annotations

from typing import get_args

import pytest
from diffusers.models import attention_dispatch

from ltxtrain.config import load_config
from ltxtrain.config.attentions import ATTENTIONS, OWN
from ltxtrain.config.compute import AttentionMechanism
from ltxtrain.errors import ConfigError

BACKENDS = attention_dispatch._AttentionBackendRegistry
WORKING = {name: attention for name, attention in ATTENTIONS.items() if not attention.verdict.refused}
NEEDED = {"flex": {"dynamo_backend": "inductor"}}


def test_every_documented_name_has_its_row() -> None:
    assert tuple(ATTENTIONS) == get_args(AttentionMechanism)


def test_what_is_refused_says_why_and_names_one_that_works() -> None:
    for name, attention in ATTENTIONS.items():
        if not attention.verdict.refused:
            assert attention.backend, name
            continue
        assert attention.verdict.why and attention.verdict.instead in WORKING
        with pytest.raises(ConfigError) as caught:
            load_config(env={}, flags={"attention_mechanism": name})
        assert attention.verdict.why in str(caught.value) and attention.verdict.instead in str(caught.value)


@pytest.mark.parametrize("name", WORKING)
def test_what_works_is_accepted_and_diffusers_has_it(name: str) -> None:
    loaded = load_config(env={}, flags={"attention_mechanism": name, **NEEDED.get(name, {})})
    assert loaded.config.speed.attention_mechanism == name
    assert attention_dispatch.AttentionBackendName(WORKING[name].backend) in BACKENDS._backends


@pytest.mark.parametrize("name", [name for name in WORKING if "sage" not in name])
def test_the_16_bits_are_those_that_diffusers_checks(name: str) -> None:
    checks = BACKENDS._constraints[attention_dispatch.AttentionBackendName(WORKING[name].backend)]
    assert WORKING[name].half == (attention_dispatch._check_qkv_dtype_bf16_or_fp16 in checks)


def test_captions_keep_their_mask() -> None:
    assert WORKING["diffusers"].backend == OWN and WORKING["diffusers"].masked
    # By their words, these refuse one.
    for name in ("native-flash", "flash-attn", "flash-attn-3", "sageattention"):
        assert not WORKING[name].masked


FLOAT32 = {"base_model_precision": "nf4-bnb", "base_model_default_dtype": "fp32"}


def test_only_where_the_base_is_quantised_does_its_own_dtype_matter() -> None:
    for flags in ({"base_model_default_dtype": "fp32"}, {"base_model_precision": "nf4-bnb"}):
        load_config(env={}, flags={"attention_mechanism": "native-flash", **flags})
    load_config(env={}, flags={"attention_mechanism": "native-efficient", **FLOAT32})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"attention_mechanism": "cudnn", "mixed_precision": "no"}, "cudnn computes in 16 bits"),
        ({"attention_mechanism": "native-flash", **FLOAT32}, "base_model_default_dtype fp32 lets"),
        ({"attention_mechanism": "sageattention", **FLOAT32}, "set base_model_default_dtype to bf16"),
        ({"attention_mechanism": "flex"}, "flex has no fast kernel until it is compiled"),
        ({"attention_mechanism": "sageattention", "sageattention_usage": "training"}, "has no backward pass"),
        ({"attention_mechanism": "sageattention", "sageattention_usage": "training+inference"}, "no backward pass"),
        ({"dynamo_backend": "eager", "dynamo_mode": "default"}, "eager has no modes"),
        ({"dynamo_backend": "inductor", "dynamo_mode": "reduce-overhead"}, "is not built yet"),
        ({"dynamo_backend": "tensorrt"}, "is not built yet"),
    ],
)
def test_what_cannot_go_together_is_refused_with_what_to_do(flags: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(env={}, flags=flags)
    told = str(caught.value)
    assert words in told and told.endswith(")") and "\n" not in told
