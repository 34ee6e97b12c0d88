"""Cut long videos into their scenes: a file for each, so that no clip of a training has a cut in its middle.

Videos are decoded and encoded in processes of their own. Nothing is written to the folder they come from, and no file
is overwritten; what an earlier run wrote is left alone.
"""

from __future__ import annotations

import math
import shutil
import time
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from ltxtrain.errors import ConfigError, DataError, Fault, MachineError
from ltxtrain.events import Event, Notice, StageDone, StageProgress, StageStarted
from ltxtrain.facts.children import Children, Reply, Task, usable_workers
from ltxtrain.facts.index_walk import Rejected, walk_folder
from ltxtrain.facts.media import IMAGE_EXTENSIONS, MAX_FRAMES, MAX_SECONDS, VIDEO_EXTENSIONS
from ltxtrain.facts.media_facts import printable
from ltxtrain.files import replaced, room_at, write_atomically
from ltxtrain.prepare.places import inside
from ltxtrain.prepare.scenes_child import Cut
from ltxtrain.prepare.scenes_record import Scene, add_scenes, check_same, read_scenes
from ltxtrain.units import counted, format_bytes

CHILD = "ltxtrain.prepare.scenes_child"
MEMORY = 3 << 30
LEAST_SECONDS = 120.0
SECONDS_PER_MB = 4.0
SECONDS_PER_PICTURE = 2.0
ROOM_BYTES = 8 << 20
MOST_BYTES = 1 << 30  # of one scene
INSTALL_AGAIN = "make setup, or install ltxtrain's packages again"
DETECTORS = ("content", "adaptive")


@dataclass(frozen=True)
class SplitRule:
    """``threshold`` None is the detector's own (27 for content, 3 for adaptive). Shorter scenes are not written."""

    detector: str = "content"
    threshold: float | None = None
    min_seconds: float = 1.0

    def __post_init__(self) -> None:
        faults = []
        if self.detector not in DETECTORS:
            faults.append(Fault("--detector", f"{self.detector!r} is none of {', '.join(DETECTORS)}"))
        if self.threshold is not None and not 0 < self.threshold <= 255:
            faults.append(Fault("--threshold", f"{self.threshold} is not between 0 and 255"))
        if not 0 <= self.min_seconds < math.inf:
            faults.append(Fault("--min-seconds", f"{self.min_seconds} is no length"))
        if faults:
            raise ConfigError(faults, hint="`ltxtrain dataset split --help` shows what each of them takes")

    @property
    def text(self) -> str:
        threshold = "" if self.threshold is None else f" {self.threshold:g}"
        return f"{self.detector}{threshold}, at least {self.min_seconds:g} s"


@dataclass(frozen=True)
class Source:
    """``stem`` is what the files of its scenes are called, with a number after it; ``seconds`` bounds its decoding."""

    name: str
    path: Path
    stem: str
    stamp: tuple[int, int]

    @property
    def seconds(self) -> float:
        return LEAST_SECONDS + SECONDS_PER_MB * self.stamp[0] / 1e6


@dataclass(frozen=True)
class Split:
    """``scenes`` of all sources, also those too short to be written; ``written`` files now; ``failed`` with why."""

    scenes: tuple[Scene, ...]
    written: int
    failed: tuple[Rejected, ...]


@dataclass(frozen=True)
class Asked:
    """``to`` None: nothing is written, the cuts are only found."""

    root: Path
    to: Path | None
    rule: SplitRule
    copy_captions: bool = False


def iter_split(asked: Asked) -> Generator[Event, None, Split]:
    """Find the scenes of all videos below ``asked.root`` and write a file for each to ``asked.to``.

    A video that cannot be read is told and in ``failed``; the others go on. Raises ``ConfigError``, ``DataError`` and
    ``MachineError`` for what concerns all of them.
    """
    if find_spec("scenedetect") is None:
        raise MachineError("the package scenedetect is missing", hint='pip install "ltxtrain[scenes]"')
    sources, failed = find_sources(asked.root)
    if asked.to is not None:
        _check_apart(asked.root, asked.to)
    recorded = read_scenes(asked.to) if asked.to is not None else {}
    known = {source.name: recorded.get(source.name, []) for source in sources}
    for source in sources:
        check_same(known[source.name], source.stamp, asked.rule.text)
    for rejected in failed:
        yield Notice(f"{rejected.name}: {rejected.detail}", "warning")
    with Children(CHILD, usable_workers(), MEMORY) as children:
        yield from _find_all(asked, children, [source for source in sources if not known[source.name]], known, failed)
        scenes = [scene for source in sources for scene in known[source.name]]
        written = 0
        if asked.to is not None:
            written = yield from _write_all(asked, children, sources, scenes, failed)
    return Split(tuple(scenes), written, tuple(failed))


