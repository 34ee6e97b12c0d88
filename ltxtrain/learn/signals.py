"""SIGINT and SIGTERM: the first asks the run to save and leave, the second leaves at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ltxtrain.errors import Interrupted

WATCHED = (signal.SIGINT, signal.SIGTERM)
# Written by the handler itself: the loop may take a while to come round.
STOPPING = b"\nstopping at the next safe point; a second signal leaves at once\n"


class StopFlag:
    """Set by a signal, polled by every loop between two units of work; inside ``at_once`` the signal itself raises."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._at_once: str | None = None

    def request(self, number: int) -> None:
        if self.signal_number is not None:
            os._exit(128 + number)
        self.signal_number = number
        if self._at_once is not None:
            raise self.leave(self._at_once)

    @property
    def requested(self) -> bool:
        return self.signal_number is not None

    def leave(self, saved: str) -> Interrupted:
        """The exception to raise once ``saved`` (said in the message) is safe."""
        number = self.signal_number or signal.SIGINT
        return Interrupted(
            f"by {signal.Signals(number).name}; {saved}",
            signal_number=int(number),
            hint="start the same command again to go on",
        )

    def check(self, saved: str) -> None:
        if self.requested:
            raise self.leave(saved)

    @contextmanager
    def at_once(self, saved: str) -> Iterator[None]:
        """Inside, a signal leaves there and then: for long work with nothing to save (a download, loading, hashing).

        Files written inside must be written atomically, as all of ours are.
        """
        self.check(saved)
        self._at_once = saved
        try:
            yield
        finally:
            self._at_once = None


@contextmanager
def watch_signals(stop: StopFlag) -> Iterator[None]:
    """Route the signals to ``stop`` inside; the handlers that were there before come back after."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.requested:
            # On a terminal the unfinished progress bar is cleared first.
            os.write(2, b"\r\x1b[K" + STOPPING.lstrip() if os.isatty(2) else STOPPING)
        stop.request(number)

    before = {number: signal.signal(number, handle) for number in WATCHED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)  # None: not set from Python
