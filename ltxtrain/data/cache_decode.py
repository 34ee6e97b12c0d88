"""Decoding ahead of the encoder, in children: clips are asked for one by one, as they are claimed for the cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ltxtrain.data.frames import Cut, cut_of, decode_task, frames_in
from ltxtrain.errors import DataError
from ltxtrain.facts.children import Children, Task, usable_workers
from ltxtrain.facts.children_serve import KEPT_ROOMS
from ltxtrain.plan.records import Sample

CHILD = "ltxtrain.data.decode_child"
# A window of the largest frames that are opened, with what their decoder keeps for reference.
DECODE_MEMORY = 4 << 30


class Decoder:
    """``decode_window`` by children, which stay until ``close``: one for each core, but no more than ``at_once``, each
    with memory for windows of ``most_bytes``."""

    def __init__(self, most_bytes: int, at_once: int) -> None:
        memory = DECODE_MEMORY + (KEPT_ROOMS + 2) * most_bytes
        self._children = Children(CHILD, min(usable_workers(), at_once), memory)

    def stream(self, samples: Iterable[Sample]) -> Iterator[tuple[Sample, np.ndarray | DataError]]:
        """Each sample with its frames, in order. ``samples`` is read only so far ahead as the children work: twice
        their number, and about 1 GiB of windows. A clip that fails comes as its ``DataError``, and the others go on."""
        asked: deque[tuple[Sample, Cut]] = deque()

        def tasks() -> Iterator[Task]:
            for sample in samples:
                asked.append((sample, cut_of(sample)))
                yield decode_task(asked[-1][1])

        for reply in self._children.run(tasks()):
            sample, cut = asked.popleft()
            yield sample, frames_in(cut, reply)

    def close(self) -> None:
        self._children.close()
