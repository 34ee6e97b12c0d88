"""One question to a model that sees pictures, by the interface that OpenAI made and most servers speak.

The key is sent to the endpoint's own address and nowhere else: no redirect is followed. It is never shown.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ltxtrain.config.secrets import first_line, holds_token
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.prepare.waits import asked_wait

if TYPE_CHECKING:
    import httpx

PATH = "/chat/completions"
PROMPT = (
    "The pictures are {frames} frames of one video clip, in order. Describe the clip in one paragraph of at most "
    "90 words. Begin with the movement: who or what moves, and how. Then say how they look, where they are, "
    "the light and the colours, the angle and the movement of the camera. Say only what can be seen, in plain present "
    "tense. Answer with the paragraph alone: no introduction, no list, no quotation marks."
)
KEY_VARIABLE = "OPENAI_API_KEY"
LOCAL = ("localhost", "127.0.0.1", "::1")
TRIES = 5
FIRST_WAIT_S = 1.0
MOST_BYTES = 1 << 20
MOST_LETTERS = 2000
AGAIN = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS)

_THOUGHTS = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_INTRODUCTION = re.compile(
    r"(?:(?:sure|certainly|of course|okay|ok)\b[^\n:]{0,80}|here(?:'s| is|’s)\b[^\n:]{0,80}"
    r"|\W*(?:caption|description)\W*):\W*\s",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"(?:i['’]?m sorry|i am sorry|sorry,|i can['’]?t|i cannot|i['’]?m unable|as an ai)\b", re.IGNORECASE
)
_QUOTES = {'"': '"', "“": "”", "'": "'", "«": "»", "*": "*", "`": "`"}


@dataclass(frozen=True)
class Endpoint:
    """``url`` is the whole address of the question; ``key`` is never a part of what is printed of this record."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 120.0

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def open_key(self) -> bool:
        """Whether the key would travel where others can read it."""
        parts = urlsplit(self.url)
        return bool(self.key) and parts.scheme == "http" and parts.hostname not in LOCAL


@dataclass(frozen=True)
class Answer:
    """A caption, or why there is none. ``stop`` is set where no other clip would fare better."""

    caption: str = ""
    failure: str = ""
    stop: str = ""


def read_endpoint(
    address: str, model: str, key_variable: str | None, env: Mapping[str, str], timeout_s: float
) -> Endpoint:
    """Raises ``ConfigError`` for an address or a key that cannot be used; shows neither a key nor a password."""
    try:
        parts = urlsplit(address)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not address.isascii() or not address.isprintable() or " " in address:
        raise ConfigError([Fault("--endpoint", "is no address")], hint="such as http://localhost:8000/v1")
    if "@" in parts.netloc or parts.fragment or holds_token(address):
        raise ConfigError(
            [Fault("--endpoint", "holds a name, a password or a key, and addresses stand in logs")],
            hint=f"give the address alone, and the key in {KEY_VARIABLE}",
        )
    if not model.strip() or not model.isprintable():
        raise ConfigError([Fault("--model", "is empty")], hint="name a model that the server has")
    path = parts.path.rstrip("/")
    url = parts._replace(path=path if path.endswith(PATH) else path + PATH).geturl()
    return Endpoint(url, model.strip(), _key(key_variable, env), timeout_s)


def _key(variable: str | None, env: Mapping[str, str]) -> str:
    name = variable or KEY_VARIABLE
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or holds_token(name):
        raise ConfigError(
            [Fault("--key-variable", "is no name of a variable")],
            hint="name the variable that holds the key, not the key",
        )
    key = env.get(name, "").strip()
    if variable and not key:
        raise ConfigError([Fault("--key-variable", f"{name} is not set")], hint=f"export {name}=...")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError([Fault(name, "holds letters that no key has")], hint="the key alone, without quotes")
    return key


