"""What a data set of the Hub holds: its commit, its licence, and those of its files that a training reads.

Names come from a server, so each is looked at before it becomes a path. Scripts, pickles and archives are never asked
for: they are left out, and told.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from ltxtrain.config.secrets import first_line, holds_token
from ltxtrain.errors import ConfigError, DataError, Fault, MachineError
from ltxtrain.facts.hub_login import ENDPOINT, TOKEN_LETTERS, hub_endpoint
from ltxtrain.facts.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from ltxtrain.prepare.fetch_ask import NoAnswer, about_set, checked, entries_of

TEXTS = frozenset((".txt", ".csv", ".jsonl", ".parquet"))
PAPERS = re.compile(r"(readme|licen[sc]e|notice|citation)([-_.][\w.-]*)?(\.md|\.txt)?", re.IGNORECASE)
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
PAGE = re.compile(r"https?://(?:huggingface\.co|hf\.co)/datasets/(?P<name>[^/]+/[^/?#]+)/?", re.IGNORECASE)
MOST_FILES = 1_000_000


@dataclass(frozen=True)
class Short:
    """A data set under a short name, and the folder that the guides give it."""

    name: str
    folder: str


SHORT_NAMES: dict[str, Short] = {
    "disney": Short("sayakpaul/video-dataset-disney-organized", "disney-black-and-white"),
}


@dataclass(frozen=True)
class HubFile:
    """``blob`` is Git's name of the content. ``sha256`` is empty for a small file: there ``blob`` is its digest."""

    name: str
    bytes: int
    blob: str
    sha256: str = ""


@dataclass(frozen=True)
class HubSet:
    name: str
    commit: str
    licence: str
    files: tuple[HubFile, ...]
    left_out: tuple[str, ...]

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def full_name(asked: str) -> str:
    """``OWNER/NAME`` of a short name, of an address of the Hub's page, or of itself. Raises ``ConfigError``."""
    page = PAGE.fullmatch(asked)
    name = SHORT_NAMES[asked].name if asked in SHORT_NAMES else page["name"] if page else asked
    if not REPOSITORY.fullmatch(name) or ".." in name or len(name) > 200:
        known = ", ".join(SHORT_NAMES)
        raise ConfigError(
            [Fault("", "this is no name of a data set" if holds_token(asked) else f"no name of a data set: {asked!r}")],
            hint=f"OWNER/NAME as the Hub's page shows it, or a short name: {known}",
        )
    return name


def usual_folder(asked: str) -> str:
    """Below ``datasets/``, as in the guides."""
    return SHORT_NAMES[asked].folder if asked in SHORT_NAMES else full_name(asked).partition("/")[2]


def look_up(name: str, revision: str | None) -> HubSet:
    """Ask the Hub for the set at ``revision`` (its main branch by default). Raises what ``told_by_hub`` raises."""
    from huggingface_hub import get_token, is_offline_mode

    if is_offline_mode():
        variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
        raise MachineError(f"{variable} is set: nothing is fetched", hint=f"unset {variable}")
    if (token := get_token()) and not TOKEN_LETTERS.fullmatch(token):
        raise ConfigError(
            [Fault("HF_TOKEN", "the token for the Hub holds letters that no token has")],
            hint="set HF_TOKEN to the token alone, without quotes, blanks or braces",
        )
    files = []
    with told_by_hub(name, revision):
        commit, licence = about_set(hub_endpoint(), name, revision)
        for entry in entries_of(hub_endpoint(), name, commit):
            if entry.get("type") == "file":
                files.append(HubFile(*checked(entry)))
            if len(files) > MOST_FILES:
                raise DataError(f"{name} holds more than {MOST_FILES} files", hint="fetch a smaller set")
    wanted, left_out = sorted_out(files)
    return HubSet(name, commit, licence, wanted, left_out)


def sorted_out(files: list[HubFile]) -> tuple[tuple[HubFile, ...], tuple[str, ...]]:
    """The files that a training reads, and the names of the others. Raises ``DataError`` for a name that leads out."""
    wanted, left_out = [], []
    names = Counter(file.name for file in files)
    folders = {str(above) for file in files for above in PurePosixPath(file.name).parents}
    for file in sorted(files, key=lambda file: file.name):
        if leads_out(file.name):
            raise DataError(
                f"a file's name in this set leads out of its folder: {file.name[:100]!r}",
                hint="do not use this set, and tell the Hub of it",
            )
        if names[file.name] > 1 or file.name in folders:
            raise DataError(f"this set has two things of one name: {file.name[:100]}", hint="tell its owner of it")
        if is_data(file.name):
            wanted.append(file)
        else:
            left_out.append(file.name)
    return tuple(wanted), tuple(left_out)


def leads_out(name: str) -> bool:
    """Whether ``name`` is anything but a plain path below a folder, on any system."""
    parts = name.split("/")
    odd = not name.isprintable() or "\\" in name or re.match(r"[A-Za-z]:", name) is not None
    return odd or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in parts) or len(name) > 1000


def is_data(name: str) -> bool:
    """Videos, pictures, captions, tables, and what tells of the set. Hidden files and folders are none of these."""
    path = PurePosixPath(name)
    if any(part.startswith(".") for part in path.parts):
        return False
    return path.suffix.lower() in VIDEO_EXTENSIONS | IMAGE_EXTENSIONS | TEXTS or PAPERS.fullmatch(path.name) is not None


def hub_host() -> str:
    """The Hub's host, for messages: an address may hold a password."""
    parts = urlsplit(hub_endpoint())
    return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")


@contextmanager
def told_by_hub(name: str, revision: str | None = None) -> Iterator[None]:
    """Inside, what the Hub refuses is a ``DataError`` with what to do, and a network that fails a ``MachineError``."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise DataError(
            f"{name} asks you to accept its terms first",
            hint=f"accept them at {ENDPOINT}/datasets/{name}, then set HF_TOKEN to a token of that account",
        ) from error
    except RevisionNotFoundError as error:
        raise DataError(f"{name} has no revision {revision}", hint="leave --revision out, or name a commit") from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"{hub_host()} has no data set {name} that you may see",
            hint="check the spelling; a private one needs HF_TOKEN",
        ) from error
    except HfHubHTTPError as error:
        raise _refused(name, error.response.status_code) from error
    except NoAnswer as error:
        raise DataError(
            f"what answers at {hub_host()} is no Hub ({error})",
            hint="check HF_ENDPOINT, and whether this network wants a login first",
        ) from error
    except HTTPError as error:
        raise MachineError(
            f"{hub_host()} is out of reach ({first_line(error)})",
            hint="check the network, or set HF_ENDPOINT to a mirror; run again, and it goes on",
        ) from error


def _refused(name: str, status: int) -> DataError | MachineError:
    if status == HTTPStatus.UNAUTHORIZED:
        return DataError(f"{hub_host()} does not know the token", hint=f"make a new one at {ENDPOINT}/settings/tokens")
    if status == HTTPStatus.FORBIDDEN:
        return DataError(f"the token may not read {name}", hint=f"give it that right at {ENDPOINT}/settings/tokens")
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return MachineError(f"{hub_host()} answers that there were too many requests", hint="wait, or set HF_TOKEN")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return MachineError(f"{hub_host()} has a fault of its own ({status})", hint="run again later: it goes on")
    return DataError(f"{hub_host()} does not give {name} (answer {status})", hint="check the name and HF_ENDPOINT")
