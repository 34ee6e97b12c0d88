"""The bytes of a cache entry: a safetensors file that carries its own key and a checksum of all its bytes.

This is the one place that knows the format. It reads no tensors, so whoever looks after a cache needs no torch.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.facts.digests import sha256_of
from ltxtrain.files import with_sorted_metadata

LATENTS, PROMPTS = "latents", "prompts"
KINDS = (LATENTS, PROMPTS)
SUFFIX = ".safetensors"
GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31  # what zlib calls a gzip stream
GZIP_SIZE_BYTES = 4
KEY, CHECKSUM = "ltxtrain_key", "ltxtrain_sha256"
NO_CHECKSUM = "0" * 64
HEADER_LENGTH_BYTES = 8
# Our headers name three tensors at most; this holds them many times over.
GLANCE_BYTES = 4096
# Nothing is known of a damaged file's header before its checksum is: it may be any JSON.
DAMAGED = (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError)


@dataclass(frozen=True)
class Entry:
    """Where a cache entry lies and which key it must carry."""

    path: Path
    key: str


def entry_key(kind: str, made_from: Mapping[str, object]) -> str:
    """The key of an entry, from plain values that describe everything its content depends on."""
    return sha256_of(kind, dict(made_from))


def entry_path(cache_dir: Path, kind: str, key: str) -> Path:
    return cache_dir / kind / key[:2] / f"{key}{SUFFIX}"


def entry_at(cache_dir: Path, kind: str, key: str) -> Entry:
    return Entry(entry_path(cache_dir, kind, key), key)


def blank_metadata(key: str) -> dict[str, str]:
    """The metadata with which tensors are turned into bytes before ``sealed``."""
    return {KEY: key, CHECKSUM: NO_CHECKSUM}


def sealed(blank: bytes, *, compress: bool = False) -> bytes:
    """An entry's bytes, from a safetensors file with ``blank_metadata``. The same input gives the same bytes."""
    header, data = _parts(with_sorted_metadata(blank))
    content = _frame(header.replace(NO_CHECKSUM.encode(), _checksum(header, data).encode(), 1), data)
    return gzip.compress(content, compresslevel=1, mtime=0) if compress else content


def verified(path: Path, key: str) -> bytes | None:
    """The safetensors file of an entry, unpacked; None when it is absent, damaged, or another one's."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
        header, data = _parts(content)
        metadata = json.loads(header)["__metadata__"]
        checksum = str(metadata[CHECKSUM])
        blank = header.replace(checksum.encode(), NO_CHECKSUM.encode(), 1)
        return content if metadata[KEY] == key and checksum == _checksum(blank, data) else None
    except DAMAGED:
        return None


def seems_whole(entry: Entry) -> bool:
    """A glance that costs no reading of the data: the file is there, has its key, and the size its header tells."""
    try:
        with entry.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(GLANCE_BYTES)
            packed = start.startswith(GZIP_MAGIC)
            if packed:
                start = zlib.decompressobj(GZIP_WINDOW).decompress(start, GLANCE_BYTES)
                file.seek(-GZIP_SIZE_BYTES, os.SEEK_END)
                size = int.from_bytes(file.read(GZIP_SIZE_BYTES), "little")
        header, _ = _parts(start)
        described = json.loads(header)
        metadata = described.pop("__metadata__")
        told = HEADER_LENGTH_BYTES + len(header) + max(tensor["data_offsets"][1] for tensor in described.values())
        return bool(metadata[KEY] == entry.key and size == (told % 2**32 if packed else told))
    except DAMAGED:
        return False


def _parts(content: bytes) -> tuple[bytes, memoryview]:
    """Header and data of a safetensors file. Raises ``ValueError`` when it does not even hold its header."""
    length = int.from_bytes(content[:HEADER_LENGTH_BYTES], "little")
    end = HEADER_LENGTH_BYTES + length
    if len(content) < end:
        raise ValueError("shorter than its header")
    return content[HEADER_LENGTH_BYTES:end], memoryview(content)[end:]


def _frame(header: bytes, data: memoryview) -> bytes:
    return b"".join((len(header).to_bytes(HEADER_LENGTH_BYTES, "little"), header, data))


def _checksum(blank_header: bytes, data: memoryview) -> str:
    """Over every byte of the file: the header's length, the header with zeros in the checksum's place, the data."""
    digest = hashlib.sha256(len(blank_header).to_bytes(HEADER_LENGTH_BYTES, "little"))
    digest.update(blank_header)
    digest.update(data)
    return digest.hexdigest()
