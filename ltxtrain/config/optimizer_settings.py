"""What ``optimizer_config`` says: settings as ``name=value,name=value``, and those that the built optimiser takes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

Setting = float | bool | str

ADAMW_DEFAULTS: Final[Mapping[str, float | bool]] = MappingProxyType(
    {"weight_decay": 1e-2, "eps": 1e-8, "amsgrad": False}
)
"""Every setting that ``torch-adamw`` takes, with torch's own value."""


def parse_optimizer_settings(text: str | None) -> dict[str, Setting]:
    """``"weight_decay=0.01,eps=1e-8"`` -> ``{"weight_decay": 0.01, "eps": 1e-08}``. Raises ValueError."""
    settings: dict[str, Setting] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise ValueError("is not a list of name=value")
        if name in settings:
            raise ValueError(f"{name} is given twice")
        settings[name] = _setting_value(value)
    return settings


def adamw_settings(text: str | None) -> dict[str, float | bool]:
    """All settings of ``torch-adamw``, those of ``text`` included. Raises ValueError for what it cannot take."""
    taken: dict[str, float | bool] = dict(ADAMW_DEFAULTS)
    wrong = []
    for name, value in parse_optimizer_settings(text).items():
        if isinstance(value, str) or not _adamw_takes(name, value):
            wrong.append(f"{name}={spelled(value)}")
        else:
            taken[name] = value
    if wrong:
        raise ValueError(f"torch-adamw cannot take {', '.join(wrong)}")
    return taken


def _adamw_takes(name: str, value: float | bool) -> bool:
    """A number that is not negative, or a truth value where the default is one."""
    default = ADAMW_DEFAULTS.get(name)
    return default is not None and isinstance(value, bool) == isinstance(default, bool) and value >= 0


def spelled(value: Setting) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else f"{value:g}"


def _setting_value(value: str) -> Setting:
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        number = float(value)
    except ValueError:
        return value
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"{value} is not a number to train with")
    return number
