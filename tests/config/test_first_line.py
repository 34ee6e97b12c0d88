"""What a library's error says is short, on one line, and no way for a secret to get out."""

from __future__ import annotations

import pytest

from ltxtrain.config.secrets import first_line


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("\n the cable is out \nTraceback", "the cable is out"),
        ("", "OSError"),
        ("GET http://bob:secret@host/x failed", "OSError"),
        ("the token hf_" + "aBcDeFgH" * 4, "OSError"),
        ("\x1b[2Jcleared \u202e", "\\x1b[2Jcleared \\u202e"),
        ("long " * 100, "long " * 40),
    ],
)
def test_the_first_line_is_told_unless_it_holds_a_secret(said: str, shown: str) -> None:
    assert first_line(OSError(said)) == shown
