"""The Hub's token as containers hand it over: HF_TOKEN, the file that HF_TOKEN_FILE names, or /run/secrets/HF_TOKEN.

huggingface_hub reads HF_TOKEN whenever it asks something, so that is where the content of a file goes. The image's
entrypoint does the same for its secrets and sets LTX_SECRETS_READ; here it is done for programs started without it.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

from ltxtrain.config.secrets import holds_token
from ltxtrain.errors import ConfigError, Fault

NAME = "HF_TOKEN"
ENDPOINT = "https://huggingface.co"
READ = "LTX_SECRETS_READ"
SECRETS = Path("/run/secrets")
TOKEN_LETTERS = re.compile(r"[A-Za-z0-9._~+/=-]+", re.ASCII)
UNFILLED = re.compile(r"\s*\{\{\s*RUNPOD_SECRET_")
MOST_BYTES = 4096  # a file with more is no token's


def take_hub_token(env: MutableMapping[str, str] | None = None, secrets: Path = SECRETS) -> list[str]:
    """Put the token into ``env`` (this process's own) as HF_TOKEN; returns what is to be told as a warning.

    What comes first counts: HF_TOKEN, HF_TOKEN_FILE, ``secrets``/HF_TOKEN. A device such as /dev/null is no token, and
    an empty mounted secret is none either: so one can be left out where it must be named. Raises ``ConfigError`` where
    HF_TOKEN_FILE names no file that can be read, and for a file that holds something else. No message shows a token.
    """
    env = os.environ if env is None else env
    told = []
    if UNFILLED.match(env.get(NAME, "")):
        del env[NAME]
        told.append(f"{NAME} is a reference to a RunPod secret that was not filled in: it is not used")
    named = env.get(f"{NAME}_FILE", "")
    if named and not _is_device(Path(named)):
        told += _take(env, Path(named), f"{NAME}_FILE", _shown(named))
    mounted = secrets / NAME
    if env.get(READ):
        return told  # read as root, whose file it may be; what was wrong with it has been told
    if not os.path.lexists(mounted) or _is_device(mounted):
        return told
    if mounted.is_file() and os.access(mounted, os.R_OK):
        told += _take(env, mounted, str(mounted), f" {mounted}")
    elif not env.get(NAME):
        told.append(f"{mounted} cannot be read: {NAME} is not set")
    return told


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def _shown(named: str) -> str:
    """What HF_TOKEN_FILE names, as a message may show it: a token in the place of a path is not shown."""
    path = named.startswith(("/", "./", "../", "~")) or os.path.lexists(named)
    return f" {named}" if path and not holds_token(named) else f" that {NAME}_FILE names"


def _take(env: MutableMapping[str, str], file: Path, source: str, name: str) -> list[str]:
    try:
        with file.open("rb") as stream:
            content = stream.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(
            [Fault("", f"the token's file{name} cannot be read ({reason}, from {source})")],
            hint=f"mount the file, or unset {NAME}_FILE; a token itself goes into {NAME}",
        ) from None
    token = content.decode("ascii", "replace").strip()
    if not token:
        return [f"{source} is empty: no token is taken from it"] if source == f"{NAME}_FILE" else []
    if len(content) > MOST_BYTES or not TOKEN_LETTERS.fullmatch(token):
        raise ConfigError(
            [Fault("", f"the file{name} holds something else than a token (from {source})")],
            hint="the file holds the token alone, in one line without quotes",
        )
    before = env.get(NAME, "").strip()
    if not before:
        env[NAME] = token
    elif before != token:
        return [f"{NAME} and {source} differ: {NAME} of the environment is used"]
    return []


def hub_endpoint() -> str:
    """The Hub's address or its mirror's. Raises ``ConfigError`` for what is no address, without showing it.

    One with a name and password is refused: huggingface_hub writes the address into its log and its messages.
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/")
    if not is_address(endpoint):
        raise ConfigError([Fault("HF_ENDPOINT", "is no address")], hint="HF_ENDPOINT=https://HOST, or unset it")
    if "@" in urlsplit(endpoint).netloc:
        raise ConfigError(
            [Fault("HF_ENDPOINT", "holds a name or password, which the Hub's client would write into logs")],
            hint="HF_ENDPOINT=https://HOST; the token for it goes into HF_TOKEN",
        )
    return endpoint


def is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        return False
