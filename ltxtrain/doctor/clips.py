"""The folder of the clips, by names alone: nothing is opened or decoded."""

from __future__ import annotations

import errno
import os
import stat
from itertools import islice
from pathlib import Path

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.facts.access import owner_text
from ltxtrain.facts.container import bring_clips, clips_place, in_container, is_empty
from ltxtrain.facts.media import VIDEO_EXTENSIONS
from ltxtrain.units import counted

# A look at a data folder ends after so many files and folders: a doctor is quick.
MOST_ENTRIES = 20_000
CACHE_KINDS = ("latents", "prompts")
RUN_FILES = {"run.json", "plan.json"}


def check_data(folder: Path | None) -> Finding:
    """The folder of the clips, by names alone: nothing is opened or decoded."""
    check = "data"
    if folder is None:
        if not os.environ.get("LTX_IMAGE"):
            return skipped(check, "data-not-named", "no folder of clips is named")
        folder = clips_place(os.environ)  # an image takes clips from there, once there are any
        if folder.is_dir() and not is_empty(folder):
            says = f"no folder of clips is named, and {folder} holds something"
            return fault(check, "data-missing", says, f"say --data {folder}")
    put = "name the folder that holds the clips with --data"
    if in_container(os.environ):
        put = bring_clips(folder, os.environ)
    try:
        folder.lstat()
    except FileNotFoundError:
        return fault(check, "data-missing", f"{folder} does not exist", put)
    except OSError as error:
        return _unreadable(folder, error)
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return fault(check, "data-not-a-folder", f"{folder} is not a folder", put)
        seen = _Seen(folder)
    except OSError as error:
        return _unreadable(folder, error)
    return _judge_data(folder, seen, put)


class _Seen:
    """What a short walk through a data folder found. Raises ``OSError`` for a folder that cannot be listed."""

    def __init__(self, root: Path) -> None:
        self.files = 0
        self.clips = 0
        self.closed: list[Path] = []
        self.bare: list[Path] = []
        self.made_by_us: tuple[str, Path] | None = None
        self.all = True

        def refuse(error: OSError) -> None:
            raise error

        walk = os.walk(root, onerror=refuse)
        for folder, subfolders, files in islice(walk, MOST_ENTRIES):
            self._look(Path(folder), subfolders, files)
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            if self.files >= MOST_ENTRIES:
                self.all = False
                break

    def _look(self, folder: Path, subfolders: list[str], files: list[str]) -> None:
        if set(files) >= RUN_FILES:
            self.made_by_us = self.made_by_us or ("run", folder)
        if set(subfolders) & set(CACHE_KINDS) and _is_cache(folder):
            self.made_by_us = self.made_by_us or ("cache", folder)
        names = set(files)
        for name in files[: MOST_ENTRIES - self.files]:
            self.files += 1
            path = folder / name
            if name.startswith(".") or path.suffix.lower() not in VIDEO_EXTENSIONS:
                continue
            self.clips += 1
            if not os.access(path, os.R_OK):
                self.closed.append(path)
            if f"{path.stem}.txt" not in names:
                self.bare.append(path)


def _is_cache(folder: Path) -> bool:
    """Entries of our caches lie in ``KIND/ab/abcd....safetensors``."""
    return any(next((folder / kind).glob("??/*.safetensors"), None) for kind in CACHE_KINDS)


def _judge_data(folder: Path, seen: _Seen, put: str) -> Finding:
    check = "data"
    clips = counted(seen.clips, "clip") if seen.all else f"more than {counted(seen.clips, 'clip')}"
    if seen.made_by_us:
        kind, place = seen.made_by_us
        fix = "name the folder that holds the clips, and keep caches and results outside of it"
        if kind == "run":
            return fault(check, "data-is-output", f"{place} is a run's folder: its videos would be trained on", fix)
        return fault(check, "data-is-cache", f"{place} is a cache of ltxtrain", fix)
    if not seen.files:
        hint = ": Docker makes an empty folder where the one to mount is missing" if in_container(os.environ) else ""
        return fault(check, "data-empty", f"{folder} is empty{hint}", put)
    if not seen.clips:
        kinds = "mp4, mov, mkv, webm, avi and others"
        says = f"{counted(seen.files, 'file')} in {folder}, none with a video's name ({kinds})"
        return fault(check, "data-no-clips", says, put)
    if seen.closed:
        says = f"{len(seen.closed)} of {clips} cannot be read by uid {os.geteuid()}: {seen.closed[0]}"
        return fault(check, "data-unreadable", f"{says} {owner_text(seen.closed[0])}", f"chmod -R a+rX {folder}")
    if seen.bare:
        says = f"{len(seen.bare)} of {clips} in {folder} have no caption beside them: {seen.bare[0].name}"
        fix = f"write {seen.bare[0].stem}.txt, or set caption_strategy to filename or instanceprompt"
        return warning(check, "data-no-captions", says, fix)
    return ok(check, f"{clips} with captions in {folder}")


def _unreadable(folder: Path, error: OSError) -> Finding:
    where = Path(error.filename) if error.filename else folder
    if error.errno == errno.ELOOP:
        says, fix = f"{folder} is a link that leads to itself", "remove the link, or name the folder itself"
        return fault("data", "data-missing", says, fix)
    if error.errno == errno.ENOENT:
        return fault("data", "data-missing", f"{where} is a link to nothing", "remove the link, or mount its target")
    says = f"{where} cannot be read by uid {os.geteuid()}: {error.strerror}"
    if error.errno not in (errno.EACCES, errno.EPERM):
        return fault("data", "data-unreadable", says, "mount it again, or copy the clips to another disk")
    return fault("data", "data-unreadable", f"{says}, {owner_text(where)}", f"chmod -R a+rX {folder}")
