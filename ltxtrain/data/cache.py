"""The cache of latents and prompt embeddings: one safetensors file an entry, named by what it was made from.

An entry's key is a digest of everything that changes its content. The file carries that key and a checksum of all its
bytes; whatever does not fit is a miss, never a crash and never silent use. Several processes may fill one cache:
each writes its own temporary file, and the last rename wins. Its bytes are the same where both encode the same batches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from ltxtrain.data.store import blank_metadata, sealed, verified
from ltxtrain.errors import DataError
from ltxtrain.files import room_at, write_atomically


def write_entry(
    path: Path, key: str, tensors: Mapping[str, torch.Tensor], *, made_of: str = "", compress: bool = False
) -> int:
    """Commit an entry and return its size in bytes. Raises ``DataError``, naming ``made_of``, if not finite, and
    ``MachineError`` when the disk is full."""
    refuse_non_finite(tensors, made_of or path.name)
    content = packed(key, tensors, compress=compress)
    with room_at(path.parent.parent.parent, len(content), f"each entry of the size of {made_of or path.name}"):
        write_atomically(path, content)
    return len(content)


def packed(key: str, tensors: Mapping[str, torch.Tensor], *, compress: bool = False) -> bytes:
    return sealed(save(dict(tensors), blank_metadata(key)), compress=compress)


def refuse_non_finite(tensors: Mapping[str, torch.Tensor], made_of: str) -> None:
    """Raise ``DataError`` that names ``made_of`` when a value is NaN or infinite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(
                f"{made_of}: its {name} came out with NaN or infinity, so they are not cached",
                hint="look at this clip or caption; if all are so, try --vae-dtype fp32 or --mixed-precision no",
            )


def read_entry(path: Path, key: str) -> dict[str, torch.Tensor] | None:
    """The entry's tensors, or None when it is absent, damaged, or another one."""
    content = verified(path, key)
    if content is None:
        return None
    try:
        tensors: dict[str, torch.Tensor] = load(content)
    except (SafetensorError, ValueError, KeyError):
        return None
    return tensors
