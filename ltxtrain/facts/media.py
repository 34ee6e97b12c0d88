"""Probe media files: what is really in them, by reading every packet and decoding one frame.

A container's own claims (frame count, duration, size) are not trusted: Matroska has no frame count at all, and a
damaged file often lies. Files are opened in children (``facts/children.py``, ``facts/media_open.py``), and what was
found is remembered (``facts/media_memo.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, TypeAlias

from ltxtrain.facts.children import Children, Reply, Task, usable_workers
from ltxtrain.facts.media_facts import ClipFacts, Kind, MediaError, frames_at, from_plain, printable, told
from ltxtrain.facts.media_images import IMAGE_EXTENSIONS, probe_image
from ltxtrain.facts.media_memo import Memo, common_root, stamp_of
from ltxtrain.facts.media_open import Patience, open_clip, open_regular_file, opened_clip, sniff_format

__all__ = [
    "IMAGE_EXTENSIONS",
    "VIDEO_EXTENSIONS",
    "ClipFacts",
    "MediaError",
    "Progress",
    "bounded_stream",
    "displayed_size",
    "frames_at",
    "new_scaler",
    "open_clip",
    "open_regular_file",
    "probe_clip",
    "probe_clips",
    "sniff_format",
    "video_stream",
]

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter
    from av.video.stream import VideoStream

VIDEO_EXTENSIONS = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv", ".wmv", ".m4v", ".mpeg", ".mpg", ".3gp", ".ogv")
)
FILES_OF_A_CHILD = 8  # to start another takes as long as to look at more than these
Progress: TypeAlias = "Callable[[int, int], None]"  # how many are done, and how many there are
MAX_PIXELS = 8192 * 8192
MICROSECONDS = 1_000_000  # a container's duration is counted in these
MAX_FRAMES = 500_000
MAX_SECONDS = 24 * 3600  # a longer clip is a damaged timestamp
PROBE_MEMORY = 2 << 30
PROBE_SECONDS = 10.0
PROBE_BYTES_PER_SECOND = 20e6
MOST_SECONDS_OF_A_FILE = 600.0
# One picture may take so much more than what is read in search of the next packet.
MOST_BYTES_OF_A_PIXEL = 16


def probe_clips(
    paths: Sequence[Path],
    kind: Kind = "video",
    memo: Path | None = None,
    root: Path | None = None,
    progress: Progress | None = None,
) -> list[ClipFacts | MediaError]:
    """Probe many files, in the order given. ``memo`` is a folder where facts and refusals are remembered, in a file
    for each ``root``; files that have not changed since are not opened. Links are followed only to what lies in
    ``root``. What was found so far is remembered also when
    this is stopped. ``progress`` hears how many of those to be opened are done, and how many there are."""
    if not paths:
        return []
    known = Memo(memo, root or common_root(paths), kind, program())
    stamps = [stamp_of(path) if memo is not None else None for path in paths]
    found = [known.answer(path, stamp) for path, stamp in zip(paths, stamps, strict=True)]
    places = [place for place, entry in enumerate(found) if entry is None]
    if places:
        try:
            opened = _opened([paths[place] for place in places], kind, root)
            for done, (place, entry) in enumerate(zip(places, opened, strict=True)):
                found[place] = entry
                known.remember(paths[place], stamps[place], entry)
                known.keep_now_and_then(paths)
                if progress is not None:
                    progress(done + 1, len(places))
        finally:
            known.keep(paths)
    return [entry for entry in found if entry is not None]


def _opened(paths: Sequence[Path], kind: Kind, root: Path | None) -> Iterator[ClipFacts | MediaError]:
    count = min(usable_workers(), math.ceil(len(paths) / FILES_OF_A_CHILD))
    with Children("ltxtrain.facts.probe_child", count, PROBE_MEMORY) as pool:
        for path, reply in zip(paths, pool.run(probe_task(path, kind, root) for path in paths), strict=True):
            yield found_in(path, reply)


def probe_task(path: Path, kind: Kind, root: Path | None = None) -> Task:
    seconds = min(MOST_SECONDS_OF_A_FILE, PROBE_SECONDS + stored_bytes(path) / PROBE_BYTES_PER_SECOND)
    within = str(root.absolute()) if root is not None else None
    return Task({"do": "probe", "path": str(path.absolute()), "kind": kind, "within": within}, seconds)


def stored_bytes(path: Path) -> int:
    """What reading it may take time for: holes in a file are read at once. 0 where there is no file."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return 0
    stored = getattr(status, "st_blocks", 0) * 512  # some file systems count no blocks
    return min(status.st_size, stored) if stored else status.st_size


def found_in(path: Path, reply: Reply) -> ClipFacts | MediaError:
    """What a child found, its words looked at."""
    if reply.failure:
        return MediaError(reply.failure, printable(reply.detail))
    return from_plain(path, reply.answer) or MediaError("crashed", "the process that opened it gives no facts")


def program() -> str:
    """The versions of what opens media: another one may find something else."""
    import importlib.metadata

    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in ("av", "pillow"))


def probe_file(path: Path, kind: Kind, within: Path | None) -> ClipFacts:
    """``within`` is as for ``open_regular_file``. Raises ``MediaError`` with the reason's code."""
    if kind == "image":
        with open_regular_file(path, within) as file:
            return probe_image(path, file)
    return probe_clip(path, within)


