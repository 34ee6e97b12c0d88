"""The data sets of a run, by names alone: nothing is opened or decoded."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ltxtrain.config import Dataset
from ltxtrain.config.datasets import HubRule, Kind
from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.facts.access import owner_text
from ltxtrain.facts.container import bring_clips, clips_place, in_container, is_empty
from ltxtrain.facts.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from ltxtrain.units import counted

# A look at a data folder ends after so many files and folders: a doctor is quick.
MOST_ENTRIES = 20_000
CACHE_KINDS = ("latents", "prompts")
RUN_FILES = {"run.json", "plan.json"}
EXTENSIONS: dict[Kind, frozenset[str]] = {"video": VIDEO_EXTENSIONS, "image": IMAGE_EXTENSIONS}
KINDS: dict[Kind, str] = {
    "video": "a video's name (mp4, mov, mkv, webm, avi and others)",
    "image": "an image's name (png, jpg, webp, avif and others)",
}


@dataclass(frozen=True)
class Expected:
    """What a folder should hold: files of ``kind``, with a .txt beside each unless ``captions`` says where else they
    come from. ``entry`` is the set's id where it stands in a list; a folder that ``--data`` names has none."""

    kind: Kind = "video"
    captions: str = ""
    entry: str = ""
    measured: bool = False

    @property
    def noun(self) -> str:
        return "clip" if self.kind == "video" else "image"


def check_dataset(dataset: Dataset, listed: bool) -> Finding:
    """One data set, as it was settled; ``listed``: it stands in a list and is not a folder that ``--data`` names."""
    if dataset.hub is not None:
        return _check_library_set(dataset.hub, dataset.id)
    rule = dataset.captions
    if rule.table is not None and (finding := check_table(rule.table.path)):
        return finding
    if rule.only_instance_prompt or rule.strategy == "instanceprompt":
        captions = "captioned by instance_prompt"
    elif rule.strategy == "filename":
        captions = "captioned by their names"
    else:
        captions = "" if rule.table is None else "captioned by a table"
    entry = dataset.id if listed else ""
    return check_data(dataset.root, Expected(dataset.kind, captions, entry, dataset.role == "eval"))


def _check_library_set(rule: HubRule, entry: str) -> Finding:
    """A set of the ``datasets`` library: in a folder of this disk, or fetched from the Hub."""
    check = "data"
    folder = Path(os.path.expanduser(rule.name))  # noqa: PTH111 - Path's own raises where nobody has a home
    fix = f"correct dataset_name of {entry}"
    try:
        if not folder.is_dir():
            if not rule.name.startswith((".", "/", "~")):
                return skipped(check, "data-of-hub", f"a set of the Hub, which the first run fetches: {rule.name}")
            return fault(check, "data-missing", f"there is no such folder: {folder}", fix)
        if next(folder.iterdir(), None) is None:
            return fault(check, "data-empty", f"{folder} is empty", fix)
    except OSError as error:
        return _unreadable(folder, error)
    return ok(check, f"a set of the datasets library: {folder}")


def check_table(path: Path) -> Finding | None:
    """None for a table that can be opened, by all that its folder tells."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return fault("data", "data-no-table", f"the table of captions is not a file: {path}", "name the table")
    except FileNotFoundError:
        says = f"the table of captions does not exist: {path}"
        return fault("data", "data-no-table", says, "put it there, or correct its name in the list of data sets")
    except OSError as error:
        return _unreadable(path, error)
    if not os.access(path, os.R_OK):
        says = f"the table of captions cannot be read by uid {os.geteuid()}: {path} {owner_text(path)}"
        return fault("data", "data-unreadable", says, f"chmod a+r {path}")
    return None


def check_data(folder: Path | None, expected: Expected | None = None) -> Finding:
    """The folder of the clips; without ``expected``, one of videos that ``--data`` names."""
    check, expected = "data", expected or Expected()
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
    elif expected.entry:
        put = f"correct instance_data_dir of {expected.entry}"
    try:
        folder.lstat()
    except FileNotFoundError:
        return fault(check, "data-missing", f"{folder} does not exist", put)
    except OSError as error:
        return _unreadable(folder, error)
    try:
        if not stat.S_ISDIR(folder.stat().st_mode):
            return fault(check, "data-not-a-folder", f"{folder} is not a folder", put)
        seen = _Seen(folder, expected.kind)
    except OSError as error:
        return _unreadable(folder, error)
    return _judge_data(folder, seen, expected, put)


class _Seen:
    """What a short walk through a data folder found. Raises ``OSError`` for a folder that cannot be listed."""

    def __init__(self, root: Path, kind: Kind) -> None:
        self.wanted, self.unwanted = (EXTENSIONS[kind], EXTENSIONS["image" if kind == "video" else "video"])
        self.files = 0
        self.clips = 0
        self.others = 0  # videos in a set of images, and images in one of videos
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
            if name.startswith(".") or path.suffix.lower() not in self.wanted:
                self.others += path.suffix.lower() in self.unwanted
                continue
            self.clips += 1
            if not os.access(path, os.R_OK):
                self.closed.append(path)
            if f"{path.stem}.txt" not in names:
                self.bare.append(path)


def _is_cache(folder: Path) -> bool:
    """Entries of our caches lie in ``KIND/ab/abcd....safetensors``."""
    return any(next((folder / kind).glob("??/*.safetensors"), None) for kind in CACHE_KINDS)


def _judge_data(folder: Path, seen: _Seen, expected: Expected, put: str) -> Finding:
    check = "data"
    clips = counted(seen.clips, expected.noun)
    if not seen.all:
        clips = f"more than {clips}"
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
        says = f"{counted(seen.files, 'file')} in {folder}, none with {KINDS[expected.kind]}"
        return fault(check, "data-no-clips", says, _other_kind(expected) if seen.others else put)
    if seen.closed:
        says = f"{len(seen.closed)} of {clips} cannot be read by uid {os.geteuid()}: {seen.closed[0]}"
        return fault(check, "data-unreadable", f"{says} {owner_text(seen.closed[0])}", f"chmod -R a+rX {folder}")
    if expected.captions:
        return ok(check, f"{clips} in {folder}, {expected.captions}")
    if seen.bare:
        says = f"{len(seen.bare)} of {clips} in {folder} have no caption beside them: {seen.bare[0].name}"
        fix = f"write {seen.bare[0].stem}.txt, or set caption_strategy to filename or instanceprompt"
        return warning(check, "data-no-captions", says, fix)
    return ok(check, f"{clips} with captions in {folder}")


def _other_kind(expected: Expected) -> str:
    """What to do where a set of videos holds images alone, or the other way round."""
    other = "image" if expected.kind == "video" else "video"
    if expected.measured:
        return f"name a folder of {expected.kind}s: eval sets hold what is trained on"
    if expected.entry:
        return f"set dataset_type of {expected.entry} to {other}"
    return f"list the folder as a data set of dataset_type {other}"


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
