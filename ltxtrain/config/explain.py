"""What pydantic found, in our own words. Values are shown by ``secrets.shown`` only."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic_core import ErrorDetails

_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "above"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "below"),
}

_PLAIN: Mapping[str, str] = {
    "missing": "is missing",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
    "string_pattern_mismatch": "is not a size",
    "string_unicode": "is not valid text",
    "finite_number": "is not a finite number",
    "int_parsing_size": "is too large a number",
    "tuple_type": "is not a list",
    "dict_type": "is not a table",
    "model_type": "is not a table",
    "model_attributes_type": "is not a table",
    "string_type": "is not text",
    "int_type": "is not a whole number",
    "int_parsing": "is not a whole number",
    "int_from_float": "is not a whole number",
    "float_type": "is not a number",
    "float_parsing": "is not a number",
    "bool_type": "is neither true nor false",
    "bool_parsing": "is neither true nor false",
    "path_type": "is not a path",
    "list_type": "is not a list",
}


def problem_of(error: ErrorDetails, value: str) -> str:
    """One sentence about ``value`` as it may be shown, such as ``300 is out of range: at most 256``."""
    kind = error["type"]
    context = error.get("ctx", {})
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{value} is out of range: {words} {context[name]:g}"
    if kind == "value_error":
        return f"{value} does not fit: {context['error']}"
    if kind in _PLAIN:
        return _PLAIN[kind]
    return "does not fit"


def placed(name: str, source: str) -> tuple[str, str]:
    """The key and the source of a fault about ``name``: a flag is its own source, a default has none."""
    if source.startswith("--"):
        return source, ""
    return name, "" if source == "default" else source
