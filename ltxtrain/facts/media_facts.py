"""What is known of a clip or an image, as a record and as plain JSON that came from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ltxtrain.errors import DataError
from ltxtrain.facts.reasons import REASONS, Reason

Kind = Literal["video", "image"]

# The rest of a clip counts as one more frame when it lasts at least this part of a frame. Less is what rounding of
# timestamps makes (Matroska counts whole milliseconds), not material.
LAST_FRAME_PART = 0.25
LONGEST_TEXT = 300


class MediaError(DataError):
    """This file cannot be trained on. ``reason`` is a stable code, ``detail`` a sentence without the file's name."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True)
class ClipFacts:
    """One video or image. Sizes are in pixels as displayed (pixel shape and rotation applied), times in seconds.

    ``rotation`` is what the player applies, in degrees, as PyAV tells it. ``frames`` are counted packets;
    ``declared_frames`` and ``declared_s`` are the container's claims, 0 where it makes none. ``duration_s`` runs from
    the first frame to the end of the last one. With ``variable_rate`` the frames are not evenly spaced and ``fps`` is
    their average. ``interlaced``: the first frame holds two fields; they are decoded as one frame, not taken apart. An
    image has one frame, no rate and no duration (``fps`` and ``duration_s`` are 0).
    """

    path: Path
    bytes: int
    width: int
    height: int
    rotation: int
    frames: int
    declared_frames: int
    fps: float
    first_pts_s: float
    duration_s: float
    variable_rate: bool
    codec: str
    pixel_format: str
    declared_s: float = 0.0
    interlaced: bool = False
    kind: Kind = "video"


def frames_at(duration_s: float, fps: float) -> int:
    """How many frames a clip of ``duration_s`` seconds gives at ``fps``: those at 0, 1/fps, 2/fps ... within it."""
    return max(1, math.ceil(duration_s * fps - LAST_FRAME_PART))


def plain(found: ClipFacts | MediaError) -> dict[str, Any]:
    """As JSON values, without the path."""
    if isinstance(found, MediaError):
        return {"reason": found.reason, "detail": printable(found.detail)}
    return {name: value for name, value in asdict(found).items() if name != "path"}


def from_plain(path: Path, said: object) -> ClipFacts | MediaError | None:
    """What ``plain`` made, or None: every value is looked at, because a damaged file or a hostile child wrote it."""
    if not isinstance(said, Mapping):
        return None
    if "reason" in said:
        reason, detail = said["reason"], said.get("detail")
        return MediaError(reason, printable(detail)) if reason in REASONS and isinstance(detail, str) else None
    wanted = {entry.name: entry for entry in fields(ClipFacts) if entry.name != "path"}
    if set(said) - set(wanted) or any(name not in said and entry.default is MISSING for name, entry in wanted.items()):
        return None
    if not all(_fits(value, str(wanted[name].type)) for name, value in said.items()):
        return None
    values: dict[str, Any] = {name: printable(v) if isinstance(v, str) else v for name, v in said.items()}
    facts = ClipFacts(path=path, **values)
    return facts if facts.width > 0 and facts.height > 0 and facts.frames > 0 else None


def _fits(value: object, kind: str) -> bool:
    if kind == "Kind":
        return value in ("video", "image")
    if kind == "float":
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and math.isfinite(value)  # type: ignore[arg-type]
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62
    return type(value).__name__ == kind


def printable(text: str) -> str:
    """A line that may stand on a terminal: what a file or its decoder says is not ours."""
    line = "".join(letter if letter.isprintable() else " " for letter in text).strip()
    return line if len(line) <= LONGEST_TEXT else f"{line[:LONGEST_TEXT]} ..."


def told(error: Exception) -> str:
    """What a library says of a fault, without FFmpeg's numbers."""
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)
