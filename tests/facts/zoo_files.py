"""Media files of every strange kind, made on the spot by the encoders that ship with PyAV and Pillow, or by hand."""

from __future__ import annotations

import os
import socket
import stat
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

Make = Callable[[Path], object]  # writes what is to be at this path
SIZE = (64, 48)
TICK = Fraction(1, 1000)


def encoded(
    path: Path,
    codec: str = "mpeg4",
    frames: int | Sequence[int] = 25,
    fps: float = 25,
    form: str = "mp4",
    **settings: object,
) -> None:
    """A clip of noise. ``frames`` is how many, or the milliseconds of each. ``form`` is the container's; the name has
    no say. ``settings``: size, pixels, options, rotation, song (a cover picture in front)."""
    width, height = settings.get("size", SIZE)  # type: ignore[misc]
    times = None if isinstance(frames, int) else frames
    noise = np.random.default_rng(5)
    with av.open(str(path), "w", format=form, container_options=settings.get("muxing", {})) as container:  # type: ignore[arg-type]
        cover = add_cover(container) if settings.get("song") else None
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = width, height
        stream.pix_fmt = str(settings.get("pixels", "yuv420p"))
        stream.options = dict(settings.get("options", {}))  # type: ignore[call-overload]
        if times is not None:
            stream.codec_context.time_base = stream.time_base = TICK
        if settings.get("rotation"):
            stream.set_display_rotation(settings["rotation"])
        mux_cover(container, cover)
        for index in range(frames if isinstance(frames, int) else len(frames)):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (height, width, 3), np.uint8), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[index], TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def clip(**settings: object) -> Make:
    return lambda path: encoded(path, **settings)  # type: ignore[arg-type]


def cut(part: float, **settings: object) -> Make:
    """Only the first ``part`` of a clip's bytes."""

    def make(path: Path) -> None:
        encoded(path, **settings)  # type: ignore[arg-type]
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])

    return make


def changed(change: Callable[[bytes], bytes], **settings: object) -> Make:
    """A clip whose bytes were changed by hand."""

    def make(path: Path) -> None:
        encoded(path, **settings)  # type: ignore[arg-type]
        path.write_bytes(change(path.read_bytes()))

    return make


def content(data: bytes) -> Make:
    return lambda path: path.write_bytes(data)


def add_cover(container: av.container.OutputContainer) -> av.VideoStream:
    cover = container.add_stream("mjpeg")
    cover.width, cover.height, cover.pix_fmt, cover.disposition = 32, 32, "yuvj420p", Disposition.attached_pic
    return cover


def mux_cover(container: av.container.OutputContainer, cover: av.VideoStream | None) -> None:
    """When all streams are there."""
    if cover is not None:
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(cover.encode(None))


def sound(form: str = "mp4", cover: bool = False) -> Make:
    def make(path: Path) -> None:
        with av.open(str(path), "w", format=form) as container:
            picture = add_cover(container) if cover else None
            stream = container.add_stream("aac" if form != "wav" else "pcm_s16le", rate=44100)
            mux_cover(container, picture)
            silence = np.zeros((1, 4096), np.float32)
            frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
            frame.rate = 44100
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return make


def sparse(size: int, clip_in_front: bool) -> Make:
    """More bytes than 32 bits count, none of them on the disk."""

    def make(path: Path) -> None:
        if clip_in_front:
            encoded(path, muxing={"movflags": "faststart"})
        else:
            path.touch()
        os.truncate(path, size)

    return make


def timed(times: Sequence[int]) -> Make:
    """Packets with these timestamps, which no encoder gives."""

    def make(path: Path) -> None:
        encoded(path, frames=len(times), form="matroska")
        with av.open(str(path)) as source:
            packets = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        with av.open(str(path), "w", format="matroska") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            container.start_encoding()
            for data, time in zip(packets, times, strict=True):
                packet = av.Packet(data)
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, time, time, TICK
                container.mux(packet)

    return make


def shift_edit_list(data: bytes) -> bytes:
    """An edit list (ISO/IEC 14496-12, 8.6.6) that begins the film ten frames later than its media."""
    at = data.index(b"elst") + 4
    version, count = data[at], int.from_bytes(data[at + 4 : at + 8], "big")
    assert (version, count) == (0, 1)
    scale = int.from_bytes(data[(mdhd := data.index(b"mdhd")) + 16 : mdhd + 20], "big")
    media_time = int.from_bytes(data[at + 12 : at + 16], "big") + scale * 10 // 25
    return data[: at + 12] + media_time.to_bytes(4, "big") + data[at + 16 :]


def giant_header(edge: int) -> Callable[[bytes], bytes]:
    """``edge`` pixels in each direction, in AVI's BITMAPINFOHEADER."""

    def change(data: bytes) -> bytes:
        at = data.index(b"strf") + 8
        return data[: at + 4] + struct.pack("<ii", edge, edge) + data[at + 12 :]

    return change


def giant_pictures(edge: int) -> Callable[[bytes], bytes]:
    """The same, and in the headers of all JPEG pictures."""
    start = b"\xff\xc0\x00\x11\x08"  # of a frame's header, up to height and width

    def change(data: bytes) -> bytes:
        first, *parts = giant_header(edge)(data).split(start)
        return start.join([first, *(struct.pack(">HH", edge, edge) + part[4:] for part in parts)])

    return change


def unknown_codec(data: bytes) -> bytes:
    name = next(name for name in (b"V_MPEG4/ISO/ASP", b"V_MPEG4/ISO/SP") if name in data)
    return data.replace(name, b"V_NOBODY/KNOWS/ASP"[: len(name)])


def picture(form: str, mode: str = "RGB", size: tuple[int, int] = SIZE, **saving: object) -> Make:
    def make(path: Path) -> None:
        Image.new(mode, size, 120 if mode in ("L", "P", "I;16", "F") else None).save(path, form, **saving)  # type: ignore[arg-type]

    return make


def turned_picture(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", SIZE).save(path, "JPEG", exif=exif)


def animated(path: Path) -> None:
    frames = [Image.new("RGB", SIZE, (shade, 0, 0)) for shade in (10, 200)]
    frames[0].save(path, "WEBP", save_all=True, append_images=frames[1:])


def bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises gigabytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(100_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def half_a_picture(path: Path) -> None:
    noise = np.random.default_rng(3).integers(0, 255, (200, 200, 3), np.uint8)
    buffer = BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(here)


def device(path: Path) -> None:
    """The kernel's zero: readable for ever."""
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def link_to(target: str) -> Make:
    return lambda path: path.symlink_to(target)
