"""Progress on the screen: bars with the time that is left on a terminal, plain lines elsewhere. All of it on stderr."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TextIO

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ltxtrain.events import (
    TRAINING,
    CheckpointSaved,
    EvalLoss,
    Event,
    MemoryMeasured,
    Notice,
    RunFinished,
    StageDone,
    StageProgress,
    StageStarted,
    StepDone,
    VideoRendered,
)
from ltxtrain.listeners.lines import LineListener
from ltxtrain.listeners.losses import LossWords
from ltxtrain.listeners.progress import (
    Clock,
    Remaining,
    checkpoint_line,
    done_line,
    eta,
    evaluation_line,
    memory_line,
    remaining_in,
    step_parts,
    video_line,
)
from ltxtrain.units import plain

LOSS_MEMORY = 0.95  # the bar shows an exponential mean of the loss over about 40 steps
CALM = "cyan"  # in 16 colours too, where rich's own pink becomes the red of errors
LEAST_BAR = 8  # columns: words go before the bar gets shorter
SPARE = 5  # columns left free: after a full line, the ^C that the terminal echoes would begin a new one
FIRST_TO_GO = (2, 1, 3, 0)  # of the words: learning rate, data sets, seconds per step, then the loss


def console_listener(
    stream: TextIO | None = None, every: int | None = None, datasets: Mapping[str, bool] | None = None
) -> BarListener | LineListener:
    """Bars where ``stream`` (stderr) is a terminal, else a plain line for each tenth of a stage or each ``every``.

    ``datasets`` are those that are trained on, True for regularisation. Use it as a context manager, or call
    ``close()``: that gives the terminal back, whatever ended the run.
    """
    target = stream if stream is not None else sys.stderr
    if target.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown"):
        return BarListener(target, datasets=datasets)
    return LineListener(target, every, datasets=datasets)


Words = tuple[str, str, str, str]
NO_WORDS: Words = ("", "", "", "")


@dataclass(frozen=True)
class _Stage:
    """What the line shows. ``words`` are texts that a narrow terminal drops one by one; ``left`` stays."""

    name: str
    total: int | None
    done: int
    remaining: Remaining
    words: Words = NO_WORDS
    left: str = ""


class BarListener:
    """One line with a bar for the stage that began last; what is done stays behind as a line. NO_COLOR is followed.

    One line only, so that whoever writes to the terminal past us has to clear no more than the line of the cursor.
    """

    def __init__(
        self, stream: TextIO, clock: Clock = time.monotonic, datasets: Mapping[str, bool] | None = None
    ) -> None:
        self._clock = clock
        self._console = Console(file=stream, highlight=False, emoji=False, markup=False)
        self._spinner = Spinner("dots", style=CALM)
        self._stages: dict[str, _Stage] = {}
        self._words = LossWords(datasets or {})
        self._loss: float | None = None
        # stdout belongs to data: were it redirected, rich would print it here.
        self._live = Live(
            console=self._console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=stream is sys.stderr,
            get_renderable=self._draw,
        )

    def __call__(self, event: Event) -> None:
        match event:
            case Notice():
                self._say(plain(event.message), warning=event.level == "warning")
            case StageStarted():
                self._begin(event)
            case StageProgress():
                self._advance(event.stage, event.done, (plain(event.detail), *NO_WORDS[1:]))
            case StepDone():
                self._step(event)
            case StageDone():
                self._end(event)
            case CheckpointSaved():
                self._say(checkpoint_line(event))
            case EvalLoss():
                self._say(evaluation_line(event))
            case MemoryMeasured():
                self._say(memory_line(event))
            case VideoRendered():
                self._say(video_line(event))
            case RunFinished():
                self.close()
            case _:
                pass

    def close(self) -> None:
        """Take the bar away, finished or not, and show the cursor again. May be called twice, and before any stage."""
        self._stages.clear()
        self._live.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, event: StageStarted) -> None:
        self._stages.pop(event.stage, None)  # one that begins again is the newest
        self._stages[event.stage] = _Stage(
            plain(event.stage), event.total, event.done, remaining_in(event, self._clock)
        )
        self._live.start()
        self._live.refresh()

    def _advance(self, name: str, done: int, words: Words) -> None:
        if name not in self._stages:
            return
        stage = self._stages[name]
        stage.remaining.update(done)
        self._stages[name] = replace(stage, done=done, words=words, left=eta(stage.remaining.seconds()))

    def _step(self, event: StepDone) -> None:
        if TRAINING not in self._stages:
            self._begin(StageStarted(TRAINING, event.total, event.step - 1, "steps"))
        losses = self._words.split(event)
        if losses.learnt is not None:
            before = losses.learnt if self._loss is None else self._loss
            self._loss = LOSS_MEMORY * before + (1 - LOSS_MEMORY) * losses.learnt
        told = "" if self._loss is None else f"loss {self._loss:.4f}"
        self._advance(TRAINING, event.step, (told, self._words.names(losses), *step_parts(event)))

    def _end(self, event: StageDone) -> None:
        self._stages.pop(event.stage, None)
        self._say(done_line(event))
        if not self._stages:
            self._live.stop()

    def _say(self, line: str, *, warning: bool = False) -> None:
        text = Text("warning: ", style="bold yellow") + Text(line) if warning else Text(line)
        self._console.print(text, soft_wrap=True)

    def _draw(self) -> Table | Text:
        """Called by rich's own thread too: it reads whole records, and the newest of a copy."""
        stages = list(self._stages.values())
        if not stages:
            return Text("")
        now = self._console.get_time()
        return _line(stages[-1], self._spinner.render(now), self._console.width - SPARE, now)


def _line(stage: _Stage, spinner: RenderableType, width: int, now: float) -> Table:
    """Spinner, name, bar, count and words in ``width`` columns. Count and remaining time stay whatever happens."""
    count = f"{stage.done}/{stage.total}" if stage.total is not None else ""
    words = list(stage.words)
    room = _room(stage, count, words, width)
    for index in FIRST_TO_GO:
        if room >= LEAST_BAR:
            break
        words[index] = ""
        room = _room(stage, count, words, width)
    name = Text(stage.name)
    name.truncate(max(1, name.cell_len + min(0, room)), overflow="ellipsis")
    cells: list[RenderableType] = [spinner, name]
    if room > 0:
        cells.append(_bar(stage, room, now))
    cells += [Text(text) for text in (count, _told(stage, words)) if text]
    line = Table.grid(padding=(0, 1, 0, 0))
    for _ in cells:
        line.add_column(no_wrap=True)
    line.add_row(*cells)
    return line


def _room(stage: _Stage, count: str, words: list[str], width: int) -> int:
    """Columns that are left for the bar, each part with a blank before it."""
    parts = [part for part in (stage.name, count, _told(stage, words)) if part]
    return width - 2 - sum(cell_len(part) + 1 for part in parts)


def _told(stage: _Stage, words: list[str]) -> str:
    return ", ".join(part for part in (*words, stage.left) if part)


def _bar(stage: _Stage, width: int, now: float) -> ProgressBar:
    return ProgressBar(
        total=stage.total,
        completed=stage.done,
        width=width,
        pulse=stage.total is None,
        animation_time=now,
        complete_style=CALM,
        finished_style=CALM,
        pulse_style=CALM,
    )
