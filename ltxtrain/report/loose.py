"""Values out of JSON that may lack parts: a run that was killed early still gets its page.

Each function takes whatever the file held and answers with the asked type, or with nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

JsonObject = Mapping[str, object]


def read_object(path: Path) -> JsonObject:
    """The JSON object in ``path``; an empty one where the file is missing, torn or something else."""
    return as_object(_read_json(path))


def read_objects(path: Path) -> tuple[JsonObject, ...]:
    """The objects of the JSON list in ``path``."""
    return as_objects(_read_json(path))


def read_lines(path: Path) -> tuple[JsonObject, ...]:
    """The objects of a ``.jsonl`` file. A line that a kill cut off is passed over."""
    return tuple(each_line(path))


def each_line(path: Path) -> Iterator[JsonObject]:
    """The same one by one, for files that may be long."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for line in stream:
                value = as_object(_parse(line))
                if value:
                    yield value
    except OSError:
        return


def as_object(value: object) -> JsonObject:
    return value if isinstance(value, Mapping) else {}


def as_objects(value: object) -> tuple[JsonObject, ...]:
    return tuple(entry for entry in as_list(value) if isinstance(entry, Mapping))


def as_list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def as_number(value: object) -> float | None:
    """A finite number; booleans are none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) else None


def as_count(value: object) -> int:
    number = as_number(value)
    return int(number) if number is not None else 0


def as_text(value: object) -> str:
    """The string itself; other values as JSON; nothing for null."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def as_pairs(value: object) -> tuple[tuple[str, int], ...]:
    """``[["weights", 123], ...]``: names with a number each."""
    pairs = []
    for entry in as_list(value):
        parts = as_list(entry)
        if len(parts) == 2:
            pairs.append((as_text(parts[0]), as_count(parts[1])))
    return tuple(pairs)


def _read_json(path: Path) -> object:
    return _parse(_read_text(path))


def _parse(text: str) -> object:
    try:
        parsed: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return parsed


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
