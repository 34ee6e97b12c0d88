"""TOML out of plain values. The standard library reads TOML and does not write it; a run's config.toml needs little."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

Table = Mapping[str, object]


def dump_toml(root: Table, commented: frozenset[str] = frozenset()) -> str:
    """Plain values, then ``[sections]``, then ``[[lists of tables]]``. None has no TOML form and is left out.

    Of a section's own keys, those in ``commented`` are written as comments: to be seen, not to be read back.
    """
    lines: list[str] = []
    _dump_table(root, (), lines)
    if commented:
        lines = _comment(lines, commented)
    return "\n".join(lines).strip() + "\n"


def _comment(lines: list[str], names: frozenset[str]) -> list[str]:
    """Values never span lines here, so a line is one key. What is nested in a section is left alone."""
    done, in_section = [], True
    for line in lines:
        if line.startswith("["):
            in_section = "." not in line and not line.startswith("[[")
        key = line.partition(" = ")[0]
        done.append(f"# {line}" if in_section and key in names else line)
    return done


def _dump_table(table: Table, path: tuple[str, ...], lines: list[str]) -> None:
    nested: list[tuple[str, object]] = []
    for key, value in table.items():
        if value is None:
            continue
        if isinstance(value, Mapping) or _is_list_of_tables(value):
            nested.append((key, value))
        else:
            lines.append(f"{_key(key)} = {_value(value)}")
    for key, value in nested:
        inner = (*path, _key(key))
        if isinstance(value, Mapping):
            _dump_section(f"[{'.'.join(inner)}]", value, inner, lines)
        elif isinstance(value, Sequence):
            for entry in value:
                _dump_section(f"[[{'.'.join(inner)}]]", entry, inner, lines)


def _dump_section(header: str, table: Table, path: tuple[str, ...], lines: list[str]) -> None:
    lines += ["", header]
    _dump_table(table, path, lines)


def _is_list_of_tables(value: object) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(entry, Mapping) for entry in value)


def _key(key: str) -> str:
    bare = key.replace("-", "").replace("_", "")
    return key if bare.isascii() and bare.isalnum() else _string(key)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {_value(entry)}" for key, entry in value.items() if entry is not None)
        return f"{{ {inner} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(entry) for entry in value)}]"
    raise TypeError(f"no TOML form for {type(value).__name__}")


def _float(value: float) -> str:
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else ("inf" if value > 0 else "-inf")
    return repr(value)


def _string(value: str) -> str:
    """JSON's escapes are TOML's, but for DEL, which TOML wants escaped as well."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
