"""What index.json says of the validation videos of one step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltxtrain.plan.prompts import ValidationVideo


def index_of(wanted: Sequence[tuple[ValidationVideo, Any]]) -> str:
    """The file's text, for videos and the settings that they are rendered with."""
    return json.dumps([_line(*pair) for pair in wanted], indent=1, ensure_ascii=False)


def holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def _line(video: ValidationVideo, settings: Any) -> dict[str, Any]:
    return {
        "name": video.name,
        "prompt": video.prompt,
        "video": f"{video.name}.mp4",
        "poster": f"{video.name}.png",
        "width": video.width,
        "height": video.height,
        "frames": video.frames,
        "seed": video.seed,
        "steps": settings.inference_steps,
        "guidance": settings.guidance,
    }
