"""Opening media: the file that was found and nothing else, in the format that its first bytes tell.

The decoder reads from an open file object, so that no text file, playlist or URL hidden behind ``.mp4`` is ever
followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ltxtrain.facts.media_facts import MediaError, told

if TYPE_CHECKING:
    from av.container import InputContainer

ANYWHERE = Path("/")
# No more than this is read in search of the next packet.
BYTES_WITHOUT_PACKET = 64 << 20
_QUICKTIME_ATOMS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x1a\x45\xdf\xa3", "matroska"),
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf"),
    (b"OggS", "ogg"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpegvideo"),
)


@contextmanager
def open_clip(path: Path, within: Path | None = ANYWHERE) -> Iterator[InputContainer]:
    """Open a video for reading, and nothing but the video: from an open file, in the format that its bytes tell.

    ``within`` is as for ``open_regular_file``. Raises ``MediaError`` for a file that is no video, and whatever PyAV
    raises for a damaged one.
    """
    with open_regular_file(path, within) as file, opened_clip(file) as container:
        yield container


@contextmanager
def opened_clip(file: BinaryIO | Patience) -> Iterator[InputContainer]:
    """The same of an open file."""
    import av

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


class Patience:
    """A file that ends where it was read for long without a packet coming out of it. A decoder would read it on for
    hours."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._read = 0
        self._ended = False
        self.most = BYTES_WITHOUT_PACKET
        self.seek, self.tell = file.seek, file.tell

    def read(self, count: int) -> bytes:
        self._ended |= self._read > self.most
        if self._ended:
            return b""
        content = self._file.read(count)
        self._read += len(content)
        return content

    def packet(self) -> None:
        """One has come. Raises ``MediaError`` when the file was made to end before."""
        self.check()
        self._read = 0

    def check(self) -> None:
        if self._ended:
            raise MediaError("damaged", f"{self._read >> 20} MiB of it hold not one picture or sound")


def sniff_format(head: bytes) -> str | None:
    """FFmpeg's name of the container that begins with ``head``, or None. The file's name has no say."""
    if head[4:8] in _QUICKTIME_ATOMS:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head[:1] == b"\x47" and head[188:189] == b"\x47" and head[376:377] == b"\x47":
        return "mpegts"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def open_regular_file(path: Path, within: Path | None = None) -> BinaryIO:
    """The file at ``path`` itself. Raises ``MediaError``.

    Between the look at a folder and this moment somebody may have put another thing in a file's place: a FIFO would
    make us wait for ever, a link would lead us elsewhere. A link on the way is followed only to what lies ``within``.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (OSError, ValueError) as error:
        raise MediaError("unreadable", told(error)) from error
    try:
        opened = os.fstat(file.fileno())
        if not stat.S_ISREG(opened.st_mode):
            raise MediaError("unreadable", "not a regular file")
        real = path.resolve()
        if real != path.absolute() and (within is None or not real.is_relative_to(within.resolve())):
            raise MediaError("outside-folder", f"by now a link on its path leads to {real}")
        there = real.lstat()
        if (there.st_dev, there.st_ino) != (opened.st_dev, opened.st_ino):
            raise MediaError("unreadable", "another file was put in its place")
    except OSError as error:
        file.close()
        raise MediaError("unreadable", told(error)) from error
    except MediaError:
        file.close()
        raise
    return file
