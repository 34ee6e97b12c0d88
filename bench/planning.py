"""``ltxtrain plan`` of 10,000 clips: the first time, when each is opened, and again, when facts are remembered."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from fractions import Fraction
from pathlib import Path

from bench.process import watch

CLIPS = 10_000
SIZES = ((96, 64), (64, 96), (64, 64), (112, 64), (80, 64), (64, 80))
LENGTHS = (9, 25, 40)
ROUNDS = 5
SECONDS_BOUND, MEMORY_BOUND = 2.0, 500
SETTLED_S = 3.0  # what was written just now is not remembered yet
MIB = 1024**2


def measure(folder: Path, count: int = CLIPS) -> list[tuple[str, str, str]]:
    clips = folder / "many-clips"
    make_many(clips, count)
    time.sleep(SETTLED_S)
    words = ["--data", str(clips), "--cache", str(folder / "plan-cache"), "--output", str(folder / "plan-out")]
    command = ["-m", "ltxtrain", "plan", "--preset", "smoke", *words]
    first = watch(command, folder)
    again = [watch(command, folder) for _ in range(ROUNDS)]
    seconds, peak = min(run.seconds for run in again), max(run.peak for run in again) / MIB
    spread = f"{seconds:.2f} to {max(run.seconds for run in again):.2f} s"
    shutil.rmtree(clips)
    what = f"`plan` of {count:,} clips"
    return [
        (f"{what}, the first time", f"{first.seconds:.1f} s, {first.peak / MIB:.0f} MiB", "-"),
        (f"{what} again", f"{seconds:.2f} s (of {ROUNDS}: {spread})", f"<= {SECONDS_BOUND:g} s"),
        (f"{what} again, memory", f"{peak:.0f} MiB", f"<= {MEMORY_BOUND} MiB"),
    ]


def make_many(folder: Path, count: int) -> None:
    """Copies of a few tiny clips, in folders of a thousand, each with a caption of its own."""
    originals = [_clip(folder, size, frames) for size in SIZES for frames in LENGTHS]
    for index in range(count):
        below = folder / f"{index // 1000:03d}"
        below.mkdir(exist_ok=True)
        path = below / f"clip{index:06d}.mp4"
        path.write_bytes(originals[index % len(originals)])
        path.with_suffix(".txt").write_text(f"a man walks through street number {index}, and it rains")


def _clip(folder: Path, size: tuple[int, int], frames: int) -> bytes:
    import av
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "original.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), 8 * index % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    path.unlink()
    return content


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.planning", description=__doc__)
    parser.add_argument("--clips", type=int, default=CLIPS)
    with tempfile.TemporaryDirectory(prefix="ltxtrain-bench-") as name:
        for row in measure(Path(name), parser.parse_args().clips):
            print(" | ".join(row))
