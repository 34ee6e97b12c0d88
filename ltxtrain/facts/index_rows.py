"""Which row of a table belongs to which file of the folder. Neither a row nor a file is passed over in silence."""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ltxtrain.config.datasets import TableRule
from ltxtrain.facts.index_walk import ADDRESS, Rejected, Walk, shown_name, stem_of
from ltxtrain.facts.reasons import Reason
from ltxtrain.facts.tables import Row, read_table

LONGEST_PATH = 4096
SHOWN_AT_MOST = 300


@dataclass
class Matched:
    """``rows``: name of a file -> its rows, in order. ``rejected``: rows without a file, by what they name."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    rejected: dict[str, Rejected] = field(default_factory=dict)


def match_rows(walk: Walk, rule: TableRule) -> Matched:
    """Read the table and find the files that it names. Raises ``DataError`` when it cannot be read."""
    matched = Matched()
    stems = None if rule.identifier_includes_extension else _stems(walk)
    for row in read_table(rule):
        names = _named(row.file, walk) if stems is None else _of_stem(row.file, walk, stems)
        for name in names:
            matched.rows.setdefault(name, []).append(row)
        if not names:
            shown, reason, detail = _without_file(row, walk, rule)
            if shown not in walk.rejected:
                matched.rejected.setdefault(shown, Rejected(shown, reason, f"{rule.path.name}, {row.place}: {detail}"))
    return matched


def _stems(walk: Walk) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in [*walk.files, *walk.rejected]:
        found.setdefault(stem_of(name), []).append(name)
    return found


def _of_stem(text: str, walk: Walk, stems: dict[str, list[str]]) -> list[str]:
    """All files of that stem; also the one file that the text names after all, extension and all."""
    name = _inside(text, walk)
    return [] if name is None else stems.get(name) or _named(text, walk)


def _named(text: str, walk: Walk) -> list[str]:
    name = _inside(text, walk)
    if name is None:
        return []
    if name in walk.files or name in walk.rejected:
        return [name]
    if "\\" in name and name.replace("\\", "/") in walk.files:
        return [name.replace("\\", "/")]
    # By way of a linked folder, a file may have more than one name.
    target = os.path.realpath(walk.root / name) if name else ""
    real = os.path.relpath(target, walk.root) if target and walk.holds(target) else ""
    return [real] if real in walk.files else []


def _inside(text: str, walk: Walk) -> str | None:
    """The name inside the folder that ``text`` stands for, with or without the folder's own path; None outside."""
    if not text or ADDRESS.match(text) or not _can_be_a_path(text):
        return None
    name = posixpath.normpath(text)
    if name.startswith("/"):
        root = str(walk.root)
        if not walk.holds(name):
            name = os.path.realpath(name)
        if not walk.holds(name):
            return None
        name = name[len(root) :].lstrip("/")
    return None if name == ".." or name.startswith("../") else name


def _can_be_a_path(text: str) -> bool:
    """Whether the system could be asked about it: a table may hold letters and lengths that no name has."""
    try:
        return "\0" not in text and len(os.fsencode(text)) <= LONGEST_PATH
    except UnicodeEncodeError:
        return False


def _without_file(row: Row, walk: Walk, rule: TableRule) -> tuple[str, Reason, str]:
    """How the row is shown, and why it has no file."""
    if not row.file:
        return f"{rule.path.name}, {row.place}", "missing-file", "it names no file"
    shown = shown_name(row.file[:SHOWN_AT_MOST])
    if len(row.file) > SHOWN_AT_MOST:
        shown = f"{shown}... ({rule.path.name}, {row.place})"
    if not _can_be_a_path(row.file):
        return shown, "missing-file", "no file can have that name"
    if ADDRESS.match(row.file):
        return shown, "missing-file", "an address; fetch the file into the folder and name it here"
    name = _inside(row.file, walk)
    if name is None:
        return shown, "outside-folder", f"it lies outside of {walk.root}"
    if any(part.startswith(".") for part in PurePosixPath(name).parts):
        return shown_name(name), "missing-file", "hidden files and folders are not read"
    if os.path.exists(target := os.path.join(walk.root, name)):  # noqa: PTH110, PTH118 - Path's own raises
        if not walk.holds(os.path.realpath(target)):
            return shown, "outside-folder", "by way of a link, it lies outside of the folder"
        return shown, "missing-file", "there is such a file, but its extension is none of this kind of data set"
    return shown, "missing-file", "there is no such file in the folder"
