"""Decoding for the cache: clips are asked for one by one, as they are claimed, and decoded ahead of the encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ltxtrain.data.frames import DECODE_MEMORY, Cut, _frames_in, _task, cut_of
from ltxtrain.errors import DataError
from ltxtrain.facts.children import Children, Task, usable_workers
from ltxtrain.plan.records import Sample

CHILD = "ltxtrain.data.decode_child"


class Decoder:
    """``decode_ahead`` with children that stay for the next call: one for each core, for ``at_once`` windows of at most
    ``most_bytes``."""

    def __init__(self, most_bytes: int, at_once: int) -> None:
        self._children = Children(CHILD, min(usable_workers(), at_once), DECODE_MEMORY + 2 * most_bytes)

    def stream(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, np.ndarray | DataError]]:
        """Each sample with its frames, in order. ``samples`` is read only so far ahead as the children work."""
        asked: deque[tuple[Sample, Cut]] = deque()

        def tasks() -> Iterator[Task]:
            for sample in samples:
                asked.append((sample, cut_of(sample)))
                yield _task(asked[-1][1])

        for reply in self._children.run(tasks()):
            sample, cut = asked.popleft()
            yield sample, _frames_in(cut, reply)

    def close(self) -> None:
        self._children.close()
