"""Where the largest face is in a frame of a clip: what ``crop_style`` face cuts around.

Frames are decoded and searched in processes of their own (``face_child``). Where a face is depends on the file alone,
so it is remembered, by the file's size and times.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ltxtrain.errors import MachineError
from ltxtrain.facts.children import Children, Reply, Task, usable_workers
from ltxtrain.facts.media_facts import printable
from ltxtrain.files import write_atomically

MEMORY_BYTES = 4 * 1024**3
SECONDS = 60.0
NOTE = "faces-1.json"  # another search, or another answer, needs another name
MOST_NOTED = 200_000
MOST_TOLD = 3

Centre = tuple[float, float]  # parts of the displayed width and height


@dataclass(frozen=True)
class FaceRequest:
    """The frame that a clip shows ``seconds`` after its first one; an image is one frame."""

    path: Path
    seconds: float
    kind: str = "video"

    @property
    def key(self) -> str:
        return f"{self.seconds:.3f} {self.path}"


def find_faces(requests: Sequence[FaceRequest], memo: Path | None = None) -> list[Centre | None]:
    """The middle of the largest face of each frame, in the order given; None where none is found, or where the frame
    cannot be looked at: that is told.

    ``memo`` is a folder of remembered facts. Raises ``MachineError`` where OpenCV, which looks, cannot be loaded.
    """
    if not requests:
        return []
    noted = _read_notes(memo)
    stamps = [_stamp(request.path) for request in requests]
    known = {
        index: noted[request.key]["face"]
        for index, (request, stamp) in enumerate(zip(requests, stamps, strict=True))
        if stamp is not None and noted.get(request.key, {}).get("stamp") == stamp
    }
    failed: list[str] = []
    todo = [index for index in range(len(requests)) if index not in known]
    with Children("ltxtrain.facts.face_child", min(usable_workers(), max(1, len(todo))), MEMORY_BYTES) as children:
        tasks = (_task(requests[index]) for index in todo)
        for index, reply in zip(todo, children.run(tasks), strict=True):
            _check_loaded(reply)
            known[index] = _face_of(reply)
            if reply.answer is not None and "face" in reply.answer and stamps[index] is not None:
                noted[requests[index].key] = {"stamp": stamps[index], "face": known[index]}
            elif why := _why_not(reply):
                failed.append(f"{printable(str(requests[index].path))}: {why}")
    if todo:
        _write_notes(memo, noted)
    if failed:
        words = f"no face could be looked for in {len(failed)} of {len(requests)} frames; they are cut in their middle"
        logging.getLogger(__name__).warning("%s: %s", words, "; ".join(failed[:MOST_TOLD]))
    faces = (known[index] for index in range(len(requests)))
    return [None if face is None else (face[0], face[1]) for face in faces]


def _task(request: FaceRequest) -> Task:
    return Task({"path": str(request.path), "seconds": request.seconds, "kind": request.kind}, SECONDS)


def _check_loaded(reply: Reply) -> None:
    """Without this, an incomplete installation would look like clips that show no face."""
    unloaded = (reply.answer or {}).get("unloaded")
    if isinstance(unloaded, str):
        raise MachineError(
            f"crop_style face: OpenCV cannot be loaded: {printable(unloaded)}",
            hint="make setup, or install ltxtrain's packages again",
        )


def _face_of(reply: Reply) -> list[float] | None:
    """What a child says is looked at before it is believed. A frame that cannot be decoded is told when it is used."""
    face: Any = (reply.answer or {}).get("face")
    return [float(part) for part in face] if _is_centre(face) else None


def _why_not(reply: Reply) -> str:
    """What kept the child from looking; nothing where it looked."""
    if reply.answer is None:
        return printable(reply.detail)
    return "" if "face" in reply.answer else printable(str(reply.answer.get("failed", "it says nothing of a face")))


def _is_centre(face: object) -> bool:
    return isinstance(face, list) and len(face) == 2 and all(isinstance(p, (int, float)) and 0 <= p <= 1 for p in face)


def _stamp(path: Path) -> list[int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _read_notes(memo: Path | None) -> dict[str, dict[str, Any]]:
    try:
        noted = json.loads((memo / NOTE).read_bytes()) if memo else {}
    except (OSError, ValueError):
        return {}
    good = noted if isinstance(noted, dict) else {}
    return {
        key: note
        for key, note in good.items()
        if isinstance(note, dict) and "face" in note and (note["face"] is None or _is_centre(note["face"]))
    }


def _write_notes(memo: Path | None, noted: dict[str, dict[str, Any]]) -> None:
    """Where that folder cannot be written, faces are looked for again the next time."""
    if memo is None:
        return
    latest = dict(list(noted.items())[-MOST_NOTED:])
    with suppress(OSError):
        write_atomically(memo / NOTE, json.dumps(latest, separators=(",", ":")))
