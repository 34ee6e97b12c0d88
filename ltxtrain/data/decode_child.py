"""What a child does that decodes: ``python -m ltxtrain.data.decode_child``, started by ``data/frames.py``. No torch."""

from __future__ import annotations

from typing import Any

from ltxtrain.data.frames import Cut, decode_cut
from ltxtrain.errors import DataError
from ltxtrain.facts.children_serve import Answer, serve


def answer(task: dict[str, Any]) -> Answer:
    """The window's frames as raw bytes, or what is wrong with the clip."""
    pairs = {name: tuple(task[name]) for name in ("size", "resize", "crop")}
    try:
        return {}, memoryview(decode_cut(Cut(**task | pairs))).cast("B")
    except DataError as error:
        return {"error": error.message}, b""


if __name__ == "__main__":
    serve(answer)
