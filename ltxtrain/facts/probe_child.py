"""What a child does that probes media: ``python -m ltxtrain.facts.probe_child``, started by ``facts/children.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ltxtrain.facts.children_serve import serve
from ltxtrain.facts.media import MediaError, probe_file
from ltxtrain.facts.media_facts import plain
from ltxtrain.facts.media_frames import picture_at


def answer(task: dict[str, Any], room: memoryview) -> tuple[dict[str, Any], int]:
    """``probe`` gives facts or a reason; ``picture`` one frame as raw RGB, with its size."""
    path, kind = Path(task["path"]), task["kind"]
    try:
        if task["do"] == "probe":
            within = Path(task["within"]) if task["within"] is not None else None
            return plain(probe_file(path, kind, within)), 0
        picture = picture_at(path, task["seconds"], kind, tuple(task["size"]), None)
    except MediaError as error:
        return plain(error), 0
    height, width = picture.shape[:2]
    room[: picture.nbytes] = picture.tobytes()
    return {"width": width, "height": height}, picture.nbytes


if __name__ == "__main__":
    serve(answer)