def find_sources(root: Path) -> tuple[list[Source], list[Rejected]]:
    """The videos below ``root``, and what is none. Raises ``DataError`` where there is no video at all."""
    walk = walk_folder(root, VIDEO_EXTENSIONS, IMAGE_EXTENSIONS)
    if not walk.files:
        raise DataError(f"no videos in {root}", hint="name the folder that holds them")
    stems = _stems(list(walk.files))
    sources = []
    for name, path in walk.files.items():
        status = Path(path).stat()
        sources.append(Source(name, Path(path), stems[name], (status.st_size, status.st_mtime_ns)))
    return sources, list(walk.rejected.values())


def _stems(names: Sequence[str]) -> dict[str, str]:
    """A stem for each name, no two alike: ``a.mkv`` beside ``a.mp4`` is ``a-mkv``."""
    taken: set[str] = set()
    stems = {}
    for name in names:
        path = PurePosixPath(name)
        stem = str(path.with_suffix(""))
        if stem.lower() in taken:
            stem = f"{stem}-{path.suffix[1:]}"
        while stem.lower() in taken:
            stem += "-2"
        taken.add(stem.lower())
        stems[name] = stem
    return stems


def _check_apart(root: Path, to: Path) -> None:
    ours, theirs = to.resolve(), root.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise ConfigError(
            [Fault("--to", f"{to} and {root} lie in each other, and nothing is written to the videos' folder")],
            hint="name a folder beside it",
        )


def _find_all(
    asked: Asked, children: Children, sources: list[Source], known: dict[str, list[Scene]], failed: list[Rejected]
) -> Iterator[Event]:
    """Look for the scenes of ``sources`` into ``known``, and record them."""
    if not sources:
        return
    started = time.monotonic()
    yield StageStarted("scenes", len(sources), unit="videos")
    rule = asked.rule
    settings = {"do": "find", "detector": rule.detector, "threshold": rule.threshold}
    tasks = (Task(settings | {"path": str(source.path)}, source.seconds) for source in sources)
    for done, (source, reply) in enumerate(zip(sources, children.run(tasks), strict=True), 1):
        try:
            scenes = _scenes(source, reply, rule)
        except (DataError, ValueError, TypeError, KeyError, ArithmeticError) as error:
            failed.append(Rejected(source.name, "damaged", str(error)))
            yield Notice(f"{source.name}: {error}", "warning")
        else:
            known[source.name] = scenes
            if asked.to is not None:
                with room_at(asked.to, 1 << 20, "the record"):
                    add_scenes(asked.to, scenes)
        yield StageProgress("scenes", done, source.name)
    found = sum(len(known[source.name]) for source in sources)
    yield StageDone("scenes", time.monotonic() - started, counted(found, "scene"))


def _answer(reply: Reply) -> dict[str, Any]:
    """What a child answered. Raises ``DataError`` with why it could not, ``MachineError`` where a library is broken."""
    if reply.answer is None:
        raise DataError(reply.detail)
    if "unloaded" in reply.answer:
        unloaded = printable(str(reply.answer["unloaded"]))
        raise MachineError(f"PySceneDetect cannot be loaded: {unloaded}", hint=INSTALL_AGAIN)
    if "failed" in reply.answer:
        raise DataError(str(reply.answer["failed"])[:300])
    return reply.answer


