"""Tokens and passwords do not belong in a configuration, and are never shown."""

from __future__ import annotations

import re

from ltxtrain.units import plain

_SECRET_KEY = re.compile(
    r"(^|(?<!batch)_)(tokens?|passwords?|passwd|pass|passphrase|secrets?|credentials?|bearer|auth|apikeys?|authorization)(_|$)"
    r"|(api|access|private|secret|account|signing)_?key|auth_?token|_pat$",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}"
    r"|\bapi_org_[A-Za-z0-9]{8,}"
    r"|\bsk-[A-Za-z0-9_-]{8,}"
    r"|\bgh[pousr]_[A-Za-z0-9]{16,}|\bgithub_pat_[A-Za-z0-9_]{16,}"
    r"|\bglpat-[A-Za-z0-9_-]{12,}"
    r"|\bxox[abpr]-[A-Za-z0-9-]{8,}"
    r"|\bAKIA[A-Z0-9]{12,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
    r"|://[^/\s:@]+:[^/\s@]+@"
    r"|discord(app)?\.com/api/webhooks/\d+/\S+"
    r"|(?<![0-9a-f])[0-9a-f]{40}(?![0-9a-f])"
)
_GIT_COMMIT = re.compile(r"[0-9a-f]{40}")

HIDDEN = "(not shown)"


def is_secret_key(key: str) -> bool:
    """Whether a key of this name would hold a secret, such as ``hub_token`` or ``aws_secret_access_key``."""
    return bool(_SECRET_KEY.search(key.replace("-", "_")))


def holds_token(value: object, key: str = "") -> bool:
    """Whether a text looks like a secret. 40 hexadecimal digits may be a Git commit where ``key`` is ``revision``."""
    if not isinstance(value, str):
        return False
    if key == "revision" and _GIT_COMMIT.fullmatch(value):
        return False
    return bool(_TOKEN.search(value))


def first_line(error: BaseException, letters: int = 200) -> str:
    """What an error of a library says, short; its kind alone where it says nothing, or shows what no message may."""
    text = plain(next(iter(str(error).strip().splitlines()), "").strip())
    return type(error).__name__ if not text or holds_token(text) else text[:letters]


def shown(key: str, value: object) -> str:
    """``value`` as an error line may show it: short, quoted, one line, and never a secret."""
    if is_secret_key(key) or _any_token(value, key):
        return HIDDEN
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        value = int(value)
    text = repr(value) if isinstance(value, str) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _any_token(value: object, key: str) -> bool:
    if isinstance(value, dict):
        return any(
            is_secret_key(str(inner)) or _any_token(item, str(inner)) or holds_token(str(inner))
            for inner, item in value.items()
        )
    if isinstance(value, (list, tuple)):
        return any(_any_token(item, key) for item in value)
    return holds_token(value, key)


def shown_key(key: str) -> str:
    """A key as an error line may show it: keys can be secrets too, when two columns are swapped."""
    if holds_token(key):
        return HIDDEN
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", key.encode("utf-8", "backslashreplace").decode("utf-8"))
    return text if len(text) <= 80 else f"{text[:77]}..."
