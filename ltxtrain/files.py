"""Writing a file so that a kill or a power loss leaves either the old content or the new, never a part."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from ltxtrain.errors import MachineError
from ltxtrain.units import format_bytes

# What the system says of a full disk and of a quota that is used up.
FULL = (errno.ENOSPC, errno.EDQUOT)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write ``data`` to ``path``. The mode follows the umask."""
    with replaced(path) as stream:
        stream.write(data.encode() if isinstance(data, str) else data)


@contextmanager
def replaced(path: Path) -> Iterator[BinaryIO]:
    """A temporary sibling to write; after that fsync, rename, fsync of the folder. An error leaves the old content.

    A temporary file that a kill left behind starts with ``.`` and ends with ``.tmp``; nothing ever reads it.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # gone already, unless something went wrong
    sync_folder(path.parent)


def try_writing(folder: Path) -> None:
    """Make ``folder``, write a file there and remove it again. Raises ``OSError`` when that cannot be done."""
    make_folder(folder)
    write_atomically(folder / ".writable", b"")
    (folder / ".writable").unlink(missing_ok=True)


def system_error(error: Exception) -> OSError | None:
    """The system's own error in ``error``: libraries in Rust tell it in words, ``(os error 28)``."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


@contextmanager
def room_at(folder: Path, need_bytes: int, what: str) -> Iterator[None]:
    """Inside, a full disk raises ``MachineError`` that names ``folder``, and the room that ``what`` needs."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise MachineError(
            f"there is no room left at {folder} ({error.strerror}): {what} needs about {format_bytes(need_bytes)}",
            hint="make room there, or name a folder on another disk",
        ) from error


def make_folder(folder: Path) -> None:
    """``mkdir -p`` that survives a power loss: each new name is synced in the folder above it."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in ``folder`` survive a power loss, where the file system can promise that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and shared file systems know no sync of folders; there, nothing more can be done.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def with_sorted_metadata(content: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library writes it in a new random order each time.

    Format: 8 bytes with the header's length, little-endian; a JSON header padded with spaces to 8 bytes; the tensors.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(dict(sorted(header.items(), key=_metadata_first)), separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def _metadata_first(item: tuple[str, object]) -> bool:
    return item[0] != "__metadata__"
