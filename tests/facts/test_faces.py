"""Frames in which nobody could look for a face are not taken for frames without one in silence."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.facts.faces import FaceRequest, find_faces


def test_frames_that_cannot_be_looked_at_are_told(
    make_clip: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "bad\x1b[31m.mp4"
    bad.write_bytes(b"no video")
    requests = [FaceRequest(make_clip("good.mp4", frames=3), 0.0), FaceRequest(bad, 0.0)]
    with caplog.at_level(logging.WARNING):
        assert find_faces(requests) == [None, None]
    (record,) = caplog.records
    words = record.getMessage()
    assert "in 1 of 2 frames" in words and "bad" in words and "no video container" in words
    assert words.isprintable()
