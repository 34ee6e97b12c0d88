"""How one option of the schema is declared, and the types that options share.

``option(default, description, ge=..., devices=...)`` is a pydantic ``Field`` with the habits of this schema: every
option has a plain description, and where the guides document another default, or where only some devices are meant,
the schema says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

LARGEST: Final = 100_000
"""Above any size in pixels or GiB, and any weight, and far below what cannot be multiplied any more."""

_SAME: Final = object()


def option(
    default: Any,
    description: str,
    *,
    devices: tuple[str, ...] = (),
    documented: Any = _SAME,
    **bounds: float | int,
) -> Any:
    """Declare an option. ``bounds`` are ``ge``, ``gt``, ``le`` and ``lt``; ``documented`` is the guides' default."""
    extra: dict[str, Any] = {}
    if devices:
        extra["devices"] = list(devices)
    if documented is not _SAME:
        extra["documented_default"] = documented
        description = f"{description} The guides' default: {_spelled(documented)}."
    limits: dict[str, Any] = dict(bounds)
    return Field(default, description=description, json_schema_extra=extra or None, **limits)


def _spelled(value: Any) -> str:
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)


class Section(BaseModel):
    """A frozen group of options. Unknown keys, NaN and infinity are refused, and no error shows the value."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
        protected_namespaces=(),
        str_strip_whitespace=True,
        validate_default=False,
    )


def _usable_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("a path cannot hold a NUL character")
    if str(path).startswith("~"):
        try:
            return path.expanduser()
        except RuntimeError as error:
            raise ValueError("the home folder in this path cannot be found") from error
    return path


def _number_as_text(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return value


LocalPath = Annotated[Path, AfterValidator(_usable_path)]
"""A path on this machine, ``~`` expanded. Whether it exists is checked when it is used, not here."""

TextOrNumber = Annotated[str, BeforeValidator(_number_as_text)]
"""Text that the guides also write as a bare number, such as a validation resolution."""

Fraction = Annotated[float, Field(ge=0, le=1)]


SKIPPED_SEARCHES: Final = ("vae", "aspect", "metadata", "text")


def search_words(text: str | None) -> tuple[str, ...]:
    """``"vae, text"`` -> ``("vae", "text")``. Raises ValueError for a word that is none of the documented ones."""
    words = tuple((text or "").replace(",", " ").lower().split())
    for word in words:
        if word not in SKIPPED_SEARCHES:
            raise ValueError(f"{word} is none of {', '.join(SKIPPED_SEARCHES)}")
    return words


def _known_words(text: str) -> str:
    search_words(text)
    return text


SkipWords = Annotated[str, AfterValidator(_known_words)]
"""``skip_file_discovery``: documented words with commas between."""
