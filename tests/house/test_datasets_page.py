"""docs/datasets.md holds every reason for leaving out a clip, real keys alone, and examples that can be loaded."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from ltxtrain.config import dataset_notices, load_config, resolve_datasets
from ltxtrain.config.catalogue import Option, fields_of, options, tables_of
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.refusals import FIRST_FRAME
from ltxtrain.facts.reasons import EXPLANATIONS

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
# What stands between backquotes and is one word; flags, commands, paths and JSON are none.
WORDS = sorted(set(re.findall(r"`([a-z][a-z0-9_-]*)`", PAGE)))
# The library, by whose name its sets are called.
OTHERS = {"datasets"}


def spelled(model: type[BaseModel]) -> Iterator[Option]:
    """The keys of an entry and of the tables in it."""
    yield from fields_of(model, model.__name__).values()
    for table in tables_of(model).values():
        yield from spelled(table)


def test_the_table_of_reasons_is_the_list_of_the_program() -> None:
    section = PAGE.partition("## Why clips are left out")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, flags=re.MULTILINE)
    assert len(rows) == len(dict(rows))
    assert dict(rows) == EXPLANATIONS


def test_every_word_of_the_page_is_a_key_or_a_value_of_one() -> None:
    known = [*spelled(DatasetEntry), *options().values()]
    keys, values = {option.name for option in known}, {choice for option in known for choice in option.choices}
    assert len(set(WORDS) & keys) > 60
    assert sorted(set(WORDS) - keys - values - set(EXPLANATIONS) - {FIRST_FRAME} - OTHERS) == []


@pytest.mark.parametrize("text", EXAMPLES)
def test_every_example_is_loaded_and_uses_what_it_says(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.toml"
    path.write_text(text)
    loaded = load_config(["bf16"], [path], env={})
    config = loaded.config
    found = resolve_datasets(config.data, config.cache, config.validation)
    assert [dataset.id for dataset in found] == [entry["id"] for entry in tomllib.loads(text)["datasets"]]
    told = [*loaded.notices, *dataset_notices(config.data, config.validation, config.objective)]
    assert [notice for notice in told if "no effect" in notice or "never measured" in notice] == []


def test_there_is_an_example() -> None:
    assert EXAMPLES
