"""``ltxtrain options [SEARCH]``: every option of the schema."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ltxtrain.cli.options import AsJson, SearchWords

if TYPE_CHECKING:
    from ltxtrain.config.catalogue import Option


def options_list(search: SearchWords = None, as_json: AsJson = False) -> None:
    """List all options, or those whose name, section or description holds every word."""
    from ltxtrain.config.catalogue import options
    from ltxtrain.config.suggest import nearest

    words = [word.lower().lstrip("-").replace("-", "_") for word in search or ()]
    found = [option for option in options().values() if all(_holds(option, word) for word in words)]
    if as_json:
        print(json.dumps([_record(option) for option in found], indent=2, default=str))
        return
    if not found:
        near = nearest("_".join(words), options())
        print("no option fits" + (f"; did you mean {near}?" if near else ""), file=sys.stderr)
        return
    print(_text(found))


def _holds(option: Option, word: str) -> bool:
    haystack = f"{option.name} {option.section} {option.description} {' '.join(map(str, option.choices))}".lower()
    return word in haystack or word.replace("_", " ") in haystack


def _state(option: Option) -> str:
    from ltxtrain.config.idle import NO_EFFECT
    from ltxtrain.config.unbuilt import UNBUILT

    if option.name in UNBUILT:
        return "not built yet" if len(UNBUILT[option.name]) == 1 else "built in part"
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


def _spelled(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "[]" if value == () else str(value)
