"""docs/presets.md and what it is made of: each preset fits in the memory that it promises."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ltxtrain.config.presets import preset_names, read_preset
from ltxtrain.plan.budget import PLAIN
from ltxtrain.plan.records import Bucket

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from cards import (
    CARDS,
    DEVICES,
    GIB,
    WORDS,
    bucket_of,
    chosen_words,
    config_of,
    phases_of,
    presets_table,
)


@pytest.mark.parametrize("name", preset_names())
def test_a_preset_fits_in_the_memory_that_it_promises_and_needs_more_than_a_third_of_it(name: str) -> None:
    phases = phases_of(config_of(name), DEVICES.get(name, "cuda"))
    largest = max(phase.total for phase in phases if phase.on_device) / GIB
    assert read_preset(name).memory_gb / 3 < largest <= read_preset(name).memory_gb


def test_what_is_not_built_yet_is_in_the_estimate() -> None:
    config = config_of("full-finetune")
    assert (config.model.model_type, config.optimizer.optimizer) == ("full", "adamw_bf16")
    (training,) = [phase for phase in phases_of(config, "cuda") if phase.phase == "training"]
    weights = 1_923_385_472 * 2
    assert training.total > weights * 4  # weights and three tensors of state


def test_clips_have_the_presets_own_size_and_length() -> None:
    assert bucket_of(config_of("low-vram")).key == "576x384@49"
    assert bucket_of(config_of("rocm-mi300x")).frames == 121


def test_the_page_has_a_row_for_each_preset_and_says_which_phase_is_too_large() -> None:
    rows = [line.strip("| ").split(" | ") for line in presets_table().splitlines() if line.startswith("| `")]
    assert {row[0].strip("`") for row in rows} == set(preset_names())
    for row in rows:
        sizes = dict(zip(("text", "latents", "training", "validation"), map(float, row[2:6]), strict=True))
        for card, told in zip(CARDS, row[7:], strict=True):
            if told == "yes":
                assert max(sizes.values()) <= card + 0.05
            else:
                assert sizes[told.removeprefix("no: ")] >= card - 0.05


def test_what_a_budget_chooses_is_named_and_smaller_cards_give_up_more() -> None:
    bucket = Bucket(768, 512, 49)
    small, medium, large = (chosen_words(bucket, budget) for budget in (6, 12, 80))
    assert large == "all of it as it is fastest"
    assert medium.startswith("checkpointing, but for ") and "int8" not in medium
    assert "text encoder in " in small and len(small) > len(medium)
    assert chosen_words(bucket, 1) == "nothing fits"


def test_every_option_that_a_budget_decides_on_has_a_word_on_the_page() -> None:
    assert set(WORDS) == set(PLAIN)
