"""A thousand damaged files: each ends in facts or in a stable reason, and those that pass decode or say why not.

Seeded: the same thousand in every run. What a decoder does with damaged bytes is nobody's promise, so only this is
held: no process of ours ends, nothing hangs, and every verdict is one of the known ones.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ltxtrain.data.cache_decode import Decoder
from ltxtrain.data.frames import cut_of
from ltxtrain.errors import DataError
from ltxtrain.facts.media import ClipFacts, MediaError, probe_clips
from ltxtrain.facts.media_facts import Kind
from ltxtrain.plan.records import Bucket, Sample
from tests.facts.zoo_files import encoded

COUNT = 1000
IMAGE_COUNT = 150
SEED = 4
LONGEST_S = 10.0
FORMS: dict[str, dict[str, object]] = {
    "mp4": {"codec": "libx264", "form": "mp4"},
    "mov": {"codec": "mpeg4", "form": "mov"},
    "mkv": {"codec": "libx264", "form": "matroska"},
    "webm": {"codec": "libvpx", "form": "webm", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "avi": {"codec": "mpeg4", "form": "avi"},
    "ts": {"codec": "mpeg2video", "form": "mpegts"},
    "mpg": {"codec": "mpeg1video", "form": "mpeg"},
    "flv": {"codec": "flv1", "form": "flv"},
    "wmv": {"codec": "wmv2", "form": "asf"},
    "ogv": {"codec": "libvpx", "form": "ogg", "options": {"deadline": "realtime", "cpu-used": "8"}},
}
IMAGES: dict[str, tuple[str, dict[str, object]]] = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {}),
    "webp": ("WEBP", {}),
    "bmp": ("BMP", {}),
    "avif": ("AVIF", {"speed": 10}),
    "tiff": ("TIFF", {"compression": "tiff_lzw"}),
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


def damaged(originals: dict[str, bytes], folder: Path, count: int) -> list[Path]:
    draw = random.Random(SEED)
    suffixes = list(originals)
    paths = []
    for number in range(count):
        suffix = suffixes[number % len(suffixes)]
        content = bytearray(originals[suffix])
        WAYS[number // len(suffixes) % len(WAYS)](content, draw)
        paths.append(folder / f"{number:04d}.{suffix}")
        paths[-1].write_bytes(content)
    return paths


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    originals = {}
    for suffix, settings in FORMS.items():
        encoded(folder / f"original.{suffix}", frames=10, **settings)  # type: ignore[arg-type]
        originals[suffix] = (folder / f"original.{suffix}").read_bytes()
    return damaged(originals, folder, COUNT - IMAGE_COUNT)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    noise = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8)
    originals = {}
    for suffix, (form, saving) in IMAGES.items():
        target = BytesIO()
        Image.fromarray(noise).save(target, form, **saving)  # type: ignore[arg-type]
        originals[suffix] = target.getvalue()
    return damaged(originals, tmp_path_factory.mktemp("images"), IMAGE_COUNT)


def probed(paths: list[Path], kind: Kind) -> tuple[Counter[str], list[ClipFacts]]:
    """How many came to which verdict, and the usable ones."""
    began = time.monotonic()
    found = probe_clips(paths, kind)
    assert time.monotonic() - began < len(paths) * LONGEST_S / 50
    verdicts = Counter(entry.reason if isinstance(entry, MediaError) else "facts" for entry in found)
    assert sum(verdicts.values()) == len(paths)
    return verdicts, [entry for entry in found if isinstance(entry, ClipFacts)]


def decoded(usable: list[ClipFacts], frames: int) -> Counter[str]:
    """By the door that the recipes take."""
    samples = [
        Sample(f"m/{n}#0", "m", str(facts.path), ("a",), 0.0, 25.0, Bucket(64, 32, frames), (64, 48), (0, 8), 0, False)
        for n, facts in enumerate(usable)
    ]
    samples = [replace(sample, kind=facts.kind) for sample, facts in zip(samples, usable, strict=True)]
    outcomes: Counter[str] = Counter()
    waited = time.monotonic()
    with closing(Decoder(max(cut_of(sample).bytes for sample in samples), len(samples))) as decoder:
        for sample, found in decoder.stream(samples):
            assert time.monotonic() - waited < LONGEST_S, sample.path
            waited = time.monotonic()
            if isinstance(found, np.ndarray):
                assert found.shape == (frames, 32, 64, 3)
                outcomes["frames"] += 1
                continue
            assert isinstance(found, DataError)
            assert sample.path in found.message
            assert not any(word in found.message for word in ("defect", "signal", "longer than")), found.message
            outcomes["error"] += 1
    return outcomes


def test_damaged_videos_end_in_facts_or_in_a_reason(videos: list[Path]) -> None:
    verdicts, usable = probed(videos, "video")
    assert set(verdicts) <= {"facts", "empty", "not-video", "damaged", "no-video", "too-large"}, verdicts
    assert verdicts["facts"] > 100 < verdicts["damaged"], verdicts
    assert {facts.path.suffix[1:] for facts in usable} == set(FORMS)
    outcomes = decoded(usable, 9)
    assert outcomes["frames"] > 50 and outcomes["error"] > 0, outcomes


def test_damaged_images_end_in_facts_or_in_a_reason(images: list[Path]) -> None:
    verdicts, usable = probed(images, "image")
    assert set(verdicts) <= {"facts", "empty", "not-image", "damaged", "too-large"}, verdicts
    assert verdicts["facts"] > 20 < verdicts["damaged"], verdicts
    assert decoded(usable, 1) == Counter(frames=len(usable))
