"""The layers of a configuration: image, presets, files, environment, flags, each as flat values with their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ltxtrain.config.catalogue import Option, options, section_names
from ltxtrain.config.coerce import Refused, coerce, is_unset
from ltxtrain.config.renames import FLAGS_ALONE, IGNORED, NOT_THE_NAME, RENAMED, RENAMED_VALUES
from ltxtrain.config.secrets import holds_token, is_secret_key, shown_key
from ltxtrain.config.suggest import nearest
from ltxtrain.config.text import Document, KeyPath
from ltxtrain.errors import Fault

IMAGE_PLACES = {"LTX_DATA_DIR": "instance_data_dir", "LTX_CACHE_DIR": "cache_dir", "LTX_OUTPUT_DIR": "output_dir"}
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


@dataclass(frozen=True)
class Given:
    """One value as a source gives it. ``place`` stands in front of faults, ``remembered`` is the source to keep."""

    key: str
    raw: object
    section: str | None
    place: str
    remembered: str

    @property
    def name(self) -> str:
        return self.key.strip().removeprefix("--").replace("-", "_")

    @property
    def label(self) -> str:
        return shown_key(self.key if self.place else self.remembered)


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
        option = _add(layer, Given(key, raw, section, place, source or place), env)
        if option is not None:
            layer.documents.setdefault(option.name, (document, path))
    return layer


def image_layer(env: Mapping[str, str]) -> Layer:
    """The folders of a container's image, ``LTX_*_DIR``: where things lie as long as nobody says anything else."""
    layer = Layer()
    for variable, name in IMAGE_PLACES.items():
        if variable in env:
            _add(layer, Given(name, env[variable], None, variable, f"{variable}, of the image"), env)
    return layer


def environment_layer(env: Mapping[str, str]) -> Layer:
    """The values of ``LTXTRAIN_*``."""
    layer = Layer()
    for variable in sorted(env):
        if variable.startswith("LTXTRAIN_"):
            name = variable.removeprefix("LTXTRAIN_").lower()
            _add(layer, Given(name, env[variable], None, variable, variable), env)
    return layer


def flag_layer(flags: Mapping[str, object], env: Mapping[str, str]) -> Layer:
    """The values of ``--flags``."""
    layer = Layer()
    for key, raw in flags.items():
        flag = "--" + key.removeprefix("--").replace("_", "-")
        _add(layer, Given(key, raw, None, "", flag), env)
    return layer


def _pairs(data: dict[str, Any]) -> Iterator[tuple[KeyPath, str, Any, str | None]]:
    """(path, key, value, section) of a flat file, of a file with [sections], and of a mixture."""
    for key, value in data.items():
        if key in section_names() and isinstance(value, dict):
            for inner, item in value.items():
                yield (key, inner), inner, item, key
        else:
            yield (key,), key, value, None


def _add(layer: Layer, given: Given, env: Mapping[str, str]) -> Option | None:
    """Put one value into the layer. Returns its option when the value is good, and is not 'not given'."""
    if secret := _secret_fault(given):
        layer.faults.append(secret)
        return None
    if given.name in IGNORED:
        layer.notices.append(f"{_at(given)}{given.label} has no effect: buckets and repeats are set for each data set")
        return None
    rename = RENAMED.get(given.name)
    option = options().get(rename.new if rename else given.name)
    if option is None:
        layer.faults.append(Fault(given.label, "is not an option", given.place, _suggestion(given.name, given.raw)))
        return None
    if given.section not in (None, option.section):
        problem = f"does not belong in [{given.section}]"
        layer.faults.append(Fault(given.label, problem, given.place, f"move it to [{option.section}]"))
        return None
    try:
        value, hidden = _expanded(given.raw, env, option)
        if is_unset(option, value):
            return None
        value = coerce(option, _renamed_value(layer, option, value, given))
    except Refused as error:
        layer.faults.append(_refusal(given, error))
        return None
    if rename and rename.inverted:
        value = not value
    if rename and not rename.short:
        opposite = "the opposite of " if rename.inverted else ""
        layer.notices.append(f"{_at(given)}{given.label} is an old name: read as {opposite}{rename.new}")
    if hidden:
        layer.hidden.add(option.name)
    _store(layer, option, value, given)
    return option


