"""The table of number formats: one row for each name, and each row complete."""

from __future__ import annotations

from typing import get_args

import pytest

from ltxtrain.config.compute import Precision
from ltxtrain.config.formats import FORMATS, WORKING, is_quantised_layer
from ltxtrain.config.verdicts import EVERYWHERE

QUANTISED = [name for name in WORKING if name != "no_change"]


def test_each_name_of_the_option_has_its_row() -> None:
    assert tuple(FORMATS) == get_args(Precision)


def test_these_formats_work_and_all_others_are_refused() -> None:
    assert set(WORKING) == {
        *("no_change", "nf4-bnb", "int8-quanto", "int4-quanto", "int2-quanto"),
        *("int8-torchao", "int4-torchao", "fp8-torchao", "fp8wo-torchao"),
    }


@pytest.mark.parametrize("name", sorted(set(FORMATS) - set(WORKING)))
def test_a_refused_name_says_why_and_what_to_take(name: str) -> None:
    verdict = FORMATS[name].verdict
    assert verdict.why
    assert verdict.instead in WORKING


@pytest.mark.parametrize("name", QUANTISED)
def test_a_working_name_says_what_it_keeps(name: str) -> None:
    known = FORMATS[name]
    assert known.quantised and known.library and known.verdict.why
    assert known.bits / 8 <= known.bytes_per_value < known.bits / 8 * 1.15
    assert 0 < known.error < 1


@pytest.mark.parametrize("name", [name for name in WORKING if FORMATS[name].verdict.on != EVERYWHERE])
def test_a_name_that_works_on_some_devices_says_what_works_on_more(name: str) -> None:
    verdict = FORMATS[name].verdict
    assert set(FORMATS[verdict.instead].verdict.on) > set(verdict.on)


def test_bytes_of_a_weight_by_hand() -> None:
    # 2048 x 8192 = 16 777 216 weights
    assert FORMATS["no_change"].stored_bytes(2048, 8192) == 33_554_432
    assert FORMATS["int8-quanto"].stored_bytes(2048, 8192) == 16_777_216 + 2048 * 4
    assert FORMATS["int4-quanto"].stored_bytes(2048, 8192) == 8_388_608 + 131_072 * 4
    assert FORMATS["int4-torchao"].stored_bytes(2048, 8192) == 8_388_608 + 524_288 * 2
    assert FORMATS["nf4-bnb"].stored_bytes(2048, 8192) == 8_388_608 + 262_144 + 1024 * 4 + 256 * 4 + 4


@pytest.mark.parametrize(
    "name",
    ["transformer_blocks.0.attn1.to_q", "transformer_blocks.27.attn2.to_out.0", "transformer_blocks.3.ff.net.0.proj"],
)
def test_layers_of_the_blocks_are_quantised(name: str) -> None:
    assert is_quantised_layer("transformer", name)


@pytest.mark.parametrize(
    "name",
    [
        *("proj_in", "proj_out", "caption_projection.linear_1", "time_embed.linear", "transformer_blocks.0.norm1"),
        *("transformer_blocks.0.attn1", "transformer_blocks.0.attn1.norm_q", "transformer_blocks.0.ff.net.0"),
        *("encoder.block.0.layer.0.SelfAttention.q", "transformer_blocks.0.attn1.to_q.lora_A.default"),
    ],
)
def test_other_modules_are_not(name: str) -> None:
    assert not is_quantised_layer("transformer", name)


def test_the_output_of_a_feed_forward_of_t5_is_quantised_and_its_table_of_words_is_not() -> None:
    assert is_quantised_layer("text_encoder", "encoder.block.23.layer.1.DenseReluDense.wo")
    assert is_quantised_layer("text_encoder", "encoder.block.0.layer.0.SelfAttention.o")
    for name in ("shared", "encoder.embed_tokens", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"):
        assert not is_quantised_layer("text_encoder", name)
