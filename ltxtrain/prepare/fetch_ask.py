"""Questions to the Hub about a data set. Each answer has an end, and each of its fields is looked at.

What answers may be no Hub at all: the page of a network that wants a login, a broken mirror, or one that means harm.
The token goes to HF_ENDPOINT alone, whatever an answer names as its next page.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from ltxtrain.errors import DataError, MachineError

if TYPE_CHECKING:
    from httpx import Response

SECONDS = 20.0  # for each piece of an answer
ANSWER_SECONDS = 60.0
MOST_BYTES = 64 << 20  # of one answer
MOST_PAGES = 2000  # of a thousand entries each
MOST_FILE_BYTES = 1 << 50


class NoAnswer(Exception):
    """What came is not what the Hub's interface promises."""


def about_set(endpoint: str, name: str, revision: str | None) -> tuple[str, str]:
    """Commit and licence. Raises ``NoAnswer``, and what ``check_status`` raises."""
    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    about, _ = _answer(f"{endpoint}/api/datasets/{name}{at}")
    commit = about.get("sha") if isinstance(about, dict) else None
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise NoAnswer("no commit")
    return commit, _licence(about)


def entries_of(endpoint: str, name: str, commit: str) -> Iterator[dict[str, Any]]:
    """Files and folders of the set. Raises ``NoAnswer``, ``DataError`` for a list that does not end."""
    url = f"{endpoint}/api/datasets/{name}/tree/{commit}?recursive=true"
    for _ in range(MOST_PAGES):
        entries, following = _answer(url)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise NoAnswer("no list of files")
        yield from entries
        if not following:
            return
        origin, link = urlsplit(endpoint), urlsplit(following)
        url = link._replace(scheme=origin.scheme, netloc=origin.netloc, fragment="").geturl()
    raise DataError(f"the list of files of {name} has more than {MOST_PAGES} pages", hint="check HF_ENDPOINT")


def checked(entry: dict[str, Any]) -> tuple[str, int, str, str]:
    """Name, bytes, Git's digest and SHA-256 of a file. Raises ``NoAnswer``."""
    name, size, blob = entry.get("path"), entry.get("size"), entry.get("oid")
    lfs = entry.get("lfs") or {}
    sha256 = lfs.get("oid", "") if isinstance(lfs, dict) else None
    if not isinstance(name, str) or type(size) is not int or not 0 <= size <= MOST_FILE_BYTES:
        raise NoAnswer("a file without a name or a size")
    if not _is_digest(blob, 40) or (lfs and not _is_digest(sha256, 64)):
        raise NoAnswer("a file without a digest")
    return name, size, str(blob), str(sha256)


def check_status(response: Response) -> None:
    """As huggingface_hub does, which trusts that the body of a refusal has its form. Raises ``NoAnswer`` for others."""
    from huggingface_hub.utils import hf_raise_for_status

    try:
        hf_raise_for_status(response)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise NoAnswer(f"{response.status_code}, and no reason") from error


def _answer(url: str) -> tuple[Any, str]:
    """The JSON at ``url``, and the address of the next page."""
    from huggingface_hub.utils import build_hf_headers, get_session

    content = bytearray()
    until = time.monotonic() + ANSWER_SECONDS
    headers = build_hf_headers(library_name="ltxtrain")
    with get_session().stream("GET", url, headers=headers, timeout=SECONDS, follow_redirects=True) as response:
        check_status(response)
        for piece in response.iter_bytes():
            content += piece
            if len(content) > MOST_BYTES:
                raise NoAnswer("an answer without an end")
            if time.monotonic() > until:
                raise MachineError("the Hub's answer comes too slowly", hint="run again later, or set HF_ENDPOINT")
        following = response.links.get("next", {}).get("url", "")
    try:
        return json.loads(content), following
    except (ValueError, RecursionError) as error:
        raise NoAnswer("no JSON") from error


def _is_digest(value: object, digits: int) -> bool:
    return isinstance(value, str) and re.fullmatch(rf"[0-9a-f]{{{digits}}}", value) is not None


def _licence(about: dict[str, Any]) -> str:
    """What the set's own page says, in one short line; nothing where it says none."""
    card, tags = about.get("cardData"), about.get("tags")
    told = card.get("license") if isinstance(card, dict) else None
    names = [str(name) for name in (told if isinstance(told, list) else [told]) if name]
    if not names:
        tags = tags if isinstance(tags, list) else []
        names = [tag.partition(":")[2] for tag in tags if isinstance(tag, str) and tag.startswith("license:")]
    return "".join(letter for letter in ", ".join(names) if letter.isprintable())[:80]
