"""One raw value, as a file, a flag or a variable gives it, into the type that its option declares.

The guides write booleans and numbers as text too; both are read. What could mean two things is refused.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from ltxtrain.config.catalogue import Option
from ltxtrain.config.renames import OBSOLETE_VALUES
from ltxtrain.config.secrets import shown
from ltxtrain.config.suggest import meant
from ltxtrain.config.tables import VERDICTS

TRUE_WORDS = ("true", "yes", "on", "1", "y")
FALSE_WORDS = ("false", "no", "off", "0", "n")

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WORDS_FOR_NAN = re.compile(r"[+-]?(nan|inf|infinity)", re.IGNORECASE)
_LARGEST = 2**63
FEW = 4  # values that are listed rather than guessed at
_WRITTEN = {"bool": "write true or false", "list": "write [...]", "object": "write {...}"}


class Refused(ValueError):
    """A value that does not fit its option."""

    def __init__(self, problem: str, suggestion: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.suggestion = suggestion


def is_unset(option: Option, raw: object) -> bool:
    """Whether a value means 'not given': null always, an empty text unless the option is a text without a null."""
    if raw is None:
        return True
    return isinstance(raw, str) and not raw.strip() and not (option.kinds == {"text"} and not option.optional)


def coerce(option: Option, raw: object) -> Any:
    """``raw`` in the option's type. Raises Refused; bounds are pydantic's to check."""
    if isinstance(raw, float) and not math.isfinite(raw):
        raise Refused(f"{raw} is not a number to train with", "write a finite number")
    if option.choices:
        return _choice(option, raw)
    if isinstance(raw, str):
        return _from_text(option, raw)
    if isinstance(raw, bool):
        return _from_bool(option, raw)
    if isinstance(raw, (int, float)):
        return _from_number(option, raw)
    if isinstance(raw, (list, tuple)):
        return _from_list(option, list(raw))
    if isinstance(raw, dict) and "object" in option.kinds:
        _all_finite(raw)
        return raw
    raise _misfit(option, raw)


def _misfit(option: Option, raw: object, suggestion: str = "") -> Refused:
    kind = f"a {_kind_of(raw)}" if isinstance(raw, (dict, list, tuple)) else shown(option.name, raw)
    if not isinstance(raw, (str, int, float, bool, dict, list, tuple)):
        kind = f"{raw} ({type(raw).__name__})"
    return Refused(f"{kind} is not {option.type_words}", suggestion)


def _kind_of(raw: object) -> str:
    return "table" if isinstance(raw, dict) else "list"


def _choice(option: Option, raw: object) -> Any:
    for choice in option.choices:
        if raw == choice and isinstance(raw, bool) == isinstance(choice, bool):
            return choice
        if isinstance(raw, (str, int, float)) and not isinstance(raw, bool) and _spelling(raw) == str(choice):
            return choice
    verdicts = VERDICTS.get(option.name, {})
    known = [name for name in map(str, option.choices) if name not in verdicts or not verdicts[name].refused]
    if isinstance(raw, bool) and option.name == "mixed_precision" and raw is False:
        raise Refused("false is not a number format", "write 'no', in quotes")
    if isinstance(raw, str) and (new := OBSOLETE_VALUES.get((option.name, raw.strip()))):
        raise Refused(f"{shown(option.name, raw)} is an obsolete name", f"use {new}")
    near = meant(raw, known) if isinstance(raw, str) and len(known) > FEW else []
    suggestion = f"did you mean {' or '.join(near)}?" if near else "one of " + ", ".join(known)
    raise Refused(f"{shown(option.name, raw)} is not a value of this option", suggestion)


def _spelling(raw: str | float) -> str:
    if isinstance(raw, float) and raw.is_integer():
        return str(int(raw))
    return str(raw).strip()


def _from_text(option: Option, raw: str) -> Any:
    text = raw.strip()
    if option.kinds & {"list", "object"} and text[:1] in ("[", "{"):
        return _from_json(option, text)
    if "path" in option.kinds:
        if option.kinds == {"path", "list"} and not _looks_like_path(text):
            return [part.strip() for part in text.split(",") if part.strip()]
        return raw
    if "text" in option.kinds:
        return raw
    if "bool" in option.kinds:
        return _bool_word(option, text)
    if option.kinds & {"int", "float"}:
        return _number_word(option, text)
    if option.kinds == {"list"} and option.name != "datasets":
        return [part.strip() for part in text.split(",") if part.strip()]
    raise _misfit(option, raw)


def _looks_like_path(text: str) -> bool:
    return text.endswith(".json") or "/" in text or "\\" in text


def _from_json(option: Option, text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused("is not readable as JSON", "check brackets, quotes and commas") from None
    _all_finite(value)
    return coerce(option, value)


def _all_finite(value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise Refused(f"{value} is not a number to train with", "write a finite number")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _all_finite(item)


def _bool_word(option: Option, text: str) -> bool:
    if text.lower() in TRUE_WORDS:
        return True
    if text.lower() in FALSE_WORDS:
        return False
    raise Refused(f"{shown(option.name, text)} is neither true nor false", "write true or false")


def _number_word(option: Option, text: str) -> Any:
    if _WORDS_FOR_NAN.fullmatch(text):
        raise Refused(f"{text} is not a number to train with", "write a finite number")
    if not _NUMBER.fullmatch(text) or len(text) > 64:
        begun = "write digits alone" if text[:1].isdigit() else ""
        raise _misfit(option, text, "write digits, such as 0.1" if "," in text else begun)
    if re.fullmatch(r"[+-]?\d+", text):
        return _from_number(option, int(text))
    return _from_number(option, float(text))


def _from_bool(option: Option, raw: bool) -> bool:
    if "bool" in option.kinds:
        return raw
    if option.kinds & {"int", "float"}:
        raise _misfit(option, raw, "give a number")
    raise _misfit(option, raw, "put text in quotes" if option.kinds & {"text", "path"} else _WRITTEN[min(option.kinds)])


def _from_number(option: Option, raw: int | float) -> Any:
    if isinstance(raw, float) and not math.isfinite(raw):
        raise Refused("is too large a number", "write a smaller one")
    if "int" in option.kinds:
        if isinstance(raw, float) and not raw.is_integer():
            raise _misfit(option, raw)
        if abs(raw) > _LARGEST:
            raise Refused("is too large a number", "write a smaller one")
        return int(raw)
    if "float" in option.kinds:
        if abs(raw) > 1e300:
            raise Refused("is too large a number", "write a smaller one")
        return float(raw)
    if "bool" in option.kinds and raw in (0, 1):
        return bool(raw)
    if option.numbers_as_text:
        return raw
    hint = "put it in quotes" if option.kinds & {"text", "path"} else _WRITTEN.get(min(option.kinds), "")
    raise _misfit(option, raw, hint)


def _from_list(option: Option, raw: list[Any]) -> Any:
    if "list" not in option.kinds:
        raise _misfit(option, raw, "give one value" if len(raw) == 1 else "")
    _all_finite(raw)
    return raw
