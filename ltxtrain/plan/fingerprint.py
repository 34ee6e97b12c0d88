"""A digest of what is trained on, so that a run does not go on with other clips."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ltxtrain.facts.digests import file_sha256, sha256_of

if TYPE_CHECKING:
    from ltxtrain.plan.records import Sample


def samples_digest(samples: Iterable[Sample], memo: Path) -> str:
    """Of each sample: its clip's bytes, captions, window, bucket and crop.

    Where the clip lies does not count, nor does how it is used (``repeats``, ``i2v``): those are settings, which may
    change in the course of a run. ``memo`` is a folder of remembered digests.
    """
    digests: dict[str, str] = {}
    listed = []
    for sample in samples:
        if sample.path not in digests:  # a long clip has many windows
            digests[sample.path] = file_sha256(Path(sample.path), memo)
        bucket = (sample.bucket.width, sample.bucket.height, sample.bucket.frames)
        part = (sample.start, sample.fps, bucket, sample.resize, sample.crop)
        listed.append((sample.id, sample.dataset, sample.kind, sample.captions, part, digests[sample.path]))
    return sha256_of("samples-3", listed)
