"""Out of a server's answer comes a caption or why there is none; no key gets into an address or a message."""

from __future__ import annotations

import json

import pytest

from ltxtrain.errors import ConfigError
from ltxtrain.prepare.captioner_ask import clean, read_answer, read_endpoint
from tests.doctor.fake_hub import Reply
from tests.prepare.captioner_server import said

KEY = "sk-" + "aBcDeFgH" * 4


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply(body=b"<html>login</html>"), "not what this interface promises"),
        (Reply(body=b"\xff\xfe{"), "not what this interface promises"),
        (Reply(body=[1]), "not what this interface promises"),
        (Reply(body={"choices": []}), "not what this interface promises"),
        (Reply(body=b"[" * 100_000), "not what this interface promises"),
        (said({"a": 1}), "no text"),
        (said(""), "empty"),
        (said(None), "empty"),
        (said(' "" \n'), "empty"),
        (said("A cat", "length"), "cut off"),
        (said("", "content_filter"), "filter"),
        (said("I'm sorry, I can't help with that."), "declined"),
        (said("word " * 1000), "letters"),
    ],
)
def test_an_answer_without_a_caption_is_told_apart(reply: Reply, why: str) -> None:
    answer = read_answer(reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode())
    assert why in answer.failure and not answer.caption


@pytest.mark.parametrize(
    ("said_text", "caption"),
    [
        ("  A cat.\n\nIt walks. \n", "A cat. It walks."),
        ('"A cat walks."', "A cat walks."),
        ("“A cat walks.”", "A cat walks."),
        ('"Stop" says a sign, and "go" another "one"', '"Stop" says a sign, and "go" another "one"'),
        ("Here is the caption:\n\nA cat walks.", "A cat walks."),
        ("Sure! Here's a description of the clip: A cat walks.", "A cat walks."),
        ("**Caption:** A cat walks.", "A cat walks."),
        ("<think>I see a cat\n</think>\nA cat walks.", "A cat walks."),
        ("A c\0at\x1b[31m walks\u2028here.", "A c at [31m walks here."),
        (
            "Eine Katze läuft über den Teppich, 猫が歩く 👩\u200d🚀.",
            "Eine Katze läuft über den Teppich, 猫が歩く 👩\u200d🚀.",
        ),
        ("A sign here is red: it says stop.", "A sign here is red: it says stop."),
        ("\ud800lone", "lone"),
    ],
)
def test_a_caption_is_one_line_of_plain_text(said_text: str, caption: str) -> None:
    assert clean(said_text) == caption


def test_a_key_that_travels_openly_is_warned_of() -> None:
    for address, key, warned in (
        ("http://10.0.0.1/v1", KEY, True),
        ("http://10.0.0.1/v1", "", False),
        ("https://10.0.0.1/v1", KEY, False),
        ("http://localhost:1/v1", KEY, False),
    ):
        assert read_endpoint(address, "m", None, {"OPENAI_API_KEY": key}, 5).open_key is warned


@pytest.mark.parametrize(
    ("address", "model", "variable", "env"),
    [
        ("localhost:8000", "m", None, {}),
        ("ftp://host/v1", "m", None, {}),
        ("http://", "m", None, {}),
        (f"http://me:{KEY}@host/v1", "m", None, {}),
        (f"http://{KEY}@host/v1", "m", None, {}),
        (f"http://host/v1?key={KEY}", "m", None, {}),
        ("http://host:99999/v1", "m", None, {}),
        ("http://host/v1", " ", None, {}),
        ("http://host/v1", "m", KEY, {}),
        ("http://host/v1", "m", "MY_KEY", {}),
        ("http://host/v1", "m", "MY_KEY", {"MY_KEY": f'"{KEY}\n"x'}),
    ],
)
def test_an_address_or_a_key_that_cannot_be_used_is_refused_unseen(
    address: str, model: str, variable: str | None, env: dict[str, str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        read_endpoint(address, model, variable, env, 5)
    assert KEY not in f"{refused.value.message} {refused.value.hint}"


def test_addresses_become_those_of_the_question() -> None:
    for address in ("http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"):
        assert read_endpoint(address, "m", None, {}, 5).url == "http://h/v1/chat/completions"
    azure = read_endpoint("https://h/deploy?api-version=1", "m", None, {}, 5)
    assert azure.url == "https://h/deploy/chat/completions?api-version=1"
