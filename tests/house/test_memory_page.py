"""docs/memory.md names real options, values and presets alone, with the memory that the presets say."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.config.catalogue import options
from ltxtrain.config.formats import FORMATS
from ltxtrain.config.presets import preset_names, read_preset
from ltxtrain.errors import ConfigError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.facts.models import DEFAULT_MODEL, KNOWN_MODELS
from ltxtrain.plan.support import unsupported

GIB = 1024**3
PAGE = (Path(__file__).parents[2] / "docs" / "memory.md").read_text(encoding="utf-8")

REFUSED = re.findall(r"^\| `([\w. -]+=[\w=. -]+)` \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
ON_MACHINES = re.findall(r"^\| `([\w=. -]+)` \| (an [^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, flags=re.MULTILINE)
MACHINES = {
    "an Apple GPU": Machine("Darwin", "M3", 8, 24 * GIB, "mps", (Gpu("M3 GPU", 24 * GIB),)),
    "an RTX 3090": Machine("Linux", "AMD", 8, 32 * GIB, "cuda", (Gpu("NVIDIA GeForce RTX 3090", 24 * GIB, "8.6"),)),
}


def test_every_word_of_the_page_is_an_option_a_value_of_one_or_a_preset() -> None:
    words = set(re.findall(r"`([a-z][a-z0-9_+-]*)`", PAGE))
    known = {choice for option in options().values() for choice in option.choices}
    assert len(words & set(options())) > 30
    assert sorted(words - set(options()) - known - set(preset_names())) == []


def test_every_assignment_on_the_page_is_one_that_the_option_takes() -> None:
    assigned = re.findall(r"`([a-z_0-9]+) = \"([^\"]+)\"`", PAGE)
    assert len(assigned) >= 3
    for name, value in assigned:
        assert value in options()[name].choices, (name, value)


def test_the_table_of_presets_is_what_they_say() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (\d+) GB", PAGE, flags=re.MULTILINE))
    assert {name: float(memory) for name, memory in rows.items()} == {
        name: read_preset(name).memory_gb for name in preset_names() if name != "smoke"
    }
    assert [float(memory) for memory in rows.values()] == sorted(float(memory) for memory in rows.values())


def test_the_sizes_of_weights_are_those_of_the_tables() -> None:
    facts = KNOWN_MODELS[DEFAULT_MODEL]
    lines = re.findall(
        r"^\| (?:transformer|T5-XXL)[^|]*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", PAGE, flags=re.MULTILINE
    )
    for params, line in zip((facts.transformer.params, facts.text_params), lines, strict=True):
        for name, told in zip(("no_change", "int8-torchao", "nf4-bnb"), line, strict=True):
            whole = params * FORMATS[name].bytes_per_value / GIB
            # What stays unquantised, and scales, come on top: up to a twentieth of the bf16 size.
            assert whole - 0.06 <= float(told) <= whole + params * 2 / GIB / 20, (name, told, whole)


def test_every_command_line_of_ltxtrain_is_understood() -> None:
    commands = [shlex.split(line) for line in PAGE.splitlines() if line.startswith("ltxtrain ")]
    assert commands
    for words in commands:
        flags = {
            name.removeprefix("--").replace("-", "_"): value
            for name, value in zip(words[2::2], words[3::2], strict=True)
        }
        load_config([], env={}, flags=flags)


def flags_of(words: str) -> dict[str, object]:
    return dict(word.split("=") for word in words.split())


def test_there_are_refusals() -> None:
    assert len(REFUSED) >= 14 and len(ON_MACHINES) >= 5


@pytest.mark.parametrize(("words", "answer", "hint"), REFUSED)
def test_what_the_page_says_is_refused_is_refused_with_that_answer_and_that_hint(
    words: str, answer: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config([], env={}, flags=flags_of(words))
    (fault,) = [fault for fault in refused.value.faults if answer in fault.problem]
    assert fault.suggestion.startswith(hint)


@pytest.mark.parametrize(("words", "on", "answer", "hint"), ON_MACHINES)
def test_what_the_page_says_a_machine_cannot_do_is_told_by_the_plan(
    words: str, on: str, answer: str, hint: str
) -> None:
    (found,) = unsupported(load_config([], env={}, flags=flags_of(words)).config, MACHINES[on])
    assert answer in found.problem and found.hint == hint
