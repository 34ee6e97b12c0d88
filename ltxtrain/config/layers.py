"""The layers of a configuration: presets, files, environment and flags, each as flat values with their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ltxtrain.config.catalogue import Option, options, section_names
from ltxtrain.config.coerce import Refused, coerce, is_unset
from ltxtrain.config.renames import IGNORED, NOT_THE_NAME, RENAMED, RENAMED_VALUES
from ltxtrain.config.secrets import holds_token, is_secret_key, shown_key
from ltxtrain.config.suggest import nearest
from ltxtrain.config.text import Document, KeyPath
from ltxtrain.errors import Fault

_FROM_ENVIRONMENT = re.compile(r"\{env:([A-Za-z_][A-Za-z0-9_]*)\}")


@dataclass
class Layer:
    """What one source gives: values by option name, where each stands, and what was wrong or worth saying."""

    values: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    documents: dict[str, tuple[Document, KeyPath]] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    written: dict[str, str] = field(default_factory=dict)


def document_layer(document: Document, env: Mapping[str, str], *, source: str | None = None) -> Layer:
    """The values of a file. ``source`` replaces ``file:line`` as the remembered source (presets)."""
    layer = Layer()
    if not isinstance(document.data, dict):
        kind = "a list" if isinstance(document.data, list) else "a single value"
        hint = (
            "a list of data sets is named by data_backend_config" if kind == "a list" else "write {...} around the keys"
        )
        layer.faults.append(Fault("", f"holds {kind}, not options", document.name, hint))
        return layer
    for path, key, raw, section in _pairs(document.data):
        place = document.source(path)
        _add(layer, key, raw, section=section, place=place, remembered=source or place, env=env)
        name = _plain(key)
        if name in layer.values:
            layer.documents.setdefault(name, (document, path))
    return layer


def environment_layer(env: Mapping[str, str]) -> Layer:
    """The values of ``LTXTRAIN_*``."""
    layer = Layer()
    for variable in sorted(env):
        if variable.startswith("LTXTRAIN_"):
            name = variable.removeprefix("LTXTRAIN_").lower()
            _add(layer, name, env[variable], section=None, place=variable, remembered=variable, env=env)
    return layer


def flag_layer(flags: Mapping[str, object], env: Mapping[str, str]) -> Layer:
    """The values of ``--flags``."""
    layer = Layer()
    for key, raw in flags.items():
        flag = "--" + key.removeprefix("--").replace("_", "-")
        _add(layer, key, raw, section=None, place="", remembered=flag, env=env)
    return layer


def _pairs(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str, Any, str | None]]:
    """(path, key, value, section) of a flat file, of a file with [sections], and of a mixture."""
    for key, value in data.items():
        if key in section_names() and isinstance(value, dict):
            for inner, item in value.items():
                yield (key, inner), inner, item, key
        else:
            yield (key,), key, value, None


def _plain(key: str) -> str:
    name = key.strip().removeprefix("--").replace("-", "_")
    return RENAMED[name].new if name in RENAMED else name


def _add(
    layer: Layer, key: str, raw: object, *, section: str | None, place: str, remembered: str, env: Mapping[str, str]
) -> None:
    label = shown_key(key if place else remembered)
    if secret := _secret_fault(key, raw, label, place):
        layer.faults.append(secret)
        return
    written = key.strip().removeprefix("--").replace("-", "_")
    if written in IGNORED:
        layer.notices.append(f"{_at(place)}{label} has no effect: buckets and repeats are set for each data set")
        return
    rename = RENAMED.get(written)
    option = options().get(rename.new if rename else written)
    if option is None:
        layer.faults.append(Fault(label, "is not an option", place, _suggestion(written)))
        return
    if section is not None and option.section != section:
        layer.faults.append(Fault(label, f"does not belong in [{section}]", place, f"move it to [{option.section}]"))
        return
    try:
        value, hidden = _expanded(raw, env)
        if is_unset(option, value):
            return
        value = _renamed_value(layer, option, value, place)
        value = coerce(option, value)
    except Refused as error:
        problem = "does not fit, after {env:...} was filled in" if _has_reference(raw) and error.args else error.problem
        problem = error.problem if isinstance(error, MissingVariable) else problem
        layer.faults.append(Fault(label, problem, place, error.suggestion))
        return
    if rename and rename.inverted:
        value = not value
    if rename and not rename.short:
        opposite = "the opposite of " if rename.inverted else ""
        layer.notices.append(f"{_at(place)}{label} is an old name: read as {opposite}{rename.new}")
    if hidden:
        layer.hidden.add(option.name)
    _store(layer, option, value, written=written, label=label, place=place, remembered=remembered)


def _store(layer: Layer, option: Option, value: Any, *, written: str, label: str, place: str, remembered: str) -> None:
    first = layer.written.get(option.name)
    if first is not None and written == "ignore_final_epochs" != first:
        return
    if first is None or first == "ignore_final_epochs" != written:
        layer.values[option.name] = value
        layer.sources[option.name] = remembered
        layer.written[option.name] = written
        return
    layer.faults.append(Fault(label, f"is given twice, first at {layer.sources[option.name]}", place, "keep one"))


def _secret_fault(key: str, raw: object, label: str, place: str) -> Fault | None:
    name = key.strip().removeprefix("--").replace("-", "_")
    if raw in (None, ""):
        return None
    if is_secret_key(name) and name not in options():
        return Fault(
            label, "a secret does not belong in a configuration", place, "set HF_TOKEN or HF_TOKEN_FILE instead"
        )
    if holds_token(raw, name) or _nested_secret(raw):
        return Fault(label, "holds what looks like a secret", place, "remove it; tokens come from the environment")
    return None


def _nested_secret(raw: object) -> bool:
    if isinstance(raw, dict):
        return any(
            (is_secret_key(str(key)) and item not in (None, "") and not _has_reference(item))
            or holds_token(item, str(key))
            or holds_token(str(key))
            or _nested_secret(item)
            for key, item in raw.items()
        )
    if isinstance(raw, (list, tuple)):
        return any(holds_token(item) or _nested_secret(item) for item in raw)
    return False


def _suggestion(written: str) -> str:
    meant = NOT_THE_NAME.get(written) or nearest(written, [*options(), *RENAMED])
    return f"did you mean {meant}?" if meant else "`ltxtrain options` lists them all"


def _at(place: str) -> str:
    return f"{place}: " if place else ""


class MissingVariable(Refused):
    """``{env:NAME}`` names a variable that is not set."""


def _has_reference(raw: object) -> bool:
    return isinstance(raw, str) and bool(_FROM_ENVIRONMENT.search(raw))


def _expanded(raw: object, env: Mapping[str, str]) -> tuple[Any, bool]:
    """``raw`` with ``{env:NAME}`` replaced everywhere, and whether anything was."""
    if isinstance(raw, str):
        return _FROM_ENVIRONMENT.sub(lambda match: _variable(match[1], env), raw), _has_reference(raw)
    if isinstance(raw, list):
        items = [_expanded(item, env) for item in raw]
        return [item for item, _ in items], any(changed for _, changed in items)
    if isinstance(raw, dict):
        pairs = {key: _expanded(item, env) for key, item in raw.items()}
        return {key: item for key, (item, _) in pairs.items()}, any(changed for _, changed in pairs.values())
    return raw, False


def _variable(name: str, env: Mapping[str, str]) -> str:
    if name not in env:
        raise MissingVariable(f"{{env:{name}}} names a variable that is not set", f"set {name}")
    return env[name]


def _renamed_value(layer: Layer, option: Option, value: Any, place: str) -> Any:
    if not isinstance(value, str):
        return value
    new = RENAMED_VALUES.get((option.name, value.strip()))
    if new is None:
        return value
    layer.notices.append(f"{_at(place)}{option.name}: {value} is an old name: read as {new}")
    return new
