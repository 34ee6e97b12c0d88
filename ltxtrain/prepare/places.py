"""Where a file goes whose name somebody else chose: a server, or a record that anybody may have written."""

from __future__ import annotations

from pathlib import Path

from ltxtrain.errors import DataError


def inside(root: Path, name: str) -> Path:
    """The path of ``name`` below ``root``. Raises ``DataError`` for one that leads out, for a link on its way, and
    where something lies that is no file."""
    path = root
    for part in name.split("/"):
        if part in ("", ".", "..") or "\0" in part:
            raise DataError(f"{name!r} leads out of {root}", hint="name another folder with --to")
        path = path / part
        if path.is_symlink():
            raise DataError(f"{path} is a link, and nothing is written through one", hint="remove it")
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no file, and one of this name is to be written", hint="name another one with --to")
    return path
