"""What ``optimizer_config`` says: settings as ``name=value,name=value``."""

from __future__ import annotations

from ltxtrain.config.secrets import shown

Setting = float | bool | str

LARGEST = 3e38
"""Of float32, in which optimisers compute."""


def parse_optimizer_settings(text: str | None) -> dict[str, Setting]:
    """``"weight_decay=0.01,eps=1e-8"`` -> ``{"weight_decay": 0.01, "eps": 1e-08}``. Raises ValueError."""
    settings: dict[str, Setting] = {}
    for part in (text or "").split(","):
        if not part.strip():
            continue
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or not value:
            raise ValueError(f"{shown('optimizer_config', part.strip())} is not name=value")
        if name in settings:
            raise ValueError(f"{name} is given twice")
        settings[name] = _setting_value(value)
    return settings


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
    if not abs(number) <= LARGEST:
        raise ValueError(f"{value} is not a number to train with")
    return number
