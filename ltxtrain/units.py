"""Bytes, durations and foreign texts as people read them."""

from __future__ import annotations

import math
import re

# Signs that break a line in two, steer a terminal, or turn the order of the letters after them around.
UNPRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def counted(count: int, noun: str) -> str:
    """``(1, 'video')`` -> ``'1 video'``, ``(3, 'video')`` -> ``'3 videos'``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_bytes(count: float) -> str:
    """``1536`` -> ``'1.5 KiB'``; whole bytes below one KiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_need(count: float, limit: float) -> str:
    """``format_bytes`` of what is more than ``limit``: with two decimals, rounded up, where one would show no more."""
    text = format_bytes(count)
    if count <= limit or text != format_bytes(limit):
        return text
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= size:
            return f"{math.ceil(count / size * 100) / 100:.2f} {unit}"
    return text


def format_duration(seconds: float) -> str:
    """``0.42`` -> ``'0.4 s'``, ``75`` -> ``'1 min 15 s'``, ``7380`` -> ``'2 h 03 min'``, ``2e5`` -> ``'2 d 7 h'``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def plain(text: str) -> str:
    """One line that every terminal takes, whatever a file system or a server named: ``\\n`` and ``\\xff`` in words."""
    return UNPRINTED.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a name that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(found[0], f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
