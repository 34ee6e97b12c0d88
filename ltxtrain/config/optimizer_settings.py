"""What ``optimizer_config`` says: settings as ``name=value,name=value``, each in its range."""

from __future__ import annotations

from typing import Final

from ltxtrain.config.secrets import shown

Setting = float | bool | str

SMALLEST: Final = 1e-37
LARGEST: Final = 3e38
"""Of float32, in which optimisers compute: what is smaller is 0 there, what is larger infinite."""

_BELOW_ONE: Final = frozenset({"momentum", "rho", "beta3", "shampoo_beta"})
_ABOVE_ZERO: Final = frozenset({"d0", "d_coef", "eps"})  # eps: where a gradient is 0, as A's is at first, 0 / 0
# Muon's own; and the powers of AdamWScheduleFree, to which steps and rates are raised: larger ones would overflow.
_MOST: Final = {"ns_steps": 99, "r": 30, "weight_lr_power": 100}
_COUNTED: Final = 2**31  # whole numbers are no larger


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


def takes(setting: str, value: Setting, default: Setting) -> bool:
    """A truth value where the default is one, else a number in the setting's range, whole where the default is."""
    if isinstance(value, str) or isinstance(value, bool) != isinstance(default, bool):
        return False
    if setting == "beta2_decay":
        return value < 0
    if is_whole(default):
        return value == int(value) and bool(default) <= value <= _MOST.get(setting, _COUNTED)
    if _is_share(setting, default):
        return 0 <= value < 1
    return (SMALLEST if setting in _ABOVE_ZERO else 0) <= value <= _MOST.get(setting, LARGEST)


def range_words(setting: str, default: Setting) -> str:
    """The range of ``takes`` in words."""
    if isinstance(default, bool):
        return "true or false"
    if setting == "beta2_decay":
        return "a number below 0"
    if is_whole(default):
        return f"a whole number, {int(bool(default))} to {_MOST.get(setting, _COUNTED)}"
    if _is_share(setting, default):
        return "a number from 0 to below 1"
    if setting in _MOST:
        return f"a number from 0 to {_MOST[setting]}"
    return f"a number, {SMALLEST if setting in _ABOVE_ZERO else 0:g} or more"


def is_whole(default: Setting) -> bool:
    return isinstance(default, int) and not isinstance(default, bool)


def _is_share(setting: str, default: Setting) -> bool:
    return setting in _BELOW_ONE or (setting == "alpha" and isinstance(default, float) and default <= 1)