def probe_clip(path: Path, within: Path | None = None) -> ClipFacts:
    """Read all of the file's packets and decode its first frame. Raises ``MediaError`` with the reason's code."""
    import av

    # FFmpeg's errors derive from these built-in ones by kind; a damaged file can raise nearly any of them.
    try:
        with open_regular_file(path, within) as file:
            return _probe_open(path, Patience(file))
    except av.error.DecoderNotFoundError as error:
        raise MediaError("no-video", "its video is in a coding for which there is no decoder") from error
    except MemoryError as error:
        raise MediaError("too-large", "reading it takes more memory than one file is given") from error
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise MediaError("damaged", f"it cannot be read: {told(error)}") from error


def video_stream(container: InputContainer) -> VideoStream:
    """The first stream that moves: a cover picture is a video stream, too, for FFmpeg. Raises ``MediaError``."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if Disposition.attached_pic in stream.disposition:
            continue
        if stream.codec_context is None:
            raise MediaError("no-video", "its video is in a coding for which there is no decoder")
        return stream
    raise MediaError("no-video", "it holds no video stream")


def bounded_stream(container: InputContainer) -> VideoStream:
    """``video_stream``, decoded with one thread: there are several children. Raises ``MediaError`` for one whose
    pictures are far too large."""
    stream = video_stream(container)
    coded = stream.codec_context
    if coded.width * coded.height > MAX_PIXELS:
        raise MediaError("too-large", f"{coded.width}x{coded.height} pixels; at most {MAX_PIXELS} are opened")
    coded.thread_count = 1
    return stream


def displayed_size(frame: VideoFrame, pixel_shape: Fraction | None) -> tuple[int, int]:
    """Width and height with the shape of pixels and the rotation applied."""
    shape = float(pixel_shape) if pixel_shape and 0.1 < pixel_shape < 10 else 1.0
    width, height = max(1, round(frame.width * shape)), frame.height
    return (height, width) if frame.rotation % 180 == 90 else (width, height)


def new_scaler() -> VideoReformatter:
    """It keeps its filters from frame to frame."""
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


def _probe_open(path: Path, file: Patience) -> ClipFacts:
    import av

    try:
        with opened_clip(file) as container:
            return _probe_container(path, container, file)
    except (av.error.FFmpegError, MediaError):
        file.check()
        raise


def _probe_container(path: Path, container: InputContainer, patience: Patience) -> ClipFacts:
    stream = bounded_stream(container)
    coded = stream.codec_context
    patience.most += MOST_BYTES_OF_A_PIXEL * coded.width * coded.height
    picture, ticks = _read_packets(container, stream, patience)
    if picture is None or not ticks:
        raise MediaError("damaged", "not one frame could be decoded")
    tick = float(stream.time_base or Fraction(1, 1000))
    times = [value * tick for value in ticks]
    if times[-1] - times[0] > MAX_SECONDS:
        raise MediaError("too-large", f"its timestamps span {(times[-1] - times[0]) / 3600:.0f} hours")
    rate = _declared_rate(stream)
    frame_s, variable = _spacing(times, tick, rate)
    last_s = min(frame_s, 1 / rate, median(_gaps(times) or [frame_s]))  # nobody tells how long the last one is shown
    width, height = displayed_size(picture, stream.sample_aspect_ratio)
    return ClipFacts(
        path=path,
        bytes=path.stat().st_size,
        width=width,
        height=height,
        rotation=picture.rotation,
        frames=len(times),
        declared_frames=stream.frames,
        fps=1 / frame_s,
        first_pts_s=times[0],
        duration_s=times[-1] - times[0] + last_s,
        variable_rate=variable,
        codec=coded.name,
        pixel_format=picture.format.name,
        declared_s=(container.duration or 0) / MICROSECONDS,
        interlaced=bool(picture.interlaced_frame),
    )


def _read_packets(
    container: InputContainer, stream: VideoStream, patience: Patience
) -> tuple[VideoFrame | None, list[int]]:
    """The first frame, and the sorted timestamps of all frames that a player shows. Decodes no more than needed."""
    picture: VideoFrame | None = None
    ticks: set[int] = set()
    for packet in container.demux():
        patience.packet()
        if packet.stream_index != stream.index:
            continue
        if picture is None:
            picture = next(_decoded(packet), None)
        ticks_here = packet.pts if packet.pts is not None else packet.dts
        if packet.size and ticks_here is not None and not packet.is_discard and not packet.is_corrupt:
            ticks.add(ticks_here)
        if len(ticks) > MAX_FRAMES:
            raise MediaError("too-large", f"more than {MAX_FRAMES} frames")
    return picture, sorted(ticks)


def _decoded(packet: Any) -> Iterator[VideoFrame]:
    yield from packet.decode()


def _declared_rate(stream: VideoStream) -> float:
    """The container's word: the rate of a single frame, and at most so long is the last frame of a clip shown."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate else 25.0


def _spacing(times: list[float], tick: float, declared_rate: float) -> tuple[float, bool]:
    """Seconds from frame to frame, and whether they vary by more than the container's clock explains."""
    if len(times) < 2:
        return 1 / declared_rate, False
    gaps = _gaps(times)
    usual = median(gaps)
    variable = max(gaps) - min(gaps) > max(0.2 * usual, 2.01 * tick)
    return (times[-1] - times[0]) / len(gaps), variable


def _gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]
