"""From the text that a source gives for a clip to the captions that are trained on. They are alternatives.

What is done, in order: control characters go, ``caption_filter_list`` takes out or replaces, ``caption_shuffle`` adds
copies with the tags in another order, and the instance prompt is put in front. Each alternative is treated alone.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

from ltxtrain.config import CaptionRule
from ltxtrain.config.datasets import ShuffleRule
from ltxtrain.errors import DataError
from ltxtrain.facts.reasons import Reason

MAX_CAPTION_BYTES = 64 * 1024
EMPTIED = "caption_filter_list leaves nothing of"  # so begins the fault of a caption that the filters take out
FROM_TABLE = ("parquet", "csv", "jsonl", "huggingface")

# A filter with one of these is a regular expression; a dot alone is more often the end of a sentence.
_REGULAR = frozenset("\\^$*+?{}[]|()")
_REPLACE = re.compile(r"s/((?:[^/\\]|\\.)+)/((?:[^/\\]|\\.)*)(?:/([gi]*))?", flags=re.DOTALL)
_TRIES = 4  # for each copy: with few tags, an order often comes up twice

Edit = Callable[[str], str]


class CaptionFault(Exception):
    """This clip has no caption that can be used: the reason's code, and a sentence."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason: Reason = reason
        self.detail = detail


class Captions:
    """The rule of one data set, made ready once for all of its clips. ``seed`` is the run's.

    Raises ``DataError`` for a filter that is no regular expression.
    """

    def __init__(self, rule: CaptionRule, seed: int = 0) -> None:
        self.rule = rule
        self.instance = (rule.instance_prompt or "").strip()
        self.fixed = rule.only_instance_prompt or rule.strategy == "instanceprompt"
        self._edits = tuple(_edit(text) for text in rule.filters)
        self._seed = seed

    def of_instance(self) -> tuple[str, ...]:
        """``instance_prompt`` for every clip, as it is written."""
        if not self.instance:
            raise CaptionFault("no-caption", "instance_prompt is empty")
        return (self.instance,)

    def of_filename(self, stem: str, name: str) -> tuple[str, ...]:
        return self.finished([stem.replace("_", " ")], name)

    def of_textfile(self, path: str, name: str) -> tuple[str, ...]:
        """Of the regular file ``path``, which is no link out of the folder."""
        text = read_caption_file(path)
        lines = [text] if self.rule.disable_multiline_split else text.splitlines()
        return self.finished(lines, name, f"{path.rpartition('/')[2]} is empty")

    def finished(self, texts: Sequence[str], name: str, nothing: str = "its caption is empty") -> tuple[str, ...]:
        """The captions that come of ``texts``, never none. Raises ``CaptionFault``: ``nothing`` where all are empty."""
        kept = [text for text in map(trainable, texts) if text]
        if not kept:
            raise CaptionFault("no-caption", nothing)
        if self._edits:
            kept = self._filtered(kept)
        shuffle = self.rule.shuffle
        if shuffle is not None:
            seed = self._seed if shuffle.seed is None else shuffle.seed
            kept = [copy for text in kept for copy in shuffled(text, shuffle, f"{seed}:{name}")]
        if self.rule.prepend_instance_prompt and self.instance:
            return tuple(f"{self.instance} {text}" for text in kept)
        return tuple(kept)

    def _filtered(self, texts: list[str]) -> list[str]:
        kept = []
        for text in texts:
            changed = text
            for edit in self._edits:
                changed = edit(changed)
            if left := text if changed == text else _tidy(changed):
                kept.append(left)
        if not kept:
            raise CaptionFault("no-caption", f"{EMPTIED} {_short(texts[0])}")
        return kept


