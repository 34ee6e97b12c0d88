"""Decoding for the cache: clips are asked for one by one, as they are claimed, and decoded ahead of the encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np

from ltxtrain.data.frames import decode_ahead
from ltxtrain.errors import DataError
from ltxtrain.plan.records import Sample

AT_ONCE = 16


def decoded(samples: Iterable[Sample]) -> Iterator[tuple[Sample, np.ndarray | DataError]]:
    """Each sample with its frames, in order; a clip that cannot be decoded comes as its ``DataError``."""
    upcoming = iter(samples)
    while part := list(islice(upcoming, AT_ONCE)):
        yield from decode_ahead(part)
