"""Decoding ahead in children against a plain PyAV loop, in turn; and how busy decode, resize and encode keep the cores.

``python -m bench.decoding PART FOLDER`` runs one part over the clips in FOLDER and prints one JSON object.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from bench.process import watch

ROUNDS = 3
WIDTH, HEIGHT, FRAMES, FPS = 832, 480, 121, 25
CLIPS, DECODED = 4, 64
# The part with the VAE takes the same clips at a smaller size: encoding lasts much longer than decoding.
SMALL, SMALL_FRAMES, ENCODED = (256, 160), 57, 12


def measure(folder: Path) -> list[tuple[str, str, str]]:
    clips = folder / "wide"
    make_clips(clips)
    told: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS}
    together: list[float] = []
    for _ in range(ROUNDS):
        for part in PARTS:
            told[part].append(json.loads(watch(["-m", "bench.decoding", part, str(clips)], folder).output))
        together.append(two_plain_loops(clips))
    seconds = {part: median(run["seconds"] for run in runs) for part, runs in told.items()}
    spent = {part: median(run["cpu"] for run in runs) for part, runs in told.items()}
    cores = len(os.sched_getaffinity(0))
    rate = {part: DECODED / seconds[part] for part in ("plain", "one_thread", "ahead")}
    busy = sorted(run["cpu"] / (run["seconds"] * cores) for run in told["encode"])
    size = f"{WIDTH}x{HEIGHT}x{FRAMES}"
    return [
        (
            f"decoding ahead / sequential PyAV loop ({size}, H.264)",
            f"{seconds['one_thread'] / seconds['ahead']:.2f} ({rate['ahead']:.1f} / {rate['one_thread']:.1f} clips/s)",
            ">= 1.6 on two cores",
        ),
        (
            "decoding ahead / that loop, with PyAV's own threads",
            f"{seconds['plain'] / seconds['ahead']:.2f} ({rate['ahead']:.1f} / {rate['plain']:.1f} clips/s)",
            "",
        ),
        (
            "two loops with threads at once / one",
            f"{2 * seconds['plain'] / median(together):.2f}",
            "what this machine can",
        ),
        (
            "decoding ahead / loop with threads, seconds of processor for a clip",
            f"{spent['ahead'] / spent['plain']:.2f}",
            "",
        ),
        (
            "decode, resize and encode with the tiny VAE: part of the cores that is busy",
            f"{median(busy):.0%}, rounds {busy[0]:.0%} to {busy[-1]:.0%}",
            ">= 85%",
        ),
    ]


def two_plain_loops(clips: Path) -> float:
    """Seconds of two processes, each with all the clips: they have nothing to wait for, and nobody to answer."""
    command = [sys.executable, "-m", "bench.decoding", "plain", str(clips)]
    loops = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    return max(json.loads(loop.communicate()[0])["seconds"] for loop in loops)


def make_clips(folder: Path) -> None:
    """A drifting texture with the grain of a film camera: flat pictures would decode in no time."""
    import av
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    for number in range(CLIPS):
        draw = np.random.default_rng(number)
        coarse = draw.integers(30, 220, (HEIGHT // 8 + 40, WIDTH // 8 + 40, 3)).astype(np.float32)
        texture = np.kron(coarse, np.ones((8, 8, 1), np.float32))
        grain = draw.normal(0, 5, (8, HEIGHT, WIDTH, 1)).astype(np.float32)
        with av.open(str(folder / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for index in range(FRAMES):
                picture = texture[index : index + HEIGHT, 2 * index : 2 * index + WIDTH] + grain[index % 8]
                frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


def samples(folder: Path, count: int, size: tuple[int, int], frames: int) -> list[Any]:
    from ltxtrain.plan.records import Bucket, Sample

    return [
        Sample(
            id=f"wide/{number}.mp4#{number}",
            dataset="wide",
            path=str(folder / f"{number % CLIPS}.mp4"),
            captions=("a texture",),
            start=0.0,
            fps=FPS,
            bucket=Bucket(*size, frames),
            resize=size,
            crop=(0, 0),
            repeats=0,
            i2v=False,
        )
        for number in range(count)
    ]


def plain(folder: Path, threads: str = "SLICE") -> Callable[[], None]:
    """What anybody would write: one clip after the other, every frame scaled with the same filter. ``threads`` are
    PyAV's own: it decodes with several unless told not to."""
    import av
    import numpy as np
    from av.video.reformatter import Interpolation, VideoReformatter

    def run() -> None:
        for number in range(DECODED):
            scaler = VideoReformatter()
            with av.open(str(folder / f"{number % CLIPS}.mp4")) as container:
                container.streams.video[0].thread_type = threads
                frames_FHWC = np.stack(
                    [
                        scaler.reformat(
                            frame, WIDTH, HEIGHT, "rgb24", interpolation=Interpolation.LANCZOS, threads=1
                        ).to_ndarray()
                        for frame in container.decode(video=0)
                    ]
                )
            assert frames_FHWC.shape == (FRAMES, HEIGHT, WIDTH, 3)

    return run


def decode_ahead(asked: list[Any]) -> Iterator[tuple[Any, Any]]:
    from ltxtrain.data.cache_decode import Decoder
    from ltxtrain.data.frames import cut_of

    with closing(Decoder(max(cut_of(sample).bytes for sample in asked), len(asked))) as decoder:
        yield from decoder.stream(asked)


def ahead(folder: Path) -> Callable[[], None]:
    def run() -> None:
        for _, frames_FHWC in decode_ahead(samples(folder, DECODED, (WIDTH, HEIGHT), FRAMES)):
            assert frames_FHWC.shape == (FRAMES, HEIGHT, WIDTH, 3)

    return run


def encode(folder: Path) -> Callable[[], None]:
    import torch

    from ltxtrain.model.tiny import TinySpec, build_pipeline

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    vae = build_pipeline(TinySpec()).vae.eval()

    @torch.inference_mode()
    def run() -> None:
        for _, frames_FHWC in decode_ahead(samples(folder, ENCODED, SMALL, SMALL_FRAMES)):
            pixels_BCFHW = torch.from_numpy(frames_FHWC).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            vae.encode(pixels_BCFHW).latent_dist.mode()

    return run


def one_thread(folder: Path) -> Callable[[], None]:
    return plain(folder, "NONE")


PARTS = {"plain": plain, "one_thread": one_thread, "ahead": ahead, "encode": encode}


def spent() -> float:
    """Seconds of processor of this process and of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in usage)


def timed(run: Callable[[], None]) -> dict[str, float]:
    began, used = time.perf_counter(), spent()
    run()
    return {"seconds": time.perf_counter() - began, "cpu": spent() - used}


if __name__ == "__main__":
    print(json.dumps(timed(PARTS[sys.argv[1]](Path(sys.argv[2])))))
