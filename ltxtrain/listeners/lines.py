"""Progress where there is no terminal: a container's log, a file, a pipe. One plain line now and then, never a bar."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from ltxtrain.events import (
    TRAINING,
    CheckpointSaved,
    EvalLoss,
    Event,
    MemoryMeasured,
    Notice,
    StageDone,
    StageProgress,
    StageStarted,
    StepDone,
    VideoRendered,
)
from ltxtrain.listeners.losses import LossWords
from ltxtrain.listeners.progress import (
    Clock,
    Remaining,
    checkpoint_line,
    done_line,
    eta,
    evaluation_line,
    memory_line,
    percent,
    remaining_in,
    started_line,
    step_parts,
    video_line,
)
from ltxtrain.units import plain

QUIET_SECONDS = 30.0  # a stage says something at least this often, however long a tenth of it takes
HASTY_SECONDS = 1.0  # and no more often than this, but for training


class LineListener:
    """A line each tenth of a stage (or each ``every`` units), after 30 s of silence, at the first and last step."""

    def __init__(
        self,
        stream: TextIO,
        every: int | None = None,
        clock: Clock = time.monotonic,
        datasets: Mapping[str, bool] | None = None,
    ) -> None:
        self._stream = stream
        self._every = every
        self._clock = clock
        self._stages: dict[str, _Stage] = {}
        self._losses = LossWords(datasets or {})

    def __call__(self, event: Event) -> None:
        match event:
            case Notice():
                self._write(f"{'warning: ' if event.level == 'warning' else ''}{plain(event.message)}")
            case StageStarted():
                self._stages[event.stage] = _Stage(event, self._every, self._clock)
                self._write(started_line(event))
            case StageProgress():
                self._progress(event)
            case StepDone():
                self._step(event)
            case StageDone():
                self._stages.pop(event.stage, None)
                self._write(done_line(event))
            case CheckpointSaved():
                self._write(checkpoint_line(event))
            case EvalLoss():
                self._write(evaluation_line(event))
            case MemoryMeasured():
                self._write(memory_line(event))
            case VideoRendered():
                self._write(video_line(event))
            case _:
                pass

    def close(self) -> None:
        """Nothing to restore: lines are written whole."""
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _progress(self, event: StageProgress) -> None:
        stage = self._stages.get(event.stage)
        if stage is None or not stage.is_due(event.done):
            return
        parts = (
            f"{event.stage}: {event.done}{stage.of_total(event.done)}",
            event.detail,
            eta(stage.remaining.seconds()),
        )
        self._write(plain(", ".join(part for part in parts if part)))

    def _step(self, event: StepDone) -> None:
        """The loss in the line is the mean since the line before: single steps differ too much to be read."""
        started = StageStarted(TRAINING, event.total, event.step - 1, "steps")
        stage = self._stages.setdefault(TRAINING, _Stage(started, self._every, self._clock))
        self._losses.add(event)
        if not stage.is_due(event.step):
            return
        parts = (
            f"step {event.step}{stage.of_total(event.step)}",
            self._losses.since_last(),
            *step_parts(event),
            eta(stage.remaining.seconds()),
        )
        self._write(", ".join(part for part in parts if part))

    def _write(self, line: str) -> None:
        self._stream.write(f"{line}\n")
        self._stream.flush()


class _Stage:
    """When a stage spoke last, and how long it will go on."""

    def __init__(self, event: StageStarted, every: int | None, clock: Clock) -> None:
        self.remaining: Remaining = remaining_in(event, clock)
        self._total = event.total
        self._ends = {event.done + 1, event.total} if event.stage == TRAINING else set()
        self._least = 0.0 if event.stage == TRAINING or every else HASTY_SECONDS
        self._every = every or max(1, math.ceil((event.total or 0) / 10))
        self._clock = clock
        self._spoke = clock()

    def is_due(self, done: int) -> bool:
        """True for both ends of training, for each ``every`` units, and after half a minute of silence."""
        self.remaining.update(done)
        now = self._clock()
        silent = now - self._spoke
        due = done in self._ends or silent >= (self._least if done % self._every == 0 else QUIET_SECONDS)
        if due:
            self._spoke = now
        return due

    def of_total(self, done: int) -> str:
        return f"/{self._total}{percent(done, self._total)}" if self._total else ""
