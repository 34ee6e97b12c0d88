"""Captions that teach less than they could, one kind after the other, and good ones that are left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config import CaptionRule
from ltxtrain.prepare.inspect_records import JudgedClip
from ltxtrain.prepare.lint import MAX_TOKENS, estimated_tokens, lint_captions

GOOD = "A man in a grey T-shirt lifts his hand and waves at the camera."


def clip(name: str, *captions: str, reason: str = "", detail: str = "") -> JudgedClip:
    return JudgedClip("set", name, Path(name), None, captions, reason=reason, detail=detail)


def codes(*clips: JudgedClip, rule: CaptionRule | None = None) -> dict[str, list[str]]:
    found = lint_captions(clips, {"set": rule or CaptionRule()}, estimated_tokens)
    return {name: [finding.code for finding in findings] for (_, name), findings in found.items()}


@pytest.mark.parametrize(
    ("caption", "code"),
    [
        ("dog", "caption-short"),
        ("a_dog", "caption-short"),
        ("...", "caption-short"),
        ("A man walks along the street. " * 25, "caption-long"),
        ("A man in a cafÃ© reads a book", "caption-odd-letters"),
        ("A man\ufffds hand on a book", "caption-odd-letters"),
        ("A womanâ€™s hand on a book", "caption-odd-letters"),
        ("A man <b>walks</b> along", "caption-odd-letters"),
        ("A man &amp; a woman walk along", "caption-odd-letters"),
        ("A {subject} walks along the street", "caption-odd-letters"),
        ("A man walks along <|endoftext|>", "caption-odd-letters"),
        ("オフィスで男が手話をしている様子", "caption-not-latin"),
        ("Мужчина машет рукой на камеру", "caption-not-latin"),
        ("I'm sorry, but I cannot describe this video.", "caption-chatter"),
        ("I can’t see any frames here.", "caption-chatter"),
        ("Here is a short caption for it: a man walks.", "caption-chatter"),
        ("Sure! A man walks along the street.", "caption-chatter"),
    ],
)
def test_each_kind_of_poor_caption_has_its_code(caption: str, code: str) -> None:
    assert codes(clip("a.mp4", caption)) == {"a.mp4": [code]}


@pytest.mark.parametrize(
    "caption",
    [
        GOOD,
        "Red ball rolls",
        "Ein Mädchen füttert Vögel – fünf Stück, im Café « Zoë ».",
        "A man at 3 < 5 degrees says “hello”, then it's 50 % done & dusted; R&B plays.",
        "A man says sorry and sees a caption: here is a sign.",
        "Zażółć gęślą jaźń na ścianie, şöyle bir şey",
        "Â la carte and Ã on a sign",
    ],
)
def test_good_captions_are_left_alone(caption: str) -> None:
    assert codes(clip("a.mp4", caption)) == {}


def test_a_clip_without_a_readable_caption_is_told_with_the_planners_words() -> None:
    missing = clip("a.mp4", reason="no-caption", detail="no a.txt beside it")
    broken = clip("b.mp4", reason="bad-caption", detail="byte 0x92")
    found = lint_captions([missing, broken], {"set": CaptionRule()}, estimated_tokens)
    assert [(f.code, f.detail) for findings in found.values() for f in findings] == [
        ("caption-missing", "no a.txt beside it"),
        ("caption-unreadable", "byte 0x92"),
    ]


def test_captions_that_differ_in_case_and_marks_alone_are_the_same() -> None:
    clips = [clip("a.mp4", GOOD), clip("b.mp4", GOOD.upper().replace(".", " !")), clip("c.mp4", GOOD + " Twice.")]
    found = lint_captions(clips, {"set": CaptionRule()}, estimated_tokens)
    assert {name: [(f.code, f.detail) for f in findings] for (_, name), findings in found.items()} == {
        "a.mp4": [("caption-duplicate", "as b.mp4")],
        "b.mp4": [("caption-duplicate", "as a.mp4")],
    }


def test_of_many_clips_with_one_caption_a_few_are_named_and_the_others_counted() -> None:
    found = lint_captions([clip(f"{n}.mp4", GOOD) for n in range(7)], {"set": CaptionRule()}, estimated_tokens)
    assert found["set", "0.mp4"][0].detail == "as 1.mp4, 2.mp4, 3.mp4 and 3 more"


def test_alternatives_of_one_clip_are_no_duplicates_but_each_of_them_is_looked_at() -> None:
    assert codes(clip("a.mp4", GOOD, GOOD, "dog", "cat")) == {"a.mp4": ["caption-short"]}
    assert codes(clip("a.mp4", GOOD, "another one of three"), clip("b.mp4", "words that differ", GOOD)) == {
        "a.mp4": ["caption-duplicate"],
        "b.mp4": ["caption-duplicate"],
    }


def test_one_caption_for_all_clips_is_what_was_asked_for() -> None:
    rule = CaptionRule(strategy="instanceprompt", instance_prompt="zxq")
    assert codes(clip("a.mp4", "zxq"), clip("b.mp4", "zxq"), rule=rule) == {}


def test_a_caption_without_the_trigger_word_is_told_and_a_part_of_a_word_is_not_it() -> None:
    rule = CaptionRule(instance_prompt="cat")
    clips = [clip("a.mp4", GOOD), clip("b.mp4", "The category of all things"), clip("c.mp4", "A Cat, it walks")]
    assert codes(*clips, rule=rule) == {"a.mp4": ["caption-no-trigger"], "b.mp4": ["caption-no-trigger"]}


def test_tokens_are_counted_by_the_counter_that_is_given() -> None:
    found = lint_captions([clip("a.mp4", GOOD)], {"set": CaptionRule()}, lambda text: MAX_TOKENS + 1)
    assert found["set", "a.mp4"][0].detail == "129 tokens; what follows the first 128 is not read"
    assert lint_captions([clip("a.mp4", GOOD)], {"set": CaptionRule()}, lambda text: MAX_TOKENS) == {}


@given(st.text(max_size=400))
def test_no_text_is_too_strange_to_be_looked_at(caption: str) -> None:
    found = codes(clip("a.mp4", caption))
    assert set(found) <= {"a.mp4"}
