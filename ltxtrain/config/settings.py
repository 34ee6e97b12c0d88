"""The layering itself, by pydantic-settings: the strongest layer that names an option decides it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ltxtrain.config.catalogue import options
from ltxtrain.config.schema import TrainConfig


def layered(weakest_first: Sequence[Mapping[str, Any]]) -> TrainConfig:
    """Merge layers of flat values into a checked ``TrainConfig``. Raises pydantic's ValidationError."""
    from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

    trees = [nested(values) for values in _without_overruled(weakest_first)]

    class Settings(TrainConfig, BaseSettings):
        model_config = SettingsConfigDict(frozen=True)

        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: PydanticBaseSettingsSource, **__: PydanticBaseSettingsSource
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, init_kwargs=tree) for tree in reversed(trees))

    settings = Settings()
    return TrainConfig(**{section: getattr(settings, section) for section in TrainConfig.model_fields})


def _without_overruled(weakest_first: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Drop from each layer what a stronger one gives: an object replaces an object, and is never merged into it."""
    kept: list[dict[str, Any]] = []
    given: set[str] = set()
    for values in reversed(weakest_first):
        kept.append({name: value for name, value in values.items() if name not in given})
        given |= set(values)
    return kept[::-1]


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """``{"lora_rank": 4}`` -> ``{"adapter": {"lora_rank": 4}}``."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        tree.setdefault(options()[name].section, {})[name] = value
    return tree
