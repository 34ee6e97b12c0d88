"""Where the captions of a data set come from, and what is done to them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ltxtrain.config.data import DataConfig
from ltxtrain.config.datasets import CaptionRule, ShuffleRule, TableRule
from ltxtrain.config.entries import Columns, DatasetEntry, ShuffleSettings, TableSettings
from ltxtrain.config.entry_faults import EntryFaults
from ltxtrain.config.secrets import shown, shown_key

TABLES: Final = {"parquet": "parquet", "csv": "csv_file", "jsonl": "jsonl"}
"""The key that names the table of a strategy."""

_SEARCH_AND_REPLACE = re.compile(r"s/((?:[^/\\]|\\.)+)/((?:[^/\\]|\\.)*)(?:/[gi]*)?", re.DOTALL)
_MOST_FILTER_BYTES = 1024 * 1024
_PROBES = ("A cat sits on a wall.", "zwei Hunde, 3 birds")
"""Captions that have nothing in common: a filter that leaves nothing of either leaves nothing of any."""
_EMPTIES = "leaves nothing of any caption"
_NARROWER = "make it narrower, or set only_instance_prompt to train without captions"


def strategy_of(entry: DatasetEntry, data: DataConfig) -> str:
    """The entry's own strategy, else the one of what it names, else the general one."""
    if entry.caption_strategy is not None:
        return entry.caption_strategy
    if entry.type in ("csv", "huggingface"):
        return entry.type
    tables = [strategy for strategy, key in TABLES.items() if getattr(entry, key) is not None]
    return tables[0] if tables else data.caption_strategy


def caption_rule(entry: DatasetEntry, data: DataConfig, found: EntryFaults) -> CaptionRule:
    """The captions of one entry, with its own filters only: those of its store are read with the store."""
    strategy = strategy_of(entry, data)
    rule = CaptionRule(
        strategy=strategy,
        instance_prompt=entry.instance_prompt or data.instance_prompt,
        prepend_instance_prompt=_first(entry.prepend_instance_prompt, data.prepend_instance_prompt),
        only_instance_prompt=_first(entry.only_instance_prompt, data.only_instance_prompt),
        disable_multiline_split=_first(entry.disable_multiline_split, data.disable_multiline_split),
        filters=caption_filters(entry, found),
        shuffle=_shuffle(entry.caption_shuffle),
        table=_table(entry, strategy, found),
    )
    if not rule.instance_prompt:
        if strategy == "instanceprompt":
            found.add("instance_prompt", "is missing for caption_strategy instanceprompt")
        for key in ("prepend_instance_prompt", "only_instance_prompt"):
            if getattr(rule, key):
                found.add(key, "needs an instance_prompt", f"set instance_prompt, or leave {key} out")
    if entry.type == "csv" and strategy != "csv":
        found.add("caption_strategy", f"{strategy} does not go with type csv", "leave caption_strategy out")
    if entry.type == "huggingface" and strategy in TABLES:
        found.add("caption_strategy", f"{strategy} does not go with type huggingface", "leave caption_strategy out")
    if strategy == "huggingface" and entry.type != "huggingface":
        found.add("caption_strategy", "huggingface needs type huggingface", "set type to huggingface")
    return rule


def _first(own: bool | None, general: bool) -> bool:
    return general if own is None else own


def _shuffle(settings: ShuffleSettings | None) -> ShuffleRule | None:
    if settings is None or not settings.enable:
        return None
    return ShuffleRule(**settings.model_dump(exclude={"enable"}))


def _table(entry: DatasetEntry, strategy: str, found: EntryFaults) -> TableRule | None:
    if strategy not in TABLES:
        return None
    key = TABLES[strategy]
    if getattr(entry, key) is None:
        found.add(key, f"is missing for caption_strategy {strategy}", "name the table")
        return None
    if strategy == "csv":
        assert entry.csv_file is not None
        _check_suffix(key, entry.csv_file, (".csv",), found)
        path = found.found_file(entry.csv_file, entry.instance_data_dir)
        return TableRule(path, caption_columns=columns(entry.csv_caption_column))
    settings: TableSettings = getattr(entry, key)
    suffixes = (".jsonl",) if strategy == "jsonl" else (".parquet", ".jsonl", ".csv")
    _check_suffix(f"{key}.path", settings.path, suffixes, found)
    return TableRule(
        path=found.found_file(settings.path, entry.instance_data_dir),
        filename_column=settings.filename_column,
        caption_columns=columns(settings.caption_column),
        fallback_caption_column=settings.fallback_caption_column,
        width_column=settings.width_column,
        height_column=settings.height_column,
        identifier_includes_extension=settings.identifier_includes_extension,
    )


def columns(written: Columns | None) -> tuple[str, ...]:
    """One column, several, or none."""
    return () if not written else (written,) if isinstance(written, str) else tuple(written)


def _check_suffix(key: str, path: Path, known: Sequence[str], found: EntryFaults) -> None:
    if path.suffix.lower() not in known:
        found.add(key, f"{shown_key(path.name)} does not end in {' or '.join(known)}", "name the file by what it holds")


def caption_filters(entry: DatasetEntry, found: EntryFaults) -> tuple[str, ...]:
    """``caption_filter_list`` of a data set or of a store, checked; a file's lines in place of its name."""
    written = entry.caption_filter_list
    if written is None:
        return ()
    filters = _filter_file(Path(written), found) if isinstance(written, str) else written
    for index, text in enumerate(filters):
        if problem := _filter_problem(text):
            key = f"caption_filter_list, item {index + 1}" if len(filters) > 1 else "caption_filter_list"
            hint = _NARROWER if problem == _EMPTIES else "write \\ before a sign that stands for itself"
            found.add(key, f"{shown('filter', text)} {problem}", hint)
    return tuple(filters)


def _filter_file(path: Path, found: EntryFaults) -> tuple[str, ...]:
    """The lines of a file of filters, or the list in a .json file; empty lines are passed over."""
    file, name = found.found_file(path, None), shown_key(str(path))
    try:
        if not file.is_file() or file.stat().st_size > _MOST_FILTER_BYTES:
            problem = "there is no such file" if not file.exists() else "is not a file of at most 1 MiB"
            found.add(
                "caption_filter_list",
                f"{name}: {problem}",
                "name a file of one filter on each line, or a list",
            )
            return ()
        text = file.read_text(encoding="utf-8-sig")
        lines = json.loads(text) if file.suffix.lower() == ".json" else text.splitlines()
    except (OSError, ValueError, RecursionError):
        found.add(
            "caption_filter_list",
            f"{name}: cannot be read",
            "save it as UTF-8, one filter on each line",
        )
        return ()
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        found.add("caption_filter_list", f"{name}: holds no list of texts", 'write ["one", "two"]')
        return ()
    return tuple(line.strip() for line in lines if line.strip())


def _filter_problem(text: str) -> str:
    """Why a filter cannot be used: not as a regular expression, and not as ``s/search/replace/``."""
    if not text.strip():
        return "is empty"
    search, replacement = text, ""
    if text.startswith("s/"):
        parts = _SEARCH_AND_REPLACE.fullmatch(text)
        if parts is None:
            return "is not s/search/replace/"
        search, replacement = parts[1], parts[2]
    try:
        left = [re.sub(search, replacement, probe) for probe in _PROBES]
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression: {error}"
    return "" if any(text.strip() for text in left) else _EMPTIES
