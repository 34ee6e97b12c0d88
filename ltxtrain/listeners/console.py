"""Progress on the screen: bars with the time that is left on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from ltxtrain.events import (
    CheckpointSaved,
    Event,
    Notice,
    RunFinished,
    StageDone,
    StageProgress,
    StageStarted,
    StepDone,
    VideoRendered,
)
from ltxtrain.listeners.lines import LineListener
from ltxtrain.listeners.progress import (
    TRAINING,
    Clock,
    Remaining,
    checkpoint_line,
    done_line,
    eta,
    plain,
    remaining_in,
    step_text,
    video_line,
)

LOSS_MEMORY = 0.95  # the bar shows an exponential mean of the loss over about 40 steps


def console_listener(stream: TextIO | None = None, every: int | None = None) -> BarListener | LineListener:
    """Bars where ``stream`` (stderr) is a terminal, else a plain line for each tenth of a stage or each ``every``.

    Use it as a context manager, or call ``close()``: that gives the terminal back, whatever ended the run.
    """
    target = stream if stream is not None else sys.stderr
    if target.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
        return BarListener(target)
    return LineListener(target, every)


class BarListener:
    """One bar for each stage under way; what is done stays behind as a line. Colours follow NO_COLOR."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._console = Console(file=stream, highlight=False, emoji=False, markup=False)
        # stdout belongs to data: were it redirected, rich would print it here.
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None, table_column=Column(ratio=1)),  # what the words leave over
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}", markup=False),
            console=self._console,
            transient=True,
            expand=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
        )
        self._tasks: dict[str, tuple[TaskID, Remaining]] = {}
        self._loss: float | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Notice():
                self._say(plain(event.message), warning=event.level == "warning")
            case StageStarted():
                self._begin(event)
            case StageProgress():
                self._advance(event.stage, event.done, plain(event.detail))
            case StepDone():
                self._step(event)
            case StageDone():
                self._end(event)
            case CheckpointSaved():
                self._say(checkpoint_line(event))
            case VideoRendered():
                self._say(video_line(event))
            case RunFinished():
                self.close()
            case _:
                pass

    def close(self) -> None:
        """Take the bars away and show the cursor again. May be called twice, and before anything was shown."""
        self._progress.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, event: StageStarted) -> None:
        self._forget(event.stage)
        task = self._progress.add_task(plain(event.stage), total=event.total, completed=event.done, told="")
        self._tasks[event.stage] = (task, remaining_in(event, self._clock))
        self._progress.start()

    def _advance(self, stage: str, done: int, told: str) -> None:
        if stage not in self._tasks:
            return
        task, remaining = self._tasks[stage]
        remaining.update(done)
        parts = (told, eta(remaining.seconds()))
        self._progress.update(task, completed=done, told=", ".join(part for part in parts if part))

    def _step(self, event: StepDone) -> None:
        if TRAINING not in self._tasks:
            self._begin(StageStarted(TRAINING, event.total, event.step - 1, "steps"))
        self._loss = event.loss if self._loss is None else LOSS_MEMORY * self._loss + (1 - LOSS_MEMORY) * event.loss
        self._advance(TRAINING, event.step, step_text(event, self._loss))

    def _end(self, event: StageDone) -> None:
        self._forget(event.stage)
        self._say(done_line(event))
        if not self._tasks:
            self._progress.stop()

    def _forget(self, stage: str) -> None:
        if stage in self._tasks:
            self._progress.remove_task(self._tasks.pop(stage)[0])

    def _say(self, line: str, *, warning: bool = False) -> None:
        text = Text("warning: ", style="bold yellow") + Text(line) if warning else Text(line)
        self._console.print(text, soft_wrap=True)
