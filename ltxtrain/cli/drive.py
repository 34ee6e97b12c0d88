"""Draining a recipe: its events go to the listeners, its result comes back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ltxtrain.events import Event

Result = TypeVar("Result")


def drain(events: Generator[Event, None, Result], listeners: Sequence[Callable[[Event], None]]) -> Result:
    """Run ``events`` to its end and return what it returns. A listener that raises is told once and dropped."""
    active = list(listeners)
    while True:
        try:
            event = next(events)
        except StopIteration as finished:
            result: Result = finished.value
            return result
        for listener in list(active):
            try:
                listener(event)
            except Exception as error:  # a listener observes: whatever it does wrong must not end the run
                active.remove(listener)
                print(f"warning: {type(listener).__name__} failed and is switched off: {error}", file=sys.stderr)
