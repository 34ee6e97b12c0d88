"""The part of a file that has come so far. It is opened once; everything after that is done by that descriptor, so that
nothing which lies under its name (a link above all) is ever written through."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ltxtrain.errors import DataError
from ltxtrain.files import make_folder
from ltxtrain.prepare.fetch_list import HubFile
from ltxtrain.prepare.fetch_record import right_content
from ltxtrain.prepare.places import inside

PARTS = ".ltxtrain-fetch"  # hidden, so that no command takes parts for clips


def parts_folder(root: Path) -> Path:
    """Raises ``DataError`` where it is a link."""
    folder = root / PARTS
    if folder.is_symlink():
        raise DataError(f"{folder} is a link, and nothing is fetched through one", hint="remove it")
    return folder


def part_path(root: Path, file: HubFile) -> Path:
    """Named by the content too: a part of an older version is never gone on with."""
    digest = hashlib.sha256(f"{file.name}\n{file.sha256 or file.blob}".encode()).hexdigest()
    return root / PARTS / f"{digest[:32]}.part"


def bytes_there(root: Path, file: HubFile) -> int:
    """How much of ``file`` an earlier run left."""
    try:
        status = part_path(root, file).lstat()
    except OSError:
        return 0
    return min(status.st_size, file.bytes) if stat.S_ISREG(status.st_mode) else 0


class Part:
    """What has come of ``file``. ``stream`` reads and writes at its end, as in mode a+b."""

    def __init__(self, path: Path, file: HubFile, stream: BinaryIO) -> None:
        self._path, self._file, self.stream = path, file, stream

    @property
    def size(self) -> int:
        return os.fstat(self.stream.fileno()).st_size

    def clear(self) -> None:
        self.stream.flush()
        self.stream.truncate(0)

    def is_right(self) -> bool:
        self.stream.seek(0)
        return self.size == self._file.bytes and right_content(self.stream, self._file)

    def put(self, root: Path) -> None:
        """Give it the file's own name. Raises ``DataError`` where a link lies on the way, or it is another file now."""
        target = inside(root, self._file.name)
        make_folder(target.parent)
        inside(root, self._file.name)
        if not os.path.samestat(self._path.lstat(), os.fstat(self.stream.fileno())):
            raise _taken(self._path)
        self._path.replace(target)


@contextmanager
def open_part(root: Path, file: HubFile) -> Iterator[Part]:
    """Raises ``DataError`` for anything but a plain file of one name."""
    path = part_path(root, file)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _taken(path) from None
        raise
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(descriptor)
        raise _taken(path)
    with os.fdopen(descriptor, "a+b") as stream:
        yield Part(path, file, stream)


def _taken(path: Path) -> DataError:
    return DataError(f"{path} is a link or no plain file, and nothing is written through it", hint="remove it")
