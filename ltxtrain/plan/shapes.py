"""Which bucket's size one clip gets, and to what size it is scaled before that is cut out of it."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from ltxtrain.config import Dataset
from ltxtrain.facts.reasons import Reason
from ltxtrain.plan.buckets import Size, SizeRule, covering_size, is_large_enough, reduced_size, target_of_ratio


@dataclass(frozen=True)
class Shape:
    """The clip is scaled to ``resize``, then ``target`` is cut out."""

    target: Size
    resize: Size


def fit_shape(dataset: Dataset, size: Size, rule: SizeRule, key: str) -> Shape | tuple[Reason, str]:
    """The shape of a clip of ``size`` displayed pixels, or the reason against it.

    ``crop`` false and ``crop_aspect`` preserve keep the clip's own ratio: all that is cut is what the bucket's rounded
    sides leave over. ``square``, ``closest`` and ``random`` cut another ratio out of it; ``random`` draws by ``key``
    alone, so that the same clip always gets the same one.

    Clips above ``maximum_image_size`` are first reduced to ``target_downsample_size`` and then taken as clips of that
    size, with ``crop`` or without: they are scaled to it (or to what covers the bucket's size, where that is more),
    not to the smallest size that covers. So with a downsample size above ``resolution`` what is cut is a part of the
    picture, at ``crop_style``'s place; without the reduction it would be all of it.
    """
    width, height = size
    unfit = _unfit(dataset, size)
    if unfit is not None:
        return unfit
    base = input_size(dataset, size)
    target = _target(dataset, base, width / height, rule, key)
    if target is None:
        limit = 1 + (dataset.max_upscale_threshold or 0)
        return "too-small", (
            f"{_text(base)}; each of crop_aspect_buckets would enlarge it more than "
            f"{limit:g} times (max_upscale_threshold {dataset.max_upscale_threshold:g})"
        )
    if base != size and base[0] >= target[0] and base[1] >= target[1]:
        return Shape(target, base)
    return Shape(target, covering_size(width, height, target))


def input_size(dataset: Dataset, size: Size) -> Size:
    """The size that a clip is taken to have: its own, or what ``maximum_image_size`` reduces it to."""
    most, to = dataset.maximum_image_size, dataset.target_downsample_size
    return size if most is None or to is None else reduced_size(*size, most, to, dataset.resolution_type)


def available_sizes(dataset: Dataset, base: Size, rule: SizeRule) -> list[tuple[float, float, Size]]:
    """``crop_aspect_buckets`` as (ratio, weight, size): those that ``max_upscale_threshold`` leaves to the clip."""
    sizes = [(ratio, weight, target_of_ratio(ratio, rule)) for ratio, weight in dataset.aspects]
    threshold = dataset.max_upscale_threshold
    if threshold is None:
        return sizes
    return [entry for entry in sizes if upscale(base, entry[2]) <= 1 + threshold]


def upscale(base: Size, target: Size) -> float:
    """How many times ``base`` is enlarged to cover ``target``; below 1 it is made smaller."""
    return max(target[0] / base[0], target[1] / base[1])


def _target(dataset: Dataset, base: Size, ratio: float, rule: SizeRule, key: str) -> Size | None:
    if not dataset.crop or dataset.crop_aspect in ("square", "preserve"):
        return target_of_ratio(ratio, rule)
    if dataset.crop_aspect not in ("closest", "random"):
        raise ValueError(f"crop_aspect {dataset.crop_aspect!r}: want square, preserve, closest or random")
    available = available_sizes(dataset, base, rule)
    if not available:
        return None
    if dataset.crop_aspect == "closest":
        return min(available, key=lambda entry: (abs(entry[0] - ratio), entry[0]))[2]
    return _drawn(available, key)


def _drawn(available: list[tuple[float, float, Size]], key: str) -> Size:
    """One of the sizes, by weight: ``key`` decides, and nothing else."""
    part = int.from_bytes(sha256(f"{key}:aspect".encode()).digest()[:8], "big") / 2**64
    left = part * sum(weight for _, weight, _ in available)
    for _, weight, size in available:
        left -= weight
        if left < 0:
            return size
    return available[-1][2]


def _unfit(dataset: Dataset, size: Size) -> tuple[Reason, str] | None:
    width, height = size
    aspect = width / height
    if not is_large_enough(width, height, dataset.minimum_image_size, dataset.resolution_type):
        return "too-small", f"{_text(size)}; minimum_image_size is {dataset.minimum_image_size:g} " + (
            f"({dataset.resolution_type})"
        )
    least, most = dataset.minimum_aspect_ratio, dataset.maximum_aspect_ratio
    if (least is not None and aspect < least) or (most is not None and aspect > most):
        allowed = f"{'any' if least is None else f'{least:g}'} to {'any' if most is None else f'{most:g}'}"
        return "wrong-shape", f"{_text(size)}, aspect ratio {aspect:.2f}; allowed is {allowed}"
    return None


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
