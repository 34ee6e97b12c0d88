"""Write a caption for each clip that has none, by a model that sees some of its frames.

What is there is kept, what fails is told and left for the next run. Clips are opened in processes of their own.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from ltxtrain.errors import ConfigError, DataError, Fault, MachineError
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.facts.access import may_write, nearest, owner_text
from ltxtrain.facts.captions import CaptionFault, read_caption_file
from ltxtrain.facts.children import Children, Reply, Task, usable_workers
from ltxtrain.facts.index_walk import Rejected, stem_of, walk_folder
from ltxtrain.facts.media import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS
from ltxtrain.files import make_folder, write_atomically
from ltxtrain.prepare.captioner_ask import Answer, Endpoint, ask
from ltxtrain.prepare.lint import MAX_TOKENS, estimated_tokens
from ltxtrain.units import counted

if TYPE_CHECKING:
    import httpx

CHILD = "ltxtrain.prepare.captioner_child"
STAGE = "captions"
MEMORY = 2 << 30
DECODE_SECONDS = 60.0
SECONDS_PER_MB = 1.0
MOST_BYTES = 1 << 20  # of one JPEG
MOST_FRAMES = 32
MOST_PARALLEL = 64
GIVE_UP = 10  # clips that fail one after the other: the next ones would, too


@dataclass(frozen=True)
class Asked:
    """``output`` None: a .txt beside each clip. ``trigger`` is put in front of each caption."""

    root: Path
    endpoint: Endpoint
    prompt: str
    frames: int = 4
    parallel: int = 4
    trigger: str = ""
    overwrite: bool = False
    output: Path | None = None

    def __post_init__(self) -> None:
        faults = []
        if not 1 <= self.frames <= MOST_FRAMES:
            faults.append(Fault("--frames", f"{self.frames} is not between 1 and {MOST_FRAMES}"))
        if not 1 <= self.parallel <= MOST_PARALLEL:
            faults.append(Fault("--parallel", f"{self.parallel} is not between 1 and {MOST_PARALLEL}"))
        if not 0 < self.endpoint.timeout_s <= 3600:
            faults.append(Fault("--timeout", f"{self.endpoint.timeout_s} is not between 0 and 3600 seconds"))
        if not self.prompt.strip():
            faults.append(Fault("--prompt", "is empty"))
        if not self.trigger.isprintable():
            faults.append(Fault("--trigger", "is more than one line"))
        if self.output is not None and self.output.suffix.lower() != ".jsonl":
            faults.append(Fault("--output", f"{self.output} does not end in .jsonl"))
        if self.output is not None and self.overwrite:
            faults.append(Fault("--overwrite", "writes .txt files anew; name another table for new captions"))
        if faults:
            raise ConfigError(faults, hint="`ltxtrain dataset caption --help` shows what each of them takes")


@dataclass(frozen=True)
class Captioned:
    """``written`` now, ``kept`` from before, ``failed`` with why; ``long`` are those that T5 will cut off."""

    written: int
    kept: int
    failed: tuple[Rejected, ...]
    long: tuple[str, ...]


@dataclass(frozen=True)
class Clip:
    name: str
    path: Path

    @property
    def caption(self) -> Path:
        return self.path.with_suffix(".txt")


def iter_caption(asked: Asked) -> Generator[Event, None, Captioned]:
    """Caption the clips below ``asked.root``. Raises ``ConfigError``, ``DataError`` and ``MachineError`` for what
    concerns all of them; captions that were written until then stay."""
    import httpx

    clips, failed = _clips(asked.root, beside=asked.output is None)
    for rejected in failed:
        yield Notice(f"{rejected.name}: {rejected.detail}", "warning")
    if asked.output is not None:
        there = _rows(asked.output)
        wanted = [clip for clip in clips if clip.name not in there]
    else:
        wanted = [clip for clip in clips if asked.overwrite or not has_caption(clip)]
    kept = len(clips) - len(wanted)
    _check_writable(asked, wanted)
    if asked.endpoint.open_key:
        yield Notice(f"the key goes to {asked.endpoint.host} by http, where others can read it", "warning")
    long: list[str] = []
    written = 0
    if wanted:
        with httpx.Client(follow_redirects=False) as client:
            written = yield from _Work(asked, client, failed, long).run(wanted, kept)
    if long:
        told = f"{counted(len(long), 'caption')} longer than the {MAX_TOKENS} tokens that LTX-Video reads: "
        yield Notice(f"{told}{', '.join(long[:5])}{' ...' if len(long) > 5 else ''}", "warning")
    return Captioned(written, kept, tuple(failed), tuple(long))


def _clips(root: Path, beside: bool) -> tuple[list[Clip], list[Rejected]]:
    """All videos and images. With a .txt ``beside`` each, two of one stem would share it: the second is refused. So is
    one beside whose name lies a link or a pipe, which no run reads and nobody may overwrite here."""
    walk = walk_folder(root, VIDEO_EXTENSIONS | IMAGE_EXTENSIONS, frozenset())
    if not walk.files:
        raise DataError(f"no clips in {root}", hint="name the folder that holds them")
    clips, failed, stems = [], list(walk.rejected.values()), dict[str, str]()
    for name, path in walk.files.items():
        clip = Clip(name, Path(path))
        other = stems.setdefault(str(clip.caption), name)
        if beside and other != name:
            failed.append(Rejected(name, "bad-caption", f"{clip.caption.name} is the caption of {other}; rename one"))
        elif beside and f"{stem_of(name)}.txt" not in walk.texts and os.path.lexists(clip.caption):
            failed.append(Rejected(name, "bad-caption", f"{clip.caption.name} is a link or no plain file; remove it"))
        else:
            clips.append(clip)
    return clips, failed


def has_caption(clip: Clip) -> bool:
    """An empty file is none. What cannot be read is somebody's."""
    try:
        return bool(read_caption_file(clip.caption).strip()) if os.path.lexists(clip.caption) else False
    except CaptionFault:
        return True


