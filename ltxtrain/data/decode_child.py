"""What a child does that decodes: ``python -m ltxtrain.data.decode_child``, started by ``data/frames.py``. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from ltxtrain.data.frames import Cut, decode_cut
from ltxtrain.errors import DataError
from ltxtrain.facts.children_serve import serve


def answer(task: dict[str, Any], room: memoryview) -> tuple[dict[str, Any], int]:
    """The window's frames as raw bytes in ``room``, or what is wrong with the clip."""
    pairs = {name: tuple(task[name]) for name in ("size", "resize", "crop")}
    cut = Cut(**task | pairs)
    frames_FHWC = np.frombuffer(room, np.uint8, cut.bytes).reshape(cut.shape)
    try:
        decode_cut(cut, frames_FHWC)
    except DataError as error:
        return {"error": error.message, "reason": getattr(error, "reason", "damaged")}, 0
    return {}, cut.bytes


if __name__ == "__main__":
    serve(answer)