def ask(
    client: httpx.Client, endpoint: Endpoint, prompt: str, jpegs: Sequence[bytes], wait: Callable[[float], bool]
) -> Answer:
    """Ask for a caption, several times over where waiting may help. ``wait(seconds)`` returns True to give up."""
    import httpx

    body = _body(endpoint.model, prompt, jpegs)
    failure = ""
    for attempt in range(TRIES):
        asked_s = 0.0
        try:
            status, headers, content = _post(client, endpoint, body)
        except httpx.ConnectError as error:
            failure = f"nobody answers at {endpoint.host} ({first_line(error)})"
            if attempt + 1 == TRIES:
                return Answer(stop=failure)
        except httpx.TimeoutException:
            failure = f"no answer within {endpoint.timeout_s:g} s"
        except httpx.HTTPError as error:
            failure = f"the connection failed ({first_line(error)})"
        else:
            if status == HTTPStatus.OK:
                return read_answer(content)
            if status not in AGAIN and status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return _refused(endpoint, status, headers, content)
            failure = f"{endpoint.host} answers {status}{_told(content, endpoint.key)}"
            asked_s = asked_wait(headers)
        if attempt + 1 < TRIES and wait(max(asked_s, FIRST_WAIT_S * 2**attempt)):
            return Answer(failure="stopped")
    return Answer(failure=f"{failure}, {TRIES} times")


def _body(model: str, prompt: str, jpegs: Sequence[bytes]) -> bytes:
    pictures = [f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" for jpeg in jpegs]
    content: list[dict[str, object]] = [{"type": "text", "text": prompt}]
    content += [{"type": "image_url", "image_url": {"url": picture}} for picture in pictures]
    return json.dumps({"model": model, "messages": [{"role": "user", "content": content}], "stream": False}).encode()


def _post(client: httpx.Client, endpoint: Endpoint, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
    """One request, with an end: the client's own limit is for each piece, and a server may send many small ones."""
    import httpx

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    until = time.monotonic() + endpoint.timeout_s
    with client.stream("POST", endpoint.url, content=body, headers=headers, timeout=endpoint.timeout_s) as response:
        content = b""
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                break
            if time.monotonic() > until:
                raise httpx.ReadTimeout("too slow")
        return response.status_code, response.headers, content


def _refused(endpoint: Endpoint, status: int, headers: Mapping[str, str], content: bytes) -> Answer:
    told = _told(content, endpoint.key)
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        host = urlsplit(headers.get("location", "")).hostname or "another place"
        return Answer(stop=f"{endpoint.host} leads to {host}, and the pictures are not sent there: name that address")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return Answer(stop=f"{endpoint.host} refuses the key{'' if endpoint.key else ', and none was given'}{told}")
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED):
        return Answer(stop=f"{endpoint.host} has no such address or no model {endpoint.model}{told}")
    return Answer(failure=f"{endpoint.host} answers {status}{told}")


def _told(content: bytes, key: str) -> str:
    """The server's sentence, short and in one line; nothing where it may hold a key."""
    try:
        said = json.loads(content)
        found = said.get("error", said) if isinstance(said, dict) else ""
        text = str(found.get("message", "") if isinstance(found, dict) else found)
    except (ValueError, RecursionError):
        return ""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:200]
    return f": {text}" if text and not holds_token(text) and (not key or key not in text) else ""


def read_answer(content: bytes) -> Answer:
    """The caption in a server's answer, or why there is none in it."""
    try:
        choice: Any = json.loads(content)["choices"][0]
        said, ended = choice["message"]["content"], choice.get("finish_reason")
        if isinstance(said, list):
            said = "".join(part["text"] for part in said if part.get("type") == "text")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Answer(failure="the answer is not what this interface promises")
    if ended == "content_filter":
        return Answer(failure="the server's filter kept the answer back")
    if said is not None and not isinstance(said, str):
        return Answer(failure="the answer holds no text")
    caption = clean(said or "")
    if not caption:
        return Answer(failure="the answer is empty")
    if _REFUSAL.match(caption):
        return Answer(failure=f"the model declined: {caption[:80]}")
    if ended == "length":
        return Answer(failure="the answer is cut off: the server allows too few tokens")
    if len(caption) > MOST_LETTERS:
        return Answer(failure=f"the answer has {len(caption)} letters: no caption")
    return Answer(caption)


def clean(text: str) -> str:
    """One line of plain text: no thoughts, introduction, quotation marks around it, or control characters."""
    text = _THOUGHTS.sub(" ", text)
    text = "".join(letter if letter.isprintable() or letter == "\u200d" else " " for letter in text).strip()
    text = _INTRODUCTION.sub("", f"{text} ", count=1) if _INTRODUCTION.match(f"{text} ") else text
    text = " ".join(text.split())
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1] and not {text[0], text[-1]} & set(text[1:-1]):
        text = text[1:-1].strip()
    return "" if text in _QUOTES else text