def read_caption_file(path: str | Path) -> str:
    """UTF-8, with or without a byte order mark. Anything else is told with the place, not guessed."""
    try:
        return _read(path).decode().removeprefix("\ufeff")
    except OSError as error:
        raise CaptionFault("bad-caption", f"{Path(path).name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        if error.object.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise CaptionFault("bad-caption", f"{Path(path).name} is UTF-16; save it again as UTF-8") from error
        where = f"{Path(path).name} is not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise CaptionFault("bad-caption", f"{where}; save it again as UTF-8") from error


def _read(path: str | Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # it may have become a FIFO since it was found
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise CaptionFault("bad-caption", f"{Path(path).name} is not a regular file")
        if status.st_size > MAX_CAPTION_BYTES:
            raise CaptionFault("bad-caption", f"{Path(path).name} has {status.st_size} bytes: too long for a caption")
        return os.read(descriptor, status.st_size)
    finally:
        os.close(descriptor)


def trainable(text: str) -> str:
    """Without control characters (a NUL from a broken editor must not reach the tokenizer), ends trimmed. Blanks of
    other kinds, such as the one that does not break a line, become plain ones."""
    if text.isprintable():
        return text.strip()
    return "".join(map(_printed, text)).strip()


def _printed(letter: str) -> str:
    if letter in "\n\t\u200c\u200d" or letter.isprintable():  # the two joiners are part of words and of emoji
        return letter
    return " " if letter.isspace() and letter != "\r" else ""


def shuffled(caption: str, rule: ShuffleRule, key: str) -> list[str]:
    """``rule.count`` copies of ``caption`` with its tags after ``position_start`` in other orders, all different.

    The orders depend on ``key`` and the caption alone. With too few tags there is only the caption itself; where there
    are fewer orders than copies asked for, there are as many copies as orders are met with.
    """
    tags, join = _tags(caption, rule.split_on)
    if len(tags) < rule.position_start + 2:
        return [caption]
    first, rest = tags[: rule.position_start], tags[rule.position_start :]
    found = [caption] if rule.include_original else []
    wanted = rule.count + len(found)
    for turn in range(rule.count * _TRIES):
        if len(found) == wanted:
            break
        copy = join(first + _ordered(rest, f"{key}:{turn}:{caption}"))
        if copy not in found:
            found.append(copy)
    return found


def _ordered(tags: list[str], key: str) -> list[str]:
    """By the digests of key and place: an order that no other Python or machine changes."""
    return [
        tag for _, tag in sorted((sha256(f"{key}:{place}".encode()).digest(), tag) for place, tag in enumerate(tags))
    ]


def _tags(caption: str, split_on: str) -> tuple[list[str], Callable[[list[str]], str]]:
    if split_on == "space":
        return caption.split(), " ".join
    mark = {"comma": ",", "period": "."}[split_on]
    tags = [tag for tag in (part.strip() for part in caption.split(mark)) if tag]
    end = "." if split_on == "period" and caption.rstrip().endswith(".") else ""
    return tags, lambda ordered: f"{mark} ".join(ordered) + end


def _edit(text: str) -> Edit:
    """One entry of ``caption_filter_list``: ``s/search/replace/``, a regular expression to delete, or plain words."""
    try:
        replacing = _REPLACE.fullmatch(text)
        if replacing:
            search, replacement, flags = replacing.groups()
            pattern = re.compile(search.replace("\\/", "/"), re.IGNORECASE if "i" in (flags or "") else 0)
            replacement = replacement.replace("\\/", "/")
            pattern.sub(replacement, "")  # a reference to a group that is not there shows now
            return lambda caption: pattern.sub(replacement, caption)
        pattern = _whole_words(text.strip()) if _REGULAR.isdisjoint(text) else re.compile(text)
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        raise DataError(
            f"caption_filter_list: {_short(text)} is no regular expression: {error}",
            hint="put a backslash in front of each sign that is meant as it stands",
        ) from error
    return lambda caption: pattern.sub("", caption)


def _whole_words(text: str) -> re.Pattern[str]:
    """``art`` is taken out of "art, a cart", but not out of the cart."""
    before = r"(?<!\w)" if text[:1].isalnum() else ""
    after = r"(?!\w)" if text[-1:].isalnum() else ""
    return re.compile(f"{before}{re.escape(text)}{after}") if text else re.compile(r"(?!)")


def _tidy(caption: str) -> str:
    """Without the double blanks and lone commas that stay behind where something was taken out."""
    text = re.sub(r"[ \t]+", " ", caption)
    text = re.sub(r" ?,(?: ?,)+", ",", text)
    text = re.sub(r" (?=[,.;:!?](?:\s|$))", "", text)
    return re.sub(r"^[\s,;.:!?]+|[\s,;]+$", "", text)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
