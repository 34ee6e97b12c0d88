"""Clips that look alike among many: nothing within the promised distance is overlooked, and it stays fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.prepare.looks import Fingerprint
from ltxtrain.prepare.looks_alike import BAND_BITS, BANDS, MOST_BITS, alike


def prints(count: int, seed: int = 0) -> list[Fingerprint]:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2**63, (count, 3), dtype=np.uint64)
    coarse = rng.integers(0, 255, (count, 3, 16, 16), dtype=np.uint8)
    return [Fingerprint(*pair) for pair in zip(bits, coarse, strict=True)]


def changed(entry: Fingerprint, places: set[int], step: int = 0) -> Fingerprint:
    """With these of its 192 bits turned over, and all grey levels moved by ``step``."""
    bits = entry.bits.copy()
    for place in places:
        bits[place // 64] ^= np.uint64(1 << (place % 64))
    return Fingerprint(bits, np.clip(entry.coarse_FHW.astype(int) + step, 0, 255).astype(np.uint8))


@given(st.sets(st.integers(0, 191), max_size=MOST_BITS))
def test_no_pair_within_the_distance_is_overlooked_wherever_its_bits_differ(places: set[int]) -> None:
    many = prints(50)
    assert alike([*many, changed(many[7], places, step=2)]) == [[7, 50]]


@pytest.mark.parametrize("spared", range(BANDS))
def test_one_bit_in_each_part_of_the_fingerprint_but_one_is_still_near(spared: int) -> None:
    many = prints(50)
    places = {BAND_BITS * band + 5 for band in range(BANDS) if band != spared}
    assert len(places) == MOST_BITS
    assert alike([*many, changed(many[7], places)]) == [[7, 50]]


@given(st.sets(st.integers(0, 191), min_size=MOST_BITS + 1, max_size=40))
def test_what_is_further_away_is_another_clip(places: set[int]) -> None:
    many = prints(5)
    assert alike([*many, changed(many[2], places)]) == []


def test_two_takes_before_one_wall_differ_in_the_picture_though_not_in_the_fingerprint() -> None:
    first = prints(1)[0]
    second = changed(first, set())
    second.coarse_FHW[1, 4:8, 4:8] = 255 - second.coarse_FHW[1, 4:8, 4:8]
    assert alike([first, second]) == []


def test_groups_are_joined_over_common_members_and_sorted() -> None:
    a, b, c = prints(3)
    bits = [set(range(start, start + 9)) for start in (0, 50, 100)]
    chain = [a, b, changed(a, bits[0]), c, changed(b, bits[1]), changed(a, bits[0] | {150, 151, 152})]
    assert alike(chain) == [[0, 2, 5], [1, 4]]


def test_none_and_one_clip_are_like_no_other() -> None:
    assert alike([]) == [] == alike(prints(1))


def test_twenty_thousand_clips_take_seconds_also_when_thousands_are_the_same() -> None:
    many = prints(17_000)
    many += [changed(many[0], {place % 192}) for place in range(3_000)]
    begun = time.perf_counter()
    groups = alike(many)
    assert time.perf_counter() - begun < 20
    assert [len(group) for group in groups] == [3_001]
