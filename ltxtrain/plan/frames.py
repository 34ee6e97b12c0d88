"""How many frames, and which: counts of the form 8k+1, and windows of a clip."""

from __future__ import annotations

from dataclasses import dataclass

from ltxtrain.plan.records import TEMPORAL_RATIO


@dataclass(frozen=True)
class Window:
    """Part of a clip: ``index`` counts from 0, ``first_frame`` and ``frames`` are at the training frame rate."""

    index: int
    first_frame: int
    frames: int


def floor_frames(count: int) -> int:
    """The largest 8k+1 that is not above ``count``: 125 -> 121, 120 -> 113. The VAE makes (n-1)/8+1 latent frames."""
    if count < 1:
        raise ValueError(f"{count} frames: at least 1 is needed")
    return (count - 1) // TEMPORAL_RATIO * TEMPORAL_RATIO + 1


def floor_to_interval(count: int, interval: int | None) -> int:
    """Floor to whole intervals after the first frame, then to 8k+1: interval 24 gives 1, 25, 49, 73 ..."""
    if interval is None:
        return floor_frames(count)
    return floor_frames((count - 1) // interval * interval + 1)


def windows(available: int, frames: int, mode: str, per_clip: int = 1, stride: int | None = None) -> tuple[Window, ...]:
    """Windows of ``frames`` frames in a clip that has ``available``; none when the clip is shorter.

    ``first``: the beginning. ``all``: one each ``stride`` frames, as many as are whole; without a stride one after
    another, below ``frames`` they overlap, above it frames between them are left out. ``uniform``: ``per_clip`` windows
    spread evenly from the beginning to the end (a single one lies in the middle); they may overlap, but no two are the
    same.
    """
    spare = available - frames
    if spare < 0:
        return ()
    if mode == "first":
        starts = [0]
    elif mode == "all":
        starts = list(range(0, spare + 1, frames if stride is None else stride))
    elif mode == "uniform":
        starts = _spread(spare, per_clip)
    else:
        raise ValueError(f"window {mode!r}: want first, uniform or all")
    return tuple(Window(index, start, frames) for index, start in enumerate(starts))


def _spread(spare: int, count: int) -> list[int]:
    if count == 1:
        return [spare // 2]
    return sorted({spare * index // (count - 1) for index in range(count)})
