"""``scenes.jsonl``: from where to where each file of a split comes. What it holds is not looked for again."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ltxtrain.errors import ConfigError, DataError, Fault
from ltxtrain.files import make_folder, sync_folder

RECORD = "scenes.jsonl"


@dataclass(frozen=True)
class Scene:
    """One scene of ``source``. ``file`` is empty where it is too short to be written; ``how``: encoded or copied.

    Seconds count from the clip's first frame. ``rule``, ``source_bytes`` and ``source_mtime_ns`` say what the cuts
    were found with: with anything else they would be others.
    """

    file: str
    source: str
    start_s: float
    end_s: float
    frames: int
    fps: str
    how: str
    rule: str
    source_bytes: int
    source_mtime_ns: int


def read_scenes(root: Path) -> dict[str, list[Scene]]:
    """The scenes that are recorded in ``root``, by their source. A line that a kill cut off is taken away first."""
    path = root / RECORD
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    try:
        scenes = [_scene(json.loads(line)) for line in whole.split(b"\n")[:-1]]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="name another folder with --to") from error
    found: dict[str, list[Scene]] = {}
    for scene in scenes:
        found.setdefault(scene.source, []).append(scene)
    return found


def _scene(row: object) -> Scene:
    if not isinstance(row, dict):
        raise TypeError("a line is no JSON object")
    kinds = {"str": (str,), "int": (int,), "float": (int, float)}
    for name, kind in Scene.__annotations__.items():
        if not isinstance(row.get(name), kinds[kind]):
            raise TypeError(f"a line has no {name}")
    return Scene(**row)


def add_scenes(root: Path, scenes: list[Scene]) -> None:
    """Add the lines of one source, before its files are written: so that a later run knows whose they are."""
    make_folder(root)
    lines = "".join(f"{json.dumps(asdict(scene), ensure_ascii=False)}\n" for scene in scenes)
    descriptor = os.open(root / RECORD, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        left = memoryview(lines.encode())
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(root)


def check_same(scenes: list[Scene], stamp: tuple[int, int], rule: str) -> None:
    """Raises ``ConfigError`` where the recorded ``scenes`` of a source are of another content or of other settings."""
    for scene in scenes:
        if (scene.source_bytes, scene.source_mtime_ns) != stamp:
            why = "has changed since it was cut"
        elif scene.rule != rule:
            why = f"was cut with other settings ({scene.rule})"
        else:
            continue
        raise ConfigError(
            [Fault("--to", f"{scene.source} {why}, and its scenes are there")], hint="name another folder"
        )
