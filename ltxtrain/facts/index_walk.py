"""The files below a data set's folder, each seen once: clips, caption files, and what is refused, with the reason.

Only links are resolved: asking the system about each of a hundred thousand files costs more than reading their names.
Hidden files and folders (a name that begins with a dot) are passed over: operating systems keep their own there.
"""

from __future__ import annotations

import os
import re
import stat
from bisect import bisect_left
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.errors import DataError
from ltxtrain.facts.reasons import Reason
from ltxtrain.units import UNPRINTED, plain

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", flags=re.IGNORECASE)  # what tables name in the place of a file


@dataclass(frozen=True)
class Rejected:
    name: str
    reason: Reason
    detail: str


@dataclass
class Walk:
    """``files``: name inside ``root`` -> path, sorted by name. ``texts`` are names of regular .txt files, no links.

    ``root`` is resolved. ``rejected`` is told by name. ``others`` counts files of the other kind of media.
    """

    root: Path
    files: dict[str, str] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    rejected: dict[str, Rejected] = field(default_factory=dict)
    others: int = 0

    def holds(self, path: str) -> bool:
        """Whether the resolved ``path`` lies in the folder."""
        return below(path, str(self.root))

    def refuse(self, name: str, reason: Reason, detail: str) -> None:
        self.rejected[name] = Rejected(shown_name(name), reason, detail)


def below(path: str, root: str) -> bool:
    """Whether the resolved ``path`` is ``root``, resolved too, or lies in it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def shown_name(name: str) -> str:
    """``name`` on one line and as UTF-8 whatever the file system holds: ``\\n`` and ``\\xff`` in words."""
    return plain(name)


def stem_of(name: str) -> str:
    """``a/b`` for ``a/b.mp4``: Path takes ten times as long, and this is asked of every file."""
    return name[: len(name) - len(extension_of(name))]


def extension_of(name: str) -> str:
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") + 1 else ""


def walk_folder(root: Path, wanted: frozenset[str], other: frozenset[str]) -> Walk:
    """All files with an extension out of ``wanted``. Raises ``DataError`` when a folder cannot be read."""
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"the dataset's folder {what}: {root}", hint="name the folder that holds the clips")
    walk = Walk(root.resolve())
    if UNPRINTED.search(str(walk.root)):
        raise DataError(
            f"the name of the dataset's folder is not UTF-8 or has a control character in it: {shown_name(str(root))}",
            hint="rename the folder",
        )
    like_files: list[str] = []
    folders = [(str(walk.root), "")]
    while folders:
        folder, prefix = folders.pop()
        for entry in _entries(folder):
            name = prefix + entry.name
            extension = extension_of(name)
            if entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, f"{name}/"))
                if extension in wanted:
                    like_files.append(name)
            elif extension in wanted:
                _take(walk, entry, name)
            elif extension == ".txt":
                if entry.is_file(follow_symlinks=False):
                    walk.texts.add(name)
            elif entry.is_symlink() and Path(entry.path).is_dir():
                _refuse_link_out(walk, entry.path, name)
            elif extension in other:
                walk.others += 1
    _judge_folders(walk, like_files)
    walk.files = dict(sorted(walk.files.items()))
    return walk


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        where = shown_name(str(error.filename))
        raise DataError(
            f"a folder of the dataset cannot be read: {where}: {error.strerror}",
            hint="give this user the right to read it, or take it out of the data set",
        ) from error


def _take(walk: Walk, entry: os.DirEntry[str], name: str) -> None:
    """One entry with a clip's extension that is no folder."""
    if UNPRINTED.search(name):
        walk.refuse(name, "unreadable", "its name is not UTF-8 or has a control character in it; rename it")
    elif entry.is_file(follow_symlinks=False):
        walk.files[name] = entry.path
    elif not entry.is_symlink():
        walk.refuse(name, "unreadable", "not a regular file")
    elif not _refuse_link_out(walk, entry.path, name):
        try:
            mode = entry.stat().st_mode
        except OSError as error:
            walk.refuse(name, "unreadable", f"a link that leads nowhere: {error.strerror}")
            return
        if stat.S_ISREG(mode):
            walk.files[name] = entry.path
        elif not stat.S_ISDIR(mode):  # a linked folder's files are found where they lie
            walk.refuse(name, "unreadable", "a link to something that is not a regular file")


def _refuse_link_out(walk: Walk, path: str, name: str) -> bool:
    target = os.path.realpath(path)
    if walk.holds(target):
        return False
    walk.refuse(name, "outside-folder", f"a link to {shown_name(target)}, outside of the folder")
    return True


def _judge_folders(walk: Walk, like_files: list[str]) -> None:
    """A folder named like a clip is one, if clips lie in it; else somebody took it for a clip."""
    named = sorted([*walk.files, *walk.rejected])
    for name in like_files:
        place = bisect_left(named, f"{name}/")
        if not named[place : place + 1] or not named[place].startswith(f"{name}/"):
            walk.refuse(name, "unreadable", "a folder, in spite of its name")
