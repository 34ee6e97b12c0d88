"""How far the opening of clips is, for whoever waits for a plan. Nothing is said where it takes no two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from ltxtrain.listeners.console import BarListener
    from ltxtrain.listeners.lines import LineListener

STAGE = "opening clips"
SILENT_SECONDS = 2.0


class OpeningTold:
    """Called with how many files are opened and how many there are, data set after data set: told on stderr."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._console: BarListener | LineListener | None = None
        self._began: float | None = None
        self._told = False  # of this data set

    def __call__(self, done: int, total: int) -> None:
        from ltxtrain.events import StageDone, StageProgress, StageStarted

        now = self._clock()
        if self._began is None:
            self._began = now
        if now - self._began < SILENT_SECONDS:
            return
        if self._console is None:
            from ltxtrain.listeners.console import console_listener

            self._console = console_listener()
        if not self._told:
            self._console(StageStarted(STAGE, total, done, "clips"))
            self._told = True
        self._console(StageProgress(STAGE, done))
        if done == total:
            self._console(StageDone(STAGE, now - self._began))
            self._told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console is not None:
            self._console.close()
