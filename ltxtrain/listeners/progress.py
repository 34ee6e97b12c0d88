"""What every view of a run needs: remaining time, and one line of text for each event. No terminal, no colour."""

from __future__ import annotations

from collections.abc import Callable

from ltxtrain.events import (
    TRAINING,
    CheckpointSaved,
    EvalLoss,
    MemoryMeasured,
    StageDone,
    StageStarted,
    StepDone,
    VideoRendered,
)
from ltxtrain.units import format_bytes, format_duration, plain

WARM_UP_STEPS = 3  # the first steps compile kernels and fill caches: they tell nothing of the others
WARM_UP_ITEMS = 1

Clock = Callable[[], float]


class Remaining:
    """Seconds that are left, from the pace since the warm-up, with the validation and checkpoints in between."""

    def __init__(self, done: int, total: int | None, *, warm_up: int, clock: Clock) -> None:
        self._clock = clock
        self._total = total
        self._first = done + warm_up
        self._since: tuple[int, float] | None = None
        self._now: tuple[int, float] | None = None

    def update(self, done: int) -> None:
        self._now = (done, self._clock())
        if self._since is None and done >= self._first:
            self._since = self._now

    def seconds(self) -> float | None:
        """None until one unit has been measured after the warm-up, or where the total is not known."""
        if self._total is None or self._since is None or self._now is None or self._now[0] <= self._since[0]:
            return None
        pace = (self._now[1] - self._since[1]) / (self._now[0] - self._since[0])
        return max(0.0, pace * (self._total - self._now[0]))


def remaining_in(event: StageStarted, clock: Clock) -> Remaining:
    warm_up = WARM_UP_STEPS if event.stage == TRAINING else WARM_UP_ITEMS
    return Remaining(event.done, event.total, warm_up=warm_up, clock=clock)


def eta(seconds: float | None) -> str:
    return "" if seconds is None else f"ETA {format_duration(seconds)}"


def counted(count: int, unit: str) -> str:
    """``12 clips``, ``1 batch``; the number alone where there is no unit. Units come as plurals."""
    return f"{count} {_one(unit) if count == 1 else unit}".rstrip()


def _one(unit: str) -> str:
    if unit.endswith("ies"):
        return unit.removesuffix("ies") + "y"
    return unit.removesuffix("es") if unit.endswith("tches") else unit.removesuffix("s")


def started_line(event: StageStarted) -> str:
    """``latents: 12 clips, 3 of them there already``; with nothing to count, a part of the model is loaded."""
    if event.total is None:
        return plain(f"loading the {event.stage} ...")
    there = f", {event.done} of them there already" if event.done else ""
    return plain(f"{event.stage}: {counted(event.total, event.unit)}{there}")


def done_line(event: StageDone) -> str:
    detail = f", {event.detail}" if event.detail else ""
    return plain(f"{event.stage}: done in {format_duration(event.seconds)}{detail}")


def step_parts(event: StepDone) -> tuple[str, str]:
    """``lr 1.0e-04``, ``1.52 s/step``. What is told of the loss is the caller's: a step alone says little of it."""
    return f"lr {event.lr:.1e}", f"{event.seconds:.2f} s/step"


def checkpoint_line(event: CheckpointSaved) -> str:
    size, seconds = format_bytes(event.bytes), format_duration(event.seconds)
    return plain(f"checkpoint at step {event.step}: {event.path} ({size}, {seconds})")


def evaluation_line(event: EvalLoss) -> str:
    """``evaluation loss at step 40: 0.8123 (held-out, 28 sigmas, 3 s)``."""
    details = f"{event.dataset}, {counted(len(event.by_sigma), 'sigmas')}, {format_duration(event.seconds)}"
    return plain(f"evaluation loss at step {event.step}: {event.loss:.4f} ({details})")


def memory_line(event: MemoryMeasured) -> str:
    """``memory of training in a trial (2 x 480x480@49): 7.1 GiB in tensors, 8.9 GiB in use; estimated 9.4 GiB``."""
    trial = " in a trial" if event.where == "probe" else ""
    detail = f" ({event.detail})" if event.detail else ""
    tensors = f"{format_bytes(event.allocated)} in tensors, " if event.allocated is not None else ""
    estimated = f"; estimated {format_bytes(event.estimate)}" if event.estimate is not None else ""
    more = ", which is less" if event.estimate is not None and event.device_used > event.estimate else ""
    used = f"{tensors}{format_bytes(event.device_used)} in use"
    return plain(f"memory of {event.phase}{trial}{detail}: {used}{estimated}{more}")


def video_line(event: VideoRendered) -> str:
    return plain(f"video at step {event.step}: {event.video} ({format_duration(event.seconds)})")


def percent(done: int, total: int | None) -> str:
    return f" ({100 * done // total} %)" if total else ""
