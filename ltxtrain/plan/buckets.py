"""From a clip's shape to the size it is trained at, and where that size is cut out.

The rules are the documented ones (aspect ratio rounded, edges rounded to the alignment, smallest covering resize, then
a crop). Alignment 64 reproduces the documented sizes exactly, the square that snaps to a table included; alignment 32,
what the VAE needs, stays nearer to the resolution that was asked for, and squares do not snap.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

# Megapixels -> edge of the square. Near (0.05) to one of these keys a square takes this edge: documented behaviour.
LEGACY_SQUARES = {0.25: 512, 0.5: 768, 1.0: 1024, 2.0: 1536, 4.0: 2048}
LEGACY_TOLERANCE = 0.05

Size = tuple[int, int]


@dataclass(frozen=True)
class SizeRule:
    """``resolution`` is an edge in pixels for ``pixel`` and ``pixel_area``, megapixels for ``area``.

    ``square`` forces all clips into the square bucket (``crop`` with ``crop_aspect`` square). ``forced`` are the sizes
    of a user's size map, by the ratio of the size that is worked out here, rounded.
    """

    resolution: float
    resolution_type: str = "pixel_area"
    alignment: int = 32
    rounding: int = 2
    square: bool = False
    forced: Mapping[float, Size] = field(default_factory=dict)

    @property
    def megapixels(self) -> float:
        return self.resolution**2 / 1e6 if self.resolution_type == "pixel_area" else self.resolution


def target_size(width: int, height: int, rule: SizeRule) -> Size:
    """Width and height of the bucket for a clip of ``width`` x ``height`` displayed pixels."""
    return target_of_ratio(width / height, rule)


def target_of_ratio(ratio: float, rule: SizeRule) -> Size:
    """Width and height of the bucket for pictures of this ratio of width to height."""
    size = computed_size(ratio, rule)
    return rule.forced.get(ratio_of(size, rule.rounding), size)


def computed_size(ratio: float, rule: SizeRule) -> Size:
    """The bucket's size by the rules alone, whatever a size map says."""
    if rule.resolution_type not in ("pixel", "pixel_area", "area"):
        raise ValueError(f"resolution_type {rule.resolution_type!r}: want pixel, pixel_area or area")
    if rule.square:
        edge = _square_edge(rule)
        return edge, edge
    aspect = round(ratio, rule.rounding) or 10**-rule.rounding
    if rule.resolution_type == "pixel":
        return _shorter_edge_target(aspect, rule)
    edge = _edge(rule)
    target = _align(edge * math.sqrt(aspect), rule.alignment), _align(edge / math.sqrt(aspect), rule.alignment)
    if ratio_of(target, rule.rounding) == 1.0:
        edge = _square_edge(rule)
        return edge, edge
    return target


def ratio_of(size: Size, rounding: int) -> float:
    return round(size[0] / size[1], rounding)


def covering_size(width: int, height: int, target: Size) -> Size:
    """The smallest size of the clip's own shape that covers ``target``."""
    if width * target[1] >= height * target[0]:
        return max(target[0], width * target[1] // height), target[1]
    return target[0], max(target[1], height * target[0] // width)


def reduced_size(width: int, height: int, most: float, to: float, resolution_type: str) -> Size:
    """The clip's size, or, where that is above ``most``, the size of its own shape that ``to`` names.

    Both are in the unit of ``resolution``: ``pixel`` is about the shorter edge, the area types about the area.
    """
    if resolution_type == "pixel":
        if min(width, height) <= most:
            return width, height
        scale = to / min(width, height)
    else:
        if width * height <= _pixels(most, resolution_type):
            return width, height
        scale = math.sqrt(_pixels(to, resolution_type) / (width * height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def crop_offset(resize: Size, target: Size, style: str, key: str) -> Size:
    """Left and top of the crop. ``random`` is a pure function of ``key``, so it is the same in every run."""
    spare = _spare(resize, target)
    if style == "corner":
        return 0, 0
    if style in ("center", "centre"):
        return spare[0] // 2, spare[1] // 2
    if style == "random":
        digest = hashlib.sha256(key.encode()).digest()
        draws = int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")
        return draws[0] % (spare[0] + 1), draws[1] % (spare[1] + 1)
    raise ValueError(f"crop_style {style!r}: want center, corner or random")


def crop_around(resize: Size, target: Size, centre: tuple[float, float]) -> Size:
    """Left and top of the crop that has ``centre`` (parts of the picture's width and height) nearest to its middle."""
    spare = _spare(resize, target)
    left, top = (round(part * full - cut / 2) for part, full, cut in zip(centre, resize, target, strict=True))
    return min(max(left, 0), spare[0]), min(max(top, 0), spare[1])


def is_large_enough(width: int, height: int, minimum: float, resolution_type: str) -> bool:
    """``pixel`` compares both edges; the area types compare the area with ``minimum`` (an edge, or megapixels)."""
    if resolution_type == "pixel":
        return min(width, height) >= minimum
    return width * height >= _pixels(minimum, resolution_type)


def _spare(resize: Size, target: Size) -> Size:
    spare = resize[0] - target[0], resize[1] - target[1]
    if min(spare) < 0:
        raise ValueError(f"{resize} does not cover {target}")
    return spare


def _pixels(value: float, resolution_type: str) -> float:
    return value**2 if resolution_type == "pixel_area" else value * 1e6


def _shorter_edge_target(aspect: float, rule: SizeRule) -> Size:
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
