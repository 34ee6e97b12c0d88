"""Small pictures out of clips: a few moments of each, decoded by children ahead of whoever looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxtrain.facts.media import ClipFacts
from ltxtrain.facts.media_facts import Kind, MediaError
from ltxtrain.facts.media_frames import FrameRequest, decode_frames

SIDE = 160  # pixels of a picture's longer side
FIRST_MIDDLE_LAST = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Moments:
    """``times`` are seconds since the clip's first frame."""

    path: Path
    kind: Kind
    times: tuple[float, ...]


def moments_of(facts: ClipFacts, kind: Kind, parts: tuple[float, ...] = FIRST_MIDDLE_LAST) -> Moments:
    """``parts`` of the clip's length: 0 is its first frame, 1 its last one. An image has one."""
    one = kind == "image" or facts.frames < 2
    return Moments(facts.path, kind, (0.0,) if one else tuple(part * facts.duration_s for part in parts))


def stills(wanted: Sequence[Moments]) -> Iterator[NDArray[np.uint8] | MediaError]:
    """For each clip its frames as stills_FHWC, in order, or what is wrong with the file."""
    requests = [FrameRequest(entry.path, time, entry.kind, (SIDE, SIDE)) for entry in wanted for time in entry.times]
    with closing(decode_frames(requests)) as frames:  # type: ignore[type-var]
        for entry in wanted:
            found = list(islice(frames, len(entry.times)))
            yield _stacked(found)


def _stacked(found: Sequence[NDArray[np.uint8] | MediaError]) -> NDArray[np.uint8] | MediaError:
    pictures = [picture for picture in found if not isinstance(picture, MediaError)]
    faults = [picture for picture in found if isinstance(picture, MediaError)]
    if faults:
        return faults[0]
    if len({picture.shape for picture in pictures}) != 1:
        return MediaError("damaged", "its frames are of different sizes")
    return np.stack(pictures)
