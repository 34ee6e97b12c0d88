"""``ltxtrain options [SEARCH]``: every option of the schema, and every key of a data set."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ltxtrain.cli.options import AsJson, SearchWords

if TYPE_CHECKING:
    from ltxtrain.config.catalogue import Option


def options_list(search: SearchWords = None, as_json: AsJson = False) -> None:
    """List all options and all keys of a data set, or those whose name or description holds every word."""
    from ltxtrain.config.catalogue import options
    from ltxtrain.config.suggest import nearest

    words = [word.lower().lstrip("-").replace("-", "_") for word in search or ()]
    found = [option for option in options().values() if all(_holds(option, word) for word in words)]
    tables = _tables(words)
    if as_json:
        keys = [_key_record(key) for _, table in tables for key in table]
        print(json.dumps([*(_record(option) for option in found), *keys], indent=2, default=str))
        return
    if not found and not tables:
        near = nearest("_".join(words), [*options(), *(key.name for _, table in _tables([]) for key in table)])
        print("no option fits" + (f"; did you mean {near}?" if near else ""), file=sys.stderr)
        return
    print("\n\n".join([*([_text(found)] if found else []), *(_table_text(title, keys) for title, keys in tables)]))


def _tables(words: Sequence[str]) -> list[tuple[str, list[Option]]]:
    """The tables of a data set by title, each with its keys that fit ``words``; ``datasets`` fits all of them."""
    from ltxtrain.config.entry_catalogue import ENTRY, dotted, entry_tables

    found = []
    for table in entry_tables():
        keys = [
            key
            for key in table.keys.values()
            if all(_holds(replace(key, section=dotted(key)), word) for word in words if word != ENTRY)
        ]
        if keys:
            found.append((table.title, keys))
    return found


def _holds(option: Option, word: str) -> bool:
    haystack = f"{option.name} {option.section} {option.description} {' '.join(map(str, option.choices))}".lower()
    return word in haystack or word.replace("_", " ") in haystack


def _state(option: Option) -> str:
    from ltxtrain.config.idle import NO_EFFECT, WITHOUT_MASTER
    from ltxtrain.config.unbuilt import UNBUILT

    if option.name in UNBUILT:
        return "not built yet" if len(UNBUILT[option.name]) == 1 else "built in part"
    for master, under in WITHOUT_MASTER.items():
        if option.name in under and len(UNBUILT.get(master, ())) == 1:  # it can only be off
            return f"no effect here: {master} is not built yet"
    return "no effect here" if option.name in NO_EFFECT else ""


def _built(option: Option) -> list[str]:
    """The values that an option built in part does take."""
    from ltxtrain.config.unbuilt import UNBUILT

    values = UNBUILT.get(option.name, ())
    return ["not set" if value is None else str(value) for value in values] if len(values) > 1 else []


def _record(option: Option) -> dict[str, object]:
    return {
        "name": option.name,
        "section": option.section,
        "flag": option.flag,
        "variable": option.variable,
        "type": option.type_words,
        "choices": list(option.choices),
        "default": option.default,
        "bounds": dict(option.bounds),
        "devices": list(option.devices),
        "description": option.description,
        "state": _state(option),
        "built": _built(option),
    }


def _text(found: Iterable[Option]) -> str:
    lines: list[str] = []
    section = ""
    for option in found:
        if option.section != section:
            section = option.section
            lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        default = "not set" if option.default is None else _spelled(option.default)
        state = f"  ({_state(option)})" if _state(option) else ""
        lines.append(f"{option.name} = {default}{state}")
        about = f"{option.description} Takes {option.type_words}."
        if option.devices:
            about += f" Only on {', '.join(option.devices)}."
        lines.append(textwrap.fill(about, width=116, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


def _table_text(title: str, keys: Iterable[Option]) -> str:
    from ltxtrain.config.entry_catalogue import built_of, default_words, state_of

    where = "a data set" if title.startswith("[[") else "a table of a data set"
    lines = [f"{title}: keys of {where}"]
    for key in keys:
        state = f"  ({state_of(key)})" if state_of(key) else ""
        lines.append(f"{key.name} = {default_words(key)}{state}")
        about = f"{key.description} Takes {key.type_words}."
        if built := built_of(key):
            about += f" Built: {', '.join(built)}."
        lines.append(textwrap.fill(about, width=116, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(lines)


def _key_record(key: Option) -> dict[str, object]:
    """A key has no flag and no variable. Its ``general`` is the option that holds where the key is not set."""
    from pydantic import BaseModel

    from ltxtrain.config.entry_catalogue import ENTRY, GENERAL, built_of, default_words, dotted, state_of

    default: object = {} if isinstance(key.default, BaseModel) else key.default
    return {
        "name": dotted(key),
        "section": ENTRY,
        "type": key.type_words,
        "choices": list(key.choices),
        "default": default,
        "default_words": default_words(key),
        "general": GENERAL.get(dotted(key)),
        "bounds": dict(key.bounds),
        "description": key.description,
        "state": state_of(key),
        "built": list(built_of(key) or ()),
    }


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else str(value)
