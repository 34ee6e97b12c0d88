"""docs/names.md tells of every name that the schema knows, and recommends none that is refused."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from ltxtrain.config.catalogue import options

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from names import names_page  # noqa: E402

SECTIONS = {
    "Number formats": "base_model_precision",
    "Optimisers": "optimizer",
    "Attention": "attention_mechanism",
}


def rows(title: str) -> list[list[str]]:
    section = names_page().partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.parametrize(("title", "option"), SECTIONS.items())
def test_every_name_of_the_schema_has_one_row(title: str, option: str) -> None:
    assert [row[0].strip("`") for row in rows(title)] == list(options()[option].choices)


@pytest.mark.parametrize("title", SECTIONS)
def test_a_refused_name_has_its_reason_and_a_name_that_works(title: str) -> None:
    verdicts = {row[0]: row[1] for row in rows(title)}
    refused = [row for row in rows(title) if row[1] == "*refused*"]
    assert refused
    for row in refused:
        assert len(row[-2]) > 15, row
        named = re.findall(r"`[^`]+`", row[-1])
        assert named and all(verdicts[name] != "*refused*" for name in named), row


@pytest.mark.parametrize("title", SECTIONS)
def test_a_name_that_does_not_work_everywhere_names_one_that_is_there(title: str) -> None:
    for row in rows(title):
        assert row[1] == "everywhere" or row[-1], row


def test_capabilities_are_said_of_nvidia_cards_alone() -> None:
    where = {row[0]: row[1] for title in SECTIONS for row in rows(title)}
    assert where["`fp8-torchao`"] == "NVIDIA from 8.9, AMD"
    assert where["`flash-attn-3`"] == "NVIDIA from 9.0"
    assert where["`torch-adamw`"] == "everywhere"
