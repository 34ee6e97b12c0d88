"""A file of what was found out about other files, written whole: a line with a digest and a head that tells what it is
of, then one JSON object. Whatever is not exactly that, with the same head, holds nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ltxtrain.files import write_atomically


def read_memo(path: Path, head: str) -> dict[str, Any]:
    try:
        first, _, rest = path.read_bytes().partition(b"\n")
        entries = json.loads(rest) if first + b"\n" == _first_line(head, rest) else None
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def write_memo(path: Path, head: str, entries: dict[str, Any]) -> None:
    """Raises ``OSError``."""
    rest = json.dumps(entries, separators=(",", ":")).encode()
    write_atomically(path, _first_line(head, rest) + rest)


def _first_line(head: str, rest: bytes) -> bytes:
    return f"{hashlib.sha256(head.encode() + rest).hexdigest()} {head}\n".encode()
