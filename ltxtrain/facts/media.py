"""Probe video files: what is really in them, by reading every packet and decoding one frame.

A container's own claims (frame count, duration, size) are not trusted: Matroska has no frame count at all, and a
damaged file often lies. The format is sniffed from the first bytes and the decoder reads from an open file object, so
that no text file, playlist or URL hidden behind ``.mp4`` is ever followed.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, BinaryIO

from ltxtrain.errors import DataError
from ltxtrain.facts.reasons import Reason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

VIDEO_EXTENSIONS = frozenset(
    (".mp4", ".avi", ".mov", ".mkv", ".webm", ".flv", ".wmv", ".m4v", ".mpeg", ".mpg", ".3gp", ".ogv")
)
MAX_PIXELS = 8192 * 8192
MICROSECONDS = 1_000_000  # a container's duration is counted in these
MAX_FRAMES = 500_000
MAX_SECONDS = 24 * 3600  # a longer clip is a damaged timestamp
PROBE_THREADS = 4

# The rest of a clip counts as one more frame when it lasts at least this part of a frame. Less is what rounding of
# timestamps makes (Matroska counts whole milliseconds), not material.
LAST_FRAME_PART = 0.25

_QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"OggS", "ogg"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
)


class MediaError(DataError):
    """This file cannot be trained on. ``reason`` is a stable code, ``detail`` a sentence without the file's name."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


@dataclass(frozen=True)
class ClipFacts:
    """One video file. Sizes are in pixels as displayed (pixel shape and rotation applied), times in seconds.

    ``rotation`` is what the player applies, in degrees, as PyAV tells it. ``frames`` are counted packets;
    ``declared_frames`` and ``declared_s`` are the container's claims, 0 where it makes none. ``duration_s`` runs from
    the first frame to the end of the last one. With ``variable_rate`` the frames are not evenly spaced and ``fps`` is
    their average.
    """

    path: Path
    bytes: int
    width: int
    height: int
    rotation: int
    frames: int
    declared_frames: int
    fps: float
    first_pts_s: float
    duration_s: float
    variable_rate: bool
    codec: str
    pixel_format: str
    declared_s: float = 0.0


def frames_at(duration_s: float, fps: float) -> int:
    """How many frames a clip of ``duration_s`` seconds gives at ``fps``: those at 0, 1/fps, 2/fps ... within it."""
    return max(1, math.ceil(duration_s * fps - LAST_FRAME_PART))


def probe_clips(paths: Sequence[Path]) -> list[ClipFacts | MediaError]:
    """Probe many files, in the order given. Threads pay: the decoder's library works outside of Python's lock."""
    if not paths:
        return []
    import av  # noqa: F401 - once, here: the threads would race to do it

    workers = min(PROBE_THREADS, os.cpu_count() or 1, len(paths))
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(_probe_or_error, paths))


def probe_clip(path: Path) -> ClipFacts:
    """Read all of the file's packets and decode its first frame. Raises ``MediaError`` with the reason's code."""
    import av

    # FFmpeg's errors derive from these built-in ones by kind; a damaged file can raise nearly any of them.
    try:
        with open_clip(path) as container:
            return _probe_container(path, container)
    except av.error.DecoderNotFoundError as error:
        raise MediaError("no-video", "its video is in a coding for which there is no decoder") from error
    except (av.error.FFmpegError, OSError, ValueError, IndexError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise MediaError("damaged", f"it cannot be read: {reason}") from error


@contextmanager
def open_clip(path: Path) -> Iterator[InputContainer]:
    """Open a video for reading, and nothing but the video: from an open file, in the format that its bytes tell.

    Raises ``MediaError`` for a file that is no video, and whatever PyAV raises for a damaged one.
    """
    import av

    with _open_regular_file(path) as file:
        head = file.read(512)
        if not head:
            raise MediaError("empty", "the file is empty (0 bytes)")
        container_format = sniff_format(head)
        if container_format is None:
            raise MediaError("not-video", "its first bytes are of no video container that is known here")
        file.seek(0)
        options = {"protocol_whitelist": "file"}
        with av.open(file, "r", format=container_format, options=options, metadata_errors="replace") as container:
            yield container


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


def sniff_format(head: bytes) -> str | None:
    """FFmpeg's name of the container that begins with ``head``, or None. The file's name has no say."""
    if head[4:8] in _QUICKTIME_ATOMS:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return "mpegts"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def _probe_or_error(path: Path) -> ClipFacts | MediaError:
    try:
        return probe_clip(path)
    except MediaError as error:
        return error


def _open_regular_file(path: Path) -> BinaryIO:
    """Opening a FIFO would wait for ever, and a device is no clip: look first."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise MediaError("unreadable", "not a regular file")
        return path.open("rb")
    except OSError as error:
        raise MediaError("unreadable", error.strerror or str(error)) from error


def _probe_container(path: Path, container: InputContainer) -> ClipFacts:
    stream = video_stream(container)
    coded = stream.codec_context
    if coded.width * coded.height > MAX_PIXELS:
        raise MediaError("too-large", f"{coded.width}x{coded.height} pixels; at most {MAX_PIXELS} are opened")
    coded.thread_count = 1
    picture, ticks = _read_packets(container, stream)
    if picture is None or not ticks:
        raise MediaError("damaged", "not one frame could be decoded")
    tick = float(stream.time_base or Fraction(1, 1000))
    times = [value * tick for value in ticks]
    if times[-1] - times[0] > MAX_SECONDS:
        raise MediaError("too-large", f"its timestamps span {(times[-1] - times[0]) / 3600:.0f} hours")
    rate = _declared_rate(stream)
    frame_s, variable = _spacing(times, tick, rate)
    last_s = min(frame_s, 1 / rate, median(_gaps(times) or [frame_s]))  # nobody tells how long the last one is shown
    width, height = _displayed_size(picture, stream.sample_aspect_ratio)
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
    )


def _read_packets(container: InputContainer, stream: VideoStream) -> tuple[VideoFrame | None, list[int]]:
    """The first frame, and the sorted timestamps of all frames that a player shows. Decodes no more than needed."""
    picture: VideoFrame | None = None
    ticks: set[int] = set()
    for packet in container.demux(stream):
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


def _displayed_size(picture: VideoFrame, pixel_shape: Fraction | None) -> tuple[int, int]:
    shape = float(pixel_shape) if pixel_shape and 0.1 < pixel_shape < 10 else 1.0
    width, height = max(1, round(picture.width * shape)), picture.height
    return (height, width) if picture.rotation % 180 == 90 else (width, height)