def _rows(path: Path) -> set[str]:
    """The clips that a table has captions for. A last line that a kill cut off is taken away."""
    if not os.path.lexists(path):
        return set()
    if not path.is_file():
        raise DataError(f"{path} is no file", hint="name another one with --output")
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    try:
        rows = [json.loads(line) for line in whole.splitlines() if line.strip()]
        names = {str(row["file_name"]) for row in rows}
    except (ValueError, LookupError, TypeError, RecursionError):
        raise DataError(f"{path} is another table, and is left alone", hint="name another file with --output") from None
    if whole != content:
        os.truncate(path, len(whole))
    return names


def _check_writable(asked: Asked, wanted: Sequence[Clip]) -> None:
    """Before the first request: each of them may cost money."""
    folders = {clip.path.parent for clip in wanted} if asked.output is None else {nearest(asked.output.parent)}
    for folder in sorted(folders):
        if not may_write(folder):
            hint = "--output FILE.jsonl writes a table elsewhere" if asked.output is None else "name a file elsewhere"
            raise MachineError(f"nothing can be written to {folder}: it {owner_text(folder)}", hint=hint)


class _Work:
    """The requests under way: at most ``parallel``, each in a thread that does not keep the program from ending."""

    def __init__(self, asked: Asked, client: httpx.Client, failed: list[Rejected], long: list[str]) -> None:
        self._asked, self._client, self._failed, self._long = asked, client, failed, long
        self._done: SimpleQueue[tuple[Clip, Answer | None]] = SimpleQueue()
        self._stop = threading.Event()
        self._in_a_row = self.written = 0

    def run(self, clips: Sequence[Clip], kept: int) -> Generator[Event, None, int]:
        """Returns how many captions were written."""
        started, under_way, finished = time.monotonic(), 0, kept
        yield StageStarted(STAGE, kept + len(clips), kept, "clips")
        tasks = (_frames_task(clip, self._asked.frames) for clip in clips)
        try:
            with Children(CHILD, min(usable_workers(), self._asked.parallel), MEMORY) as children:
                for clip, reply in zip(clips, children.run(tasks), strict=True):
                    jpegs, why = _jpegs(reply)
                    if why:
                        yield self._fail(clip, why)
                        finished += 1
                        continue
                    threading.Thread(target=self._ask, args=(clip, jpegs), daemon=True).start()
                    under_way += 1
                    while under_way >= self._asked.parallel or not self._done.empty():
                        yield from self._take()
                        under_way, finished = under_way - 1, finished + 1
                        yield StageProgress(STAGE, finished)
            for _ in range(under_way):
                yield from self._take()
                finished += 1
                yield StageProgress(STAGE, finished)
        finally:
            self._stop.set()
        yield StageDone(STAGE, time.monotonic() - started, f"{counted(self.written, 'caption')} written")
        return self.written

    def _ask(self, clip: Clip, jpegs: list[bytes]) -> None:
        answer = None
        try:
            prompt = self._asked.prompt.replace("{frames}", str(len(jpegs)))
            answer = ask(self._client, self._asked.endpoint, prompt, jpegs, self._stop.wait)
        finally:
            self._done.put((clip, answer))

    def _take(self) -> Iterator[Event]:
        """One answer: written, or told. Raises ``MachineError`` where the others would fail as well."""
        clip, answer = self._done.get()
        if answer is None:
            raise RuntimeError(f"the question about {clip.name} ended without an answer")
        if answer.stop:
            raise MachineError(answer.stop, hint="correct --endpoint, --model or the key; run again, and it goes on")
        if answer.failure:
            self._in_a_row += 1
            yield self._fail(clip, answer.failure)
            if self._in_a_row >= GIVE_UP:
                why = f"{GIVE_UP} clips failed one after the other, the last one because {answer.failure}"
                raise DataError(why, hint="look at the server, then run again: it goes on")
            return
        self._in_a_row = 0
        self._write(clip, f"{self._asked.trigger} {answer.caption}".strip())

    def _fail(self, clip: Clip, why: str) -> Notice:
        self._failed.append(Rejected(clip.name, "no-caption", why))
        return Notice(f"{clip.name}: {why}", "warning")

    def _write(self, clip: Clip, caption: str) -> None:
        if estimated_tokens(caption) > MAX_TOKENS:
            self._long.append(clip.name)
        if self._asked.output is None:
            write_atomically(clip.caption, f"{caption}\n")
        else:
            _add_row(self._asked.output, {"file_name": clip.name, "caption": caption})
        self.written += 1


def _frames_task(clip: Clip, frames: int) -> Task:
    kind = "image" if clip.path.suffix.lower() in IMAGE_EXTENSIONS else "video"
    try:
        size = clip.path.stat().st_size
    except OSError:
        size = 0  # gone since it was found: the child tells
    seconds = DECODE_SECONDS + SECONDS_PER_MB * size / 1e6
    return Task({"path": str(clip.path), "frames": frames, "kind": kind}, seconds, MOST_BYTES * frames)


def _jpegs(reply: Reply) -> tuple[list[bytes], str]:
    """The pictures that a child gave, or why it gave none."""
    if reply.answer is None:
        return [], reply.detail
    if "failed" in reply.answer:
        return [], str(reply.answer["failed"])[:300]
    sizes = reply.answer.get("sizes")
    whole = isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)
    if not isinstance(sizes, list) or not whole or not sizes or sum(sizes) != len(reply.data):
        return [], "the process that opened it says what it must not"
    ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
    return [bytes(reply.data[end - size : end]) for size, end in zip(sizes, ends, strict=True)], ""


def _add_row(path: Path, row: dict[str, str]) -> None:
    make_folder(path.parent)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        left = memoryview(f"{json.dumps(row, ensure_ascii=False)}\n".encode())
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