def _scenes(source: Source, reply: Reply, rule: SplitRule) -> list[Scene]:
    said = _answer(reply)
    rate, end_s = Fraction(said["fps"]), float(said["end_s"])
    begins = [float(second) for second in said["begins_s"]]
    ascending = all(earlier < later for earlier, later in pairwise([*begins, end_s]))
    if not 0 < rate < 10_000 or not begins or begins[0] != 0 or not ascending or not end_s <= MAX_SECONDS + 1:
        raise DataError("its timestamps do not go forward")
    blank = Scene("", source.name, 0, 0, 0, str(rate), "too-short", rule.text, *source.stamp)
    scenes = []
    for number, (start_s, stop_s) in enumerate(pairwise([*begins, end_s]), 1):
        frames = max(1, round((stop_s - start_s) * rate))
        if frames > MAX_FRAMES:
            raise DataError(f"a scene of {frames} frames: at most {MAX_FRAMES} are written")
        scene = replace(blank, start_s=round(start_s, 6), end_s=round(stop_s, 6), frames=frames)
        if stop_s - start_s >= rule.min_seconds - 0.5 / float(rate):
            whole = len(begins) == 1
            suffix = source.path.suffix if whole else ".mp4"
            scene = replace(scene, file=f"{source.stem}-{number:03d}{suffix}", how="copied" if whole else "encoded")
        scenes.append(scene)
    return scenes


def _write_all(
    asked: Asked, children: Children, sources: list[Source], scenes: list[Scene], failed: list[Rejected]
) -> Generator[Event, None, int]:
    """Write the files that are not there yet. Returns how many."""
    assert asked.to is not None
    to, started = asked.to, time.monotonic()
    paths = {source.name: source for source in sources}
    wanted = [scene for scene in scenes if scene.file]
    missing = [scene for scene in wanted if not inside(to, scene.file).exists()]
    yield StageStarted("clips", len(wanted), len(wanted) - len(missing), "clips")
    encoded = [scene for scene in missing if scene.how == "encoded"]
    frames = Counter[str]()
    for scene in scenes:
        frames[scene.source] += scene.frames
    tasks = [_encoding(paths[scene.source], scene, frames[scene.source]) for scene in encoded]
    films = zip(tasks, children.run(tasks), strict=True)
    written = len(wanted) - len(missing)
    for scene in [*encoded, *(scene for scene in missing if scene.how != "encoded")]:
        target = inside(to, scene.file)
        try:
            with room_at(to, scene.source_bytes, scene.file):
                if scene.how == "encoded":
                    write_atomically(target, _film(children, *next(films)))
                else:
                    _copy(paths[scene.source].path, target)
        except DataError as error:
            failed.append(Rejected(scene.source, "damaged", error.message))
            yield Notice(f"{scene.source}, {scene.start_s:.2f} s: {error.message}", "warning")
            continue
        written += 1
        yield StageProgress("clips", written, scene.file)
    if asked.copy_captions:
        _copy_captions(paths, wanted, to)
    now = written - len(wanted) + len(missing)
    yield StageDone("clips", time.monotonic() - started, f"{counted(now, 'clip')} written")
    return now


def _film(children: Children, task: Task, reply: Reply) -> bytes:
    """The mp4 of a scene. One that had too little room is asked for again with as much as it needs."""
    needs = _answer(reply).get("needs")
    if needs is None:
        return bytes(reply.data)
    if type(needs) is not int or not 0 < needs <= MOST_BYTES:
        raise DataError(f"the scene is larger than {format_bytes(MOST_BYTES)}")
    (again,) = children.run([replace(task, most_bytes=needs)])
    if "needs" in _answer(again):
        raise DataError("the scene is encoded to another size each time")
    return bytes(again.data)


def _encoding(source: Source, scene: Scene, all_frames: int) -> Task:
    cut = Cut(scene.start_s, scene.frames, scene.fps)
    payload = {"do": "encode", "path": str(source.path), "cut": asdict(cut)}
    # The room is set aside as a whole: a few times what the source has for this scene is mostly enough.
    most_bytes = min(MOST_BYTES, ROOM_BYTES + 4 * source.stamp[0] * scene.frames // all_frames)
    return Task(payload, source.seconds + SECONDS_PER_PICTURE * scene.frames, most_bytes)


def _copy(source: Path, target: Path) -> None:
    """A video that is one scene is copied, not encoded a second time."""
    with source.open("rb") as film, replaced(target) as stream:
        shutil.copyfileobj(film, stream, 1 << 20)


def _copy_captions(sources: dict[str, Source], scenes: list[Scene], to: Path) -> None:
    """The caption beside a video, beside each of its scenes that has none yet."""
    for scene in scenes:
        caption = sources[scene.source].path.with_suffix(".txt")
        target = inside(to, str(PurePosixPath(scene.file).with_suffix(".txt")))
        if caption.is_file() and not caption.is_symlink() and not target.exists() and (to / scene.file).exists():
            write_atomically(target, caption.read_bytes())
