"""Find the clips of a folder and the caption of each. Reads only; nothing in the user's folder is ever changed.

Every file with a video's extension is either a clip with a caption or stands in ``rejected`` with its reason. Hidden
files and folders (a name that begins with a dot) are no clips: that is where operating systems keep their own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.config import CaptionRule
from ltxtrain.errors import DataError
from ltxtrain.facts.media import VIDEO_EXTENSIONS
from ltxtrain.facts.reasons import Reason

MAX_CAPTION_BYTES = 64 * 1024


@dataclass(frozen=True)
class FoundClip:
    """``name`` is the path inside the dataset, with forward slashes on every system. ``captions`` are alternatives."""

    path: Path
    name: str
    captions: tuple[str, ...]


@dataclass(frozen=True)
class Rejected:
    name: str
    reason: Reason
    detail: str


@dataclass(frozen=True)
class FolderIndex:
    clips: tuple[FoundClip, ...]
    rejected: tuple[Rejected, ...]


class _CaptionFault(Exception):
    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


def index_folder(root: Path, rule: CaptionRule | None = None) -> FolderIndex:
    """All clips below ``root``, sorted by name. Raises ``DataError`` when the folder itself cannot be read."""
    rule = rule or CaptionRule()
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"the dataset's folder {what}: {root}", hint="name the folder that holds the clips")
    real_root = root.resolve()
    clips: list[FoundClip] = []
    rejected: list[Rejected] = []
    for path in sorted(_video_paths(real_root), key=lambda path: path.relative_to(real_root).as_posix()):
        name = path.relative_to(real_root).as_posix()
        if not path.resolve().is_relative_to(real_root):
            rejected.append(Rejected(name, "outside-folder", f"a link to {path.resolve()}, outside of the folder"))
            continue
        try:
            clips.append(FoundClip(path, name, _captions(path, real_root, rule)))
        except _CaptionFault as fault:
            rejected.append(Rejected(name, fault.reason, fault.detail))
    return FolderIndex(tuple(clips), tuple(rejected))


def _video_paths(root: Path) -> Iterator[Path]:
    """Files with a video's extension, and folders that are links out of ``root``. Links inside are not walked twice."""

    def refuse(error: OSError) -> None:
        raise DataError(f"a folder of the dataset cannot be read: {error.filename}: {error.strerror}") from error

    for folder, subfolders, files in os.walk(root, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        for name in subfolders:
            path = Path(folder, name)
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                yield path
        for name in files:
            if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_EXTENSIONS:
                yield Path(folder, name)


def _captions(clip: Path, root: Path, rule: CaptionRule) -> tuple[str, ...]:
    instance = (rule.instance_prompt or "").strip()
    if rule.only_instance_prompt or rule.strategy == "instanceprompt":
        if not instance:
            raise _CaptionFault("no-caption", "instance_prompt is empty")
        return (instance,)
    if rule.strategy == "filename":
        captions: tuple[str, ...] = (clip.stem.replace("_", " ").strip(),)
    elif rule.strategy == "textfile":
        captions = _textfile_captions(clip.with_suffix(".txt"), root, rule.disable_multiline_split)
    else:
        raise ValueError(f"caption_strategy {rule.strategy!r}")
    if rule.prepend_instance_prompt and instance:
        return tuple(f"{instance} {caption}" for caption in captions)
    return captions


def _textfile_captions(path: Path, root: Path, whole: bool) -> tuple[str, ...]:
    if not path.is_file():
        raise _CaptionFault("no-caption", f"no {path.name} beside it")
    if not path.resolve().is_relative_to(root):
        raise _CaptionFault("outside-folder", f"its caption {path.name} is a link out of the folder")
    text = _read_caption(path)
    alternatives = (text,) if whole else tuple(text.splitlines())
    captions = tuple(caption for caption in (_printable(line) for line in alternatives) if caption)
    if not captions:
        raise _CaptionFault("no-caption", f"{path.name} is empty")
    return captions


def _read_caption(path: Path) -> str:
    """UTF-8, with or without a byte order mark. Anything else is told with the place, not guessed."""
    try:
        size = path.stat().st_size
        if size > MAX_CAPTION_BYTES:
            raise _CaptionFault("bad-caption", f"{path.name} has {size} bytes: too long for a caption")
        content = path.read_bytes()
    except OSError as error:
        raise _CaptionFault("bad-caption", f"{path.name}: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        where = f"{path.name} is not UTF-8: byte 0x{byte:02x} at offset {error.start}"
        raise _CaptionFault("bad-caption", f"{where}; save it again as UTF-8") from error


def _printable(line: str) -> str:
    """Without control characters (a NUL from a broken editor must not reach the tokenizer), ends trimmed."""
    return "".join(letter for letter in line if letter in "\n\t" or letter.isprintable() or letter == "\u200d").strip()
