"""Small pictures out of clips: a few moments of each, decoded ahead of whoever looks at them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxtrain.errors import DataError
from ltxtrain.facts.media import ClipFacts
from ltxtrain.plan.records import Bucket, Sample

SIDE = 160  # pixels of a picture's longer side
AHEAD = 4  # clips for each worker


@dataclass(frozen=True)
class Moments:
    """``times`` are seconds since the clip's first frame; ``size`` is (width, height) of the pictures asked for."""

    path: Path
    times: tuple[float, ...]
    size: tuple[int, int]
    kind: str = "video"


def moments_of(facts: ClipFacts, kind: str, parts: tuple[float, ...] = (0.0, 0.5, 1.0)) -> Moments:
    """``parts`` of the clip's length, 0 its first and 1 its last frame. An image has one."""
    last = max(0.0, facts.duration_s - 1.0 / max(facts.fps, 1.0))
    times = tuple(dict.fromkeys(part * last for part in parts)) if kind == "video" else (0.0,)
    return Moments(facts.path, times, still_size(facts.width, facts.height), kind)


def still_size(width: int, height: int) -> tuple[int, int]:
    """At most ``SIDE`` on the longer side, even, of the same shape as far as that goes."""
    scale = min(1.0, SIDE / max(width, height))
    return max(16, 2 * round(width * scale / 2)), max(16, 2 * round(height * scale / 2))


def stills(wanted: Iterable[Moments]) -> Iterator[NDArray[np.uint8] | DataError]:
    """For each clip its frames as stills_FHWC, in order, or the error that its file gives."""
    workers = min(4, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[NDArray[np.uint8] | DataError]] = deque()
    try:
        for moments in wanted:
            waiting.append(pool.submit(_decoded, moments))
            if len(waiting) >= AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _decoded(moments: Moments) -> NDArray[np.uint8] | DataError:
    from ltxtrain.data.frames import decode_window

    try:
        return np.concatenate([decode_window(_sample(moments, time)) for time in moments.times])
    except DataError as error:
        return error


def _sample(moments: Moments, time: float) -> Sample:
    width, height = moments.size
    bucket = Bucket(width, height, 1)
    return Sample("", "", str(moments.path), (), time, 25.0, bucket, moments.size, (0, 0), 0, False)
