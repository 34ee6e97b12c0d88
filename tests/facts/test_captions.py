from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config import CaptionRule
from ltxtrain.config.datasets import ShuffleRule
from ltxtrain.errors import DataError
from ltxtrain.facts.captions import CaptionFault, Captions, read_caption_file, shuffled, trainable

TAGS = st.lists(st.text("abcdefgh", min_size=1, max_size=6), min_size=1, max_size=8)


def filtered(caption: str, *filters: str) -> str:
    (text,) = Captions(CaptionRule(filters=filters)).finished([caption], "a.mp4")
    return text


@pytest.mark.parametrize(
    ("filters", "caption", "expected"),
    [
        (("art",), "art, a cart, more art", "a cart, more"),
        (("a photo of",), "a photo of a dog", "a dog"),
        (("watermark",), "a dog, watermark, a cat", "a dog, a cat"),
        (("very",), "a very  big dog", "a big dog"),
        (("Mr.",), "Mr. Bean and Mr.X", "Bean and X"),
        ((r"\d+k\b",), "a dog, 4k, 8k", "a dog"),
        ((r"^The ",), "The dog. The cat.", "dog. The cat."),
        (("s/dog/cat/",), "a dog and a dog", "a cat and a cat"),
        (("s/DOG/cat/i",), "a dog", "a cat"),
        ((r"s/(\w+) dog/dog \1/",), "a big dog", "a dog big"),
        ((r"s/a\/b/c\/d/",), "it is a/b", "it is c/d"),
        (("s/dog//",), "a dog runs", "a runs"),
        (("s/dog/cat",), "a dog", "a cat"),
        (("s/dog/cat/", "cat"), "a dog runs", "a runs"),
        (("cat", "s/dog/cat/"), "a dog runs", "a cat runs"),
        (("dog",), "a cat  sits ,  twice", "a cat  sits ,  twice"),
        (("dog",), "the dog. It runs", "the. It runs"),
        (("日本",), "日本, a street", "a street"),
    ],
)
def test_filters_act_in_order_and_leave_no_gaps(filters: tuple[str, ...], caption: str, expected: str) -> None:
    assert filtered(caption, *filters) == expected


def test_caption_that_a_filter_empties_is_none() -> None:
    rule = CaptionRule(filters=("a dog",), instance_prompt="TOK", prepend_instance_prompt=True)
    with pytest.raises(CaptionFault, match="caption_filter_list leaves nothing of 'a dog'") as fault:
        Captions(rule).finished(["a dog"], "a.mp4")
    assert fault.value.reason == "no-caption"
    assert Captions(rule).finished(["a dog", "a cat"], "a.mp4") == ("TOK a cat",)


@pytest.mark.parametrize("text", ["(", "a{2,1}", "s/(/x/", r"s/a/\7/", "*", "[z-a]"])
def test_filter_that_is_no_regular_expression_is_told(text: str) -> None:
    with pytest.raises(DataError, match="no regular expression"):
        Captions(CaptionRule(filters=(text,)))


@given(TAGS, st.text("abcdefgh", min_size=1, max_size=3))
def test_plain_word_takes_out_that_word_alone(tags: list[str], word: str) -> None:
    caption, left = ", ".join(tags), [tag for tag in tags if tag != word]
    if left:
        assert filtered(caption, word).split(", ") == left
    else:
        with pytest.raises(CaptionFault):
            filtered(caption, word)


@given(st.text(max_size=60), st.lists(st.text(max_size=8), max_size=3))
def test_whatever_the_text_and_the_filters_the_caption_is_tidy_or_refused(text: str, filters: list[str]) -> None:
    try:
        (caption,) = Captions(CaptionRule(filters=tuple(filters))).finished([text], "a.mp4")
    except (DataError, CaptionFault):
        return
    assert caption == caption.strip() != ""
    assert caption.encode()
    assert trainable(caption) == caption


@given(TAGS, st.integers(1, 5), st.integers(0, 4), st.booleans(), st.sampled_from(["comma", "space", "period"]))
def test_copies_hold_the_same_tags_and_the_first_stay(
    tags: list[str], count: int, start: int, original: bool, split_on: str
) -> None:
    mark = {"comma": ", ", "space": " ", "period": ". "}[split_on]
    caption = mark.join(tags)
    rule = ShuffleRule(count, split_on=split_on, position_start=start, include_original=original)
    copies = shuffled(caption, rule, "0:a.mp4")
    assert copies == shuffled(caption, rule, "0:a.mp4")
    assert len(set(copies)) == len(copies) <= count + original
    assert original <= (copies[0] == caption)
    for copy in copies:
        assert Counter(copy.split(mark)) == Counter(tags)
        assert copy.split(mark)[:start] == tags[:start]
    if len(tags) < start + 2:
        assert copies == [caption]


def test_copies_depend_on_seed_and_name_and_are_as_many_as_asked_for() -> None:
    caption = ", ".join("abcdefghij")
    found = {
        (seed, name): Captions(CaptionRule(shuffle=ShuffleRule(3)), seed).finished([caption], name)
        for seed in (0, 1)
        for name in ("a.mp4", "b.mp4")
    }
    assert all(len(copies) == 4 and copies[0] == caption for copies in found.values())
    assert len(set(found.values())) == 4
    # An order that was drawn once must not change: cached prompts and resumed runs count on it.
    assert shuffled("a, b, c, d", ShuffleRule(2), "7:x.mp4") == ["a, b, c, d", "d, b, a, c", "c, d, a, b"]
    own = Captions(CaptionRule(shuffle=ShuffleRule(3, seed=0)), 1).finished([caption], "a.mp4")
    assert own == found[0, "a.mp4"]


def test_sentences_keep_their_last_stop() -> None:
    (copy,) = shuffled("It runs. It stops.", ShuffleRule(1, split_on="period", include_original=False), "3")
    assert copy in ("It runs. It stops.", "It stops. It runs.")


def test_filters_come_before_the_shuffle_and_the_prefix_last() -> None:
    rule = CaptionRule(
        instance_prompt="TOK",
        prepend_instance_prompt=True,
        filters=("blurry",),
        shuffle=ShuffleRule(1, include_original=False),
    )
    (caption,) = Captions(rule).finished(["a, blurry, b"], "a.mp4")
    assert caption in ("TOK a, b", "TOK b, a")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a\x00b", "ab"), ("it\u00a0is", "it is"), ("a\u202eb", "ab"), ("a\ud800b", "ab"), ("👩\u200d🚀", "👩\u200d🚀")],
)
def test_signs_that_are_no_text_do_not_reach_the_tokenizer(text: str, expected: str) -> None:
    assert trainable(text) == expected


def test_a_caption_in_utf_16_is_named_as_that(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a clip", encoding="utf-16")
    with pytest.raises(CaptionFault, match=r"a\.txt is UTF-16; save it again as UTF-8"):
        read_caption_file(path)
