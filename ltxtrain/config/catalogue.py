"""The schema as a flat list of options, for flags, environment names, suggestions and the options list."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from ltxtrain.config.option import _number_as_text
from ltxtrain.config.schema import TrainConfig

BOUND_NAMES = ("ge", "gt", "le", "lt")


@dataclass(frozen=True)
class Option:
    """One option. ``kinds`` holds some of ``bool int float text path list object``, ``choices`` the fixed values."""

    name: str
    section: str
    kinds: frozenset[str]
    choices: tuple[str | int, ...]
    optional: bool
    default: Any
    description: str
    bounds: Mapping[str, float] = field(default_factory=dict)
    devices: tuple[str, ...] = ()
    numbers_as_text: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "LTXTRAIN_" + self.name.upper()

    @property
    def type_words(self) -> str:
        """The type in plain words, such as ``a whole number, 1 to 256``."""
        words = {
            "bool": "true or false",
            "int": "a whole number",
            "float": "a number",
            "text": "text",
            "path": "a path",
            "list": "a list",
            "object": "a table of keys",
        }
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        parts = [text for kind, text in words.items() if kind in self.kinds]
        return " or ".join(parts) + self._bounds_words()

    def _bounds_words(self) -> str:
        spelled = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
        return "".join(f", {spelled[name]} {value:.15g}" for name, value in self.bounds.items() if value < 1e15)


@cache
def options() -> Mapping[str, Option]:
    """All options of ``TrainConfig`` by name, in the order of the schema."""
    found = {}
    for section, info in TrainConfig.model_fields.items():
        model = info.annotation
        assert isinstance(model, type) and issubclass(model, BaseModel)
        found.update(fields_of(model, section))
    return types.MappingProxyType(found)


def value_of(config: TrainConfig, name: str) -> Any:
    """An option's value, whichever section it stands in."""
    return getattr(getattr(config, options()[name].section), name)


@cache
def section_names() -> tuple[str, ...]:
    return tuple(TrainConfig.model_fields)


def fields_of(model: type[BaseModel], section: str) -> dict[str, Option]:
    return {name: _option(name, section, info) for name, info in model.model_fields.items()}


@cache
def tables_of(model: type[BaseModel]) -> Mapping[str, type[BaseModel]]:
    """The fields of ``model`` that are tables of known keys themselves."""
    return {
        name: leaf
        for name, info in model.model_fields.items()
        for leaf, _ in _leaves(info.annotation)
        if isinstance(leaf, type) and issubclass(leaf, BaseModel)
    }


def _option(name: str, section: str, info: FieldInfo) -> Option:
    leaves = list(_leaves(info.annotation))
    metadata = [*info.metadata, *(item for _, items in leaves for item in items)]
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    devices = extra.get("devices", [])
    return Option(
        name=name,
        section=section,
        kinds=frozenset(_kind(leaf) for leaf, _ in leaves if leaf is not type(None)),
        choices=tuple(choice for leaf, _ in leaves if get_origin(leaf) is Literal for choice in get_args(leaf)),
        optional=any(leaf is type(None) for leaf, _ in leaves),
        default=None if info.is_required() else info.default,
        description=info.description or "",
        bounds=_bounds(metadata),
        devices=tuple(str(device) for device in devices) if isinstance(devices, list) else (),
        numbers_as_text=any(isinstance(item, BeforeValidator) and item.func is _number_as_text for item in metadata),
    )


def _leaves(annotation: Any, metadata: tuple[Any, ...] = ()) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """The members of a union, each without its ``Annotated`` and with what was in it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *more = get_args(annotation)
        yield from _leaves(inner, (*metadata, *more))
    elif origin is Union or origin is types.UnionType:
        for member in get_args(annotation):
            yield from _leaves(member, metadata)
    else:
        yield annotation, metadata


def _kind(leaf: Any) -> str:
    origin = get_origin(leaf)
    if origin is Literal:
        return "int" if all(isinstance(choice, int) for choice in get_args(leaf)) else "text"
    if origin is tuple:
        return "list"
    if origin is dict or (isinstance(leaf, type) and issubclass(leaf, BaseModel)):
        return "object"
    kinds: dict[Any, str] = {bool: "bool", int: "int", float: "float", str: "text", Path: "path"}
    return kinds[leaf]


def _bounds(metadata: list[Any]) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in metadata:
        sources = [item, *(item.metadata if isinstance(item, FieldInfo) else [])]
        for source in sources:
            for name in BOUND_NAMES:
                value = getattr(source, name, None)
                if isinstance(value, (int, float)):
                    found[name] = value
    return found
