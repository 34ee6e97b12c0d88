"""Clips that look alike, out of a hundred thousand, without comparing each with each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ltxtrain.prepare.looks import Fingerprint

BAND_BITS = 16
BANDS = 3 * 64 // BAND_BITS
# Two fingerprints that differ in fewer bits than there are bands agree in one band at least: none is overlooked.
MOST_BITS = BANDS - 1
# Of clips that agree in a band, each is compared with so many neighbours in the order of whole fingerprints.
NEIGHBOURS = 256
# Grey levels, of 16 x 16 cells: two takes of one person before one wall agree in their fingerprints, but not in these.
MOST_CELL = 20
MOST_MEAN = 3.0
AT_ONCE = 16_384  # pairs whose pictures are compared at once

Indices = NDArray[np.intp]


def alike(prints: Sequence[Fingerprint]) -> list[list[int]]:
    """Groups of two or more clips that look the same in all three frames; each group is sorted."""
    if len(prints) < 2:
        return []
    bits_NF = np.stack([entry.bits for entry in prints])
    coarse_NFHW = np.stack([entry.coarse_FHW for entry in prints])
    group_N = np.arange(len(prints))
    for left, right in _candidates(bits_NF):
        apart = group_N[left] != group_N[right]  # what is one group already need not be compared again
        left, right = left[apart], right[apart]
        near = np.bitwise_count(bits_NF[left] ^ bits_NF[right]).sum(axis=1) <= MOST_BITS
        left, right = left[near], right[near]
        same = _same_picture(coarse_NFHW, left, right)
        group_N = _joined(group_N, left[same], right[same])
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(group_N.tolist()):
        groups.setdefault(group, []).append(index)
    return [members for members in groups.values() if len(members) > 1]


def _candidates(bits_NF: NDArray[np.uint64]) -> Iterator[tuple[Indices, Indices]]:
    """Pairs that agree in one band. In the order by band, then by the whole, those are neighbours."""
    bands_NB = np.ascontiguousarray(bits_NF).view(np.uint16)
    for band in range(BANDS):
        order = np.lexsort((bits_NF[:, 2], bits_NF[:, 1], bits_NF[:, 0], bands_NB[:, band]))
        values = bands_NB[order, band]
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            places = np.flatnonzero(values[step:] == values[:-step])
            if not len(places):
                break
            yield order[places], order[places + step]


def _same_picture(coarse_NFHW: NDArray[np.uint8], left: Indices, right: Indices) -> NDArray[np.bool_]:
    same = np.zeros(len(left), np.bool_)
    for start in range(0, len(left), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        apart = np.abs(coarse_NFHW[left[part]].astype(np.int16) - coarse_NFHW[right[part]])
        apart = apart.reshape(len(apart), -1)
        same[part] = (apart.max(axis=1) <= MOST_CELL) & (apart.mean(axis=1) <= MOST_MEAN)
    return same


def _joined(group_N: Indices, left: Indices, right: Indices) -> Indices:
    """The groups after joining these pairs; a group is named by the smallest of its members."""
    while len(left):
        low = np.minimum(group_N[left], group_N[right])
        high = np.maximum(group_N[left], group_N[right])
        if (low == high).all():
            break
        np.minimum.at(group_N, high, low)
        while (deeper := group_N[group_N] != group_N).any():
            group_N = np.where(deeper, group_N[group_N], group_N)
    return group_N
