"""A digest of what is trained on, so that a run does not go on with other clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ltxtrain.errors import DataError
from ltxtrain.facts.digests import sha256_of
from ltxtrain.facts.media_digests import Digest, iter_digests

if TYPE_CHECKING:
    from ltxtrain.plan.records import Sample


def media_digests(samples: Iterable[Sample], memo: Path | None) -> Iterator[tuple[str, Digest]]:
    """The path of each clip once, with the digest of its bytes or why it cannot be read."""
    from ltxtrain.plan.records import clip_name  # which needs this module itself

    root_of = {sample.path: sample.path.removesuffix(clip_name(sample)) for sample in samples}
    return iter_digests(root_of, root_of, memo)


def known_digests(samples: Iterable[Sample], memo: Path | None) -> dict[str, str]:
    """The digest of each clip, by its path. Raises ``DataError`` for one that cannot be read any more."""
    found = {}
    for path, digest in media_digests(samples, memo):
        if isinstance(digest, DataError):
            raise DataError(f"{path} cannot be read: {digest.detail}", hint="run again: it is planned as it is now")
        found[path] = digest
    return found


def samples_digest(samples: Iterable[Sample], memo: Path) -> str:
    """Of each sample: its clip's bytes, captions, window, bucket and crop.

    Where the clip lies does not count, nor does how it is used (``repeats``, ``i2v``): those are settings, which may
    change in the course of a run. ``memo`` is a folder of remembered digests.
    """
    samples = tuple(samples)
    digests = known_digests(samples, memo)
    listed = []
    for sample in samples:
        bucket = (sample.bucket.width, sample.bucket.height, sample.bucket.frames)
        part = (sample.start, sample.fps, bucket, sample.resize, sample.crop)
        listed.append((sample.id, sample.dataset, sample.kind, sample.captions, part, digests[sample.path]))
    return sha256_of("samples-3", listed)
