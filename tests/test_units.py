"""What others named reaches a terminal on one line, in its own order, and steers nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.units import plain


def test_signs_that_steer_or_turn_around_are_shown_in_words() -> None:
    assert plain("a\n\x1b[2J\x7f\x9b\u2028") == "a\\n\\x1b[2J\\x7f\\x9b\\u2028"
    assert plain("a\u202egpj.mp4\u2066") == "a\\u202egpj.mp4\\u2066"
    assert plain("a\udcff\ud800") == "a\\xff\\ud800"


def test_letters_of_all_scripts_stay() -> None:
    for text in ("Eine Katze läuft", "猫が歩く", "👩\u200d🚀", "\u200eWhatsApp Video", "حيوان"):
        assert plain(text) == text


@given(st.text(st.characters()))
def test_any_text_is_one_line_that_can_be_written(text: str) -> None:
    shown = plain(text)
    assert len(shown.splitlines()) <= 1 and shown.encode() and plain(shown) == shown if text else shown == ""
