"""The cache of latents and prompt embeddings: one safetensors file an entry, named by what it was made from.

An entry's key is a digest of everything that changes its content. The file carries that key and a checksum of all its
bytes; whatever does not fit is a miss, never a crash and never silent use. Several processes may fill one cache:
each writes its own temporary file, and the last rename wins with the same bytes.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ltxtrain.errors import DataError
from ltxtrain.facts.digests import sha256_of
from ltxtrain.files import room_at, with_sorted_metadata, write_atomically

GZIP_MAGIC = b"\x1f\x8b"
KEY, CHECKSUM = "ltxtrain_key", "ltxtrain_sha256"
NO_CHECKSUM = "0" * 64
HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Entry:
    """Where a cache entry lies and which key it must carry."""

    path: Path
    key: str


def entry_key(kind: str, made_from: Mapping[str, object]) -> str:
    """The key of an entry, from plain values that describe everything its content depends on."""
    return sha256_of(kind, dict(made_from))


def entry_path(cache_dir: Path, kind: str, key: str) -> Path:
    return cache_dir / kind / key[:2] / f"{key}.safetensors"


def write_entry(
    path: Path, key: str, tensors: Mapping[str, torch.Tensor], *, made_of: str = "", compress: bool = False
) -> int:
    """Commit an entry and return its size in bytes. Raises ``DataError``, naming ``made_of``, if not finite, and
    ``MachineError`` when the disk is full."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{made_of or path.name}: its {name} came out with NaN or infinity, so they are not cached",
                hint="look at this clip or caption; if all are so, try --vae-dtype fp32 or --mixed-precision no",
            )
    blank = with_sorted_metadata(save(dict(tensors), {KEY: key, CHECKSUM: NO_CHECKSUM}))
    header, data = _parts(blank)
    content = _frame(header.replace(NO_CHECKSUM.encode(), _checksum(header, data).encode(), 1), data)
    content = gzip.compress(content, compresslevel=1, mtime=0) if compress else content
    with room_at(path.parent.parent.parent, len(content), f"each entry of the size of {made_of or path.name}"):
        write_atomically(path, content)
    return len(content)


def read_entry(path: Path, key: str) -> dict[str, torch.Tensor] | None:
    """The entry's tensors, or None when it is absent, damaged, or another one."""
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
        header, data = _parts(content)
        metadata = json.loads(header)["__metadata__"]
        checksum = str(metadata[CHECKSUM])
        blank = header.replace(checksum.encode(), NO_CHECKSUM.encode(), 1)
        if metadata[KEY] != key or checksum != _checksum(blank, data):
            return None
        tensors: dict[str, torch.Tensor] = load(content)
        return tensors
    # Nothing is known of a damaged file's header before its checksum is: it may be any JSON.
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None


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
    return hashlib.sha256(_frame(blank_header, data)).hexdigest()


@dataclass
class EntryReader:
    """Reads entries during training and keeps them in memory up to ``budget_bytes``."""

    budget_bytes: int
    _kept: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)

    def read(self, path: Path, key: str) -> dict[str, torch.Tensor]:
        """Raises ``DataError`` when the entry has gone or changed since it was made."""
        if key in self._kept:
            return self._kept[key]
        tensors = read_entry(path, key)
        if tensors is None:
            raise DataError(f"the cache entry {path} is missing or damaged", hint="start again: it will be made anew")
        size = sum(tensor.nbytes for tensor in tensors.values())
        if size <= self.budget_bytes:
            self.budget_bytes -= size
            self._kept[key] = tensors
        return tensors


@dataclass(frozen=True)
class Prepared:
    """What caching hands to training: latents by sample id, prompt embeddings by text, digests of the model's parts."""

    latents: Mapping[str, Entry]
    prompts: Mapping[str, Entry]
    digests: Mapping[str, str]
