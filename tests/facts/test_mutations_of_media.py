"""A thousand damaged videos: each ends in facts or in a stable reason, and those that pass decode or say why not.

Seeded: the same thousand in every run. What a decoder does with damaged bytes is nobody's promise, so only this is
held: no process of ours ends, nothing hangs, and every verdict is one of the known ones.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from ltxtrain.data.frames import decode_ahead
from ltxtrain.errors import DataError
from ltxtrain.facts.media import ClipFacts, MediaError, probe_clips
from ltxtrain.plan.records import Bucket, Sample
from tests.facts.zoo_files import encoded

COUNT = 1000
SEED = 4
LONGEST_S = 10.0
FORMS: dict[str, dict[str, object]] = {
    "mp4": {"codec": "libx264", "form": "mp4"},
    "mov": {"codec": "mpeg4", "form": "mov"},
    "mkv": {"codec": "libx264", "form": "matroska"},
    "webm": {"codec": "libvpx", "form": "webm", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "avi": {"codec": "mpeg4", "form": "avi"},
}


def truncated(content: bytearray, draw: random.Random) -> None:
    del content[draw.randrange(len(content)) :]


def zeroed(content: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(content))
    end = min(len(content), start + draw.randrange(1, 4000))
    content[start:end] = bytes(end - start)


def header(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 12)):
        content[draw.randrange(min(600, len(content)))] = draw.randrange(256)


def anywhere(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 60)):
        content[draw.randrange(len(content))] = draw.randrange(256)


def index_at_the_end(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randrange(1, 12)):
        content[-1 - draw.randrange(min(900, len(content)))] = draw.randrange(256)


WAYS = (truncated, zeroed, header, anywhere, index_at_the_end)


@pytest.fixture(scope="module")
def mutants(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("mutants")
    originals = {}
    for suffix, settings in FORMS.items():
        encoded(folder / f"original.{suffix}", frames=10, **settings)  # type: ignore[arg-type]
        originals[suffix] = (folder / f"original.{suffix}").read_bytes()
    draw = random.Random(SEED)
    paths = []
    for number in range(COUNT):
        suffix = list(FORMS)[number % len(FORMS)]
        content = bytearray(originals[suffix])
        WAYS[number // len(FORMS) % len(WAYS)](content, draw)
        paths.append(folder / f"{number:04d}.{suffix}")
        paths[-1].write_bytes(content)
    return paths


def test_thousand_damaged_videos_end_in_facts_or_in_a_reason(mutants: list[Path]) -> None:
    began = time.monotonic()
    found = probe_clips(mutants)
    probing = time.monotonic() - began
    verdicts = Counter(entry.reason if isinstance(entry, MediaError) else "facts" for entry in found)
    assert sum(verdicts.values()) == COUNT
    assert set(verdicts) <= {"facts", "empty", "not-video", "damaged", "no-video", "too-large"}, verdicts
    assert verdicts["facts"] > 100 < verdicts["damaged"], verdicts
    assert probing < COUNT * LONGEST_S / 50

    usable = [entry for entry in found if isinstance(entry, ClipFacts)]
    frames = 9
    samples = [
        Sample(f"m/{n}#0", "m", str(facts.path), ("a",), 0.0, 25.0, Bucket(64, 32, frames), (64, 48), (0, 8), 0, False)
        for n, facts in enumerate(usable)
    ]
    outcomes: Counter[str] = Counter()
    waited = time.monotonic()
    for sample, decoded in decode_ahead(samples):
        assert time.monotonic() - waited < LONGEST_S, sample.path
        waited = time.monotonic()
        if isinstance(decoded, np.ndarray):
            assert decoded.shape == (frames, 32, 64, 3)
            outcomes["frames"] += 1
            continue
        assert isinstance(decoded, DataError)
        assert sample.path in decoded.message
        assert not any(word in decoded.message for word in ("defect", "signal", "longer than")), decoded.message
        outcomes["error"] += 1
    assert outcomes["frames"] > 50 and outcomes["error"] > 0, outcomes
