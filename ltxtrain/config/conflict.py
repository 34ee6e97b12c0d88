"""A combination of options that cannot work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conflict:
    """``keys`` do not go together because of ``problem``. The fault stands where the last given of them stands.

    ``undoes`` is the option that ``suggestion`` takes back: that it is not built yet, too, need not be said.
    """

    keys: tuple[str, ...]
    problem: str
    suggestion: str = ""
    undoes: str = ""
