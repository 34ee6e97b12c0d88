"""A mistyped name is answered with the right one."""

from __future__ import annotations

import random
import string

import pytest

from ltxtrain.config.catalogue import options
from ltxtrain.config.renames import RENAMED
from ltxtrain.config.suggest import edit_distance, nearest

ASKED = 1000


def one_letter_typos(count: int) -> list[tuple[str, str]]:
    """(right, mistyped) pairs: a letter dropped, replaced, inserted or swapped with the next, always the same ones."""
    draw = random.Random(20260101)
    known = {*options(), *RENAMED}
    pairs: list[tuple[str, str]] = []
    while len(pairs) < count:
        right = draw.choice(list(options()))
        place = draw.randrange(len(right))
        letter = draw.choice(string.ascii_lowercase + "_")
        before, here, after = right[:place], right[place], right[place + 1 :]
        mistyped = {
            "drop": before + after,
            "replace": before + letter + after,
            "insert": before + letter + here + after,
            "swap": before + after[:1] + here + after[1:],
        }[draw.choice(["drop", "replace", "insert", "swap"])]
        if mistyped not in known:
            pairs.append((right, mistyped))
    return pairs


def test_of_a_thousand_typos_at_least_95_percent_are_answered_with_the_right_name() -> None:
    known = [*options(), *RENAMED]
    wrong = [(right, typo) for right, typo in one_letter_typos(ASKED) if nearest(typo, known) != right]
    assert len(wrong) <= ASKED * 5 // 100, wrong


@pytest.mark.parametrize(
    ("left", "right", "distance"),
    [
        ("rank", "rank", 0),
        ("rnk", "rank", 1),
        ("arnk", "rank", 1),
        ("rakn", "rank", 1),
        ("tank", "rank", 1),
        ("", "ab", 2),
    ],
)
def test_a_swap_counts_as_one_edit(left: str, right: str, distance: int) -> None:
    assert edit_distance(left, right, 3) == distance


def test_words_that_are_far_from_everything_get_no_suggestion() -> None:
    assert nearest("qzxwvkj", options()) is None
    assert nearest("", options()) is None


def test_a_part_of_one_name_is_enough() -> None:
    assert nearest("validation_negative", options()) == "validation_negative_prompt"
    assert nearest("file_column", ("path", "filename_column", "caption_column")) == "filename_column"
    assert nearest("a_column", ("filename_column", "caption_column")) is None, "one letter is no start of a word"
