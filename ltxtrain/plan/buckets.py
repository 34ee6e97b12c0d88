"""From a clip's size to the size it is trained at: target, intermediate size and crop.

The rules are the documented ones (aspect ratio rounded, edges rounded to the alignment, smallest covering resize, then
a crop). Alignment 64 reproduces the documented sizes exactly, the square that snaps to a table included; alignment 32,
what the VAE needs, stays nearer to the resolution that was asked for, and squares do not snap.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

# Megapixels -> edge of the square. Near (0.05) to one of these keys a square takes this edge: documented behaviour.
LEGACY_SQUARES = {0.25: 512, 0.5: 768, 1.0: 1024, 2.0: 1536, 4.0: 2048}
LEGACY_TOLERANCE = 0.05


@dataclass(frozen=True)
class SizeRule:
    """``resolution`` is an edge in pixels for ``pixel`` and ``pixel_area``, megapixels for ``area``.

    ``square`` forces all clips into the square bucket (``crop`` with ``crop_aspect`` square).
    """

    resolution: float
    resolution_type: str = "pixel_area"
    alignment: int = 32
    rounding: int = 2
    square: bool = False

    @property
    def megapixels(self) -> float:
        return self.resolution**2 / 1e6 if self.resolution_type == "pixel_area" else self.resolution


def target_size(width: int, height: int, rule: SizeRule) -> tuple[int, int]:
    """Width and height of the bucket for a clip of ``width`` x ``height`` displayed pixels."""
    if rule.resolution_type not in ("pixel", "pixel_area", "area"):
        raise ValueError(f"resolution_type {rule.resolution_type!r}: want pixel, pixel_area or area")
    if rule.square:
        edge = _square_edge(rule)
        return edge, edge
    aspect = round(width / height, rule.rounding) or 10**-rule.rounding
    if rule.resolution_type == "pixel":
        return _shorter_edge_target(aspect, rule)
    edge = _edge(rule)
    target = _align(edge * math.sqrt(aspect), rule.alignment), _align(edge / math.sqrt(aspect), rule.alignment)
    if round(target[0] / target[1], rule.rounding) == 1.0:
        edge = _square_edge(rule)
        return edge, edge
    return target


def covering_size(width: int, height: int, target: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of the clip's own shape that covers ``target``."""
    if width * target[1] >= height * target[0]:
        return max(target[0], width * target[1] // height), target[1]
    return target[0], max(target[1], height * target[0] // width)


def crop_offset(resize: tuple[int, int], target: tuple[int, int], style: str, key: str) -> tuple[int, int]:
    """Left and top of the crop. ``random`` is a pure function of ``key``, so it is the same in every run."""
    spare = resize[0] - target[0], resize[1] - target[1]
    if min(spare) < 0:
        raise ValueError(f"{resize} does not cover {target}")
    if style == "corner":
        return 0, 0
    if style in ("center", "centre"):
        return spare[0] // 2, spare[1] // 2
    if style == "random":
        digest = hashlib.sha256(key.encode()).digest()
        draws = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
        return draws[0] % (spare[0] + 1), draws[1] % (spare[1] + 1)
    raise ValueError(f"crop_style {style!r}: want center, corner or random")


def is_large_enough(width: int, height: int, minimum: float, resolution_type: str) -> bool:
    """``pixel`` compares both edges; the area types compare the area with ``minimum`` (an edge, or megapixels)."""
    if resolution_type == "pixel":
        return min(width, height) >= minimum
    return width * height >= (minimum**2 if resolution_type == "pixel_area" else minimum * 1e6)


def _shorter_edge_target(aspect: float, rule: SizeRule) -> tuple[int, int]:
    edge = _align(rule.resolution, rule.alignment)
    if aspect >= 1:
        return _align(int(rule.resolution * aspect), rule.alignment), edge
    return edge, _align(int(rule.resolution / aspect), rule.alignment)


def _edge(rule: SizeRule) -> int:
    return _align(math.isqrt(round(rule.megapixels * 1e6)), rule.alignment)


def _square_edge(rule: SizeRule) -> int:
    if rule.resolution_type == "pixel":
        return _align(rule.resolution, rule.alignment)
    if rule.alignment == 64:
        for megapixels, edge in LEGACY_SQUARES.items():
            if abs(rule.megapixels - megapixels) <= LEGACY_TOLERANCE:
                return edge
    return _edge(rule)


def _align(length: float, alignment: int) -> int:
    """Python's ``round`` takes halves to the even neighbour, as the documented sizes do."""
    return max(alignment, alignment * round(length / alignment))