def _refusal(given: Given, error: Refused) -> Fault:
    """A fault about a value; what came out of ``{env:NAME}`` is not shown."""
    filled_in = _has_reference(given.raw) and not isinstance(error, BadReference)
    problem = "does not fit, after {env:...} was filled in" if filled_in else error.problem
    return Fault(given.label, problem, given.place, error.suggestion)


def _store(layer: Layer, option: Option, value: Any, given: Given) -> None:
    first = layer.written.get(option.name)
    if first is not None and given.name == "ignore_final_epochs" != first:
        return
    if first is None or first == "ignore_final_epochs" != given.name:
        layer.values[option.name] = value
        layer.sources[option.name] = given.remembered
        layer.written[option.name] = given.name
        return
    problem = f"is given twice, first at {layer.sources[option.name]}"
    layer.faults.append(Fault(given.label, problem, given.place, "keep one"))


def _secret_fault(given: Given) -> Fault | None:
    if given.raw in (None, ""):
        return None
    if is_secret_key(given.name) and given.name not in options():
        problem, suggestion = "a secret does not belong in a configuration", "set HF_TOKEN or HF_TOKEN_FILE instead"
    elif holds_token(given.raw, given.name) or _nested_secret(given.raw):
        problem, suggestion = "holds what looks like a secret", "remove it; tokens come from the environment"
    else:
        return None
    return Fault(given.label, problem, given.place, suggestion)


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


def _suggestion(written: str, raw: object) -> str:
    if written in FLAGS_ALONE:
        flag, _, value = FLAGS_ALONE[written].partition(" ")
        named = shown_key(raw) if value and isinstance(raw, str) and raw.strip() else value
        return f"it is a flag: {flag} {named}".rstrip()
    meant = NOT_THE_NAME.get(written) or nearest(written, [*options(), *RENAMED])
    return f"did you mean {meant}?" if meant else "`ltxtrain options` lists them all"


def _at(given: Given) -> str:
    return f"{given.place}: " if given.place else ""


class BadReference(Refused):
    """``{env:NAME}`` names a variable that is not set, or one that holds a secret. Says nothing of its value."""


def _has_reference(raw: object) -> bool:
    return isinstance(raw, str) and bool(_FROM_ENVIRONMENT.search(raw))


def _expanded(raw: object, env: Mapping[str, str], option: Option) -> tuple[Any, bool]:
    """``raw`` with ``{env:NAME}`` replaced everywhere, and whether anything was. Raises BadReference.

    The configuration is written into the run folder, so no secret may come in this way. In tables (webhooks,
    publishing) references to secrets are how the guides give them; nothing that takes such a table is built yet.
    """
    if isinstance(raw, str):
        text = _FROM_ENVIRONMENT.sub(lambda match: _variable(match[1], env), raw)
        secret = [
            name for name in _FROM_ENVIRONMENT.findall(raw) if is_secret_key(name) or holds_token(text, option.name)
        ]
        if secret:
            problem = f"{{env:{secret[0]}}} would put what looks like a secret into the configuration"
            raise BadReference(problem, "remove it; tokens come from the environment when they are needed")
        return text, _has_reference(raw)
    if isinstance(raw, list):
        items = [_expanded(item, env, option) for item in raw]
        return [item for item, _ in items], any(changed for _, changed in items)
    if isinstance(raw, dict):
        return _expanded_table(raw, env, option)
    return raw, False


def _expanded_table(raw: dict[str, Any], env: Mapping[str, str], option: Option) -> tuple[Any, bool]:
    pairs = {}
    for key, item in raw.items():
        if isinstance(item, str) and option.name != "datasets":
            filled = _FROM_ENVIRONMENT.sub(lambda match: _variable(match[1], env), item)
            pairs[key] = filled, _has_reference(item)
        else:
            pairs[key] = _expanded(item, env, option)
    return {key: item for key, (item, _) in pairs.items()}, any(changed for _, changed in pairs.values())


def _variable(name: str, env: Mapping[str, str]) -> str:
    if name not in env:
        raise BadReference(f"{{env:{name}}} names a variable that is not set", f"set {name}")
    return env[name]


def _renamed_value(layer: Layer, option: Option, value: Any, given: Given) -> Any:
    if not isinstance(value, str):
        return value
    new = RENAMED_VALUES.get((option.name, value.strip()))
    if new is None:
        return value
    layer.notices.append(f"{_at(given)}{option.name}: {value} is an old name: read as {new}")
    return new
