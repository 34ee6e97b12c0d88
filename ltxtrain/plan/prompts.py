"""Which videos a validation renders: every prompt at every size."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ltxtrain.config import parse_resolutions
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.facts.digests import sha256_of

if TYPE_CHECKING:
    from ltxtrain.config.validation import ValidationConfig

MAIN_PROMPT = "validation"
DEFAULT_FRAMES = 121
CAPTIONS_RENDERED = 2
ALIGNMENT = 32


@dataclass(frozen=True)
class ValidationVideo:
    """One video of each validation. ``name`` is its file's name without suffix; sizes in pixels, ``frames`` is 8k+1."""

    name: str
    prompt: str
    width: int
    height: int
    frames: int
    seed: int


def validation_videos(
    section: ValidationConfig, seed: int, captions: Sequence[str] = ()
) -> tuple[ValidationVideo, ...]:
    """The main prompt first, then the user's library, in its order; with neither, the first of ``captions``.

    Raises ``ConfigError`` for an unusable library.

    Sizes are floored to multiples of 32 and frames to 8k+1, as the VAE needs them.
    """
    if section.validation_disable:
        return ()
    prompts = {MAIN_PROMPT: section.validation_prompt} if section.validation_prompt else {}
    if section.user_prompt_library:
        prompts |= read_prompt_library(section.user_prompt_library)
    if not prompts:
        prompts = {f"caption-{index}": caption for index, caption in enumerate(captions[:CAPTIONS_RENDERED], 1)}
    sizes = [
        tuple(side // ALIGNMENT * ALIGNMENT for side in size)
        for size in parse_resolutions(section.validation_resolution)
    ]
    frames = ((section.validation_num_video_frames or DEFAULT_FRAMES) - 1) // 8 * 8 + 1
    first_seed = seed if section.validation_seed is None else section.validation_seed
    return tuple(
        ValidationVideo(
            _file_name(name, (width, height), index, len(sizes)), prompt, width, height, frames, first_seed + index
        )
        for name, prompt in prompts.items()
        for width, height in sizes
        for index in range(section.num_validation_images)
    )


def validation_due(section: ValidationConfig, step: int, total: int) -> bool:
    """Step 0 is before training. At the end it is always due; in between by ``validation_step_interval``."""
    if step == 0:
        return section.validation_on_startup or not section.disable_benchmark
    by_steps = section.validation_step_interval and step % section.validation_step_interval == 0
    return step == total or bool(by_steps and step >= (section.validate_after_step or 0))


def read_prompt_library(path: Path) -> dict[str, str]:
    """``{nickname: prompt}`` or ``{nickname: {"prompt": ...}}`` from a JSON file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError([Fault("user_prompt_library", f"{path} cannot be read: {error}")]) from error
    if not isinstance(found, dict):
        raise ConfigError([Fault("user_prompt_library", "is not an object of {name: prompt}", str(path))])
    prompts: dict[str, str] = {}
    for name, value in found.items():
        prompt = value.get("prompt") if isinstance(value, dict) else value
        if not isinstance(prompt, str) or not prompt.strip():
            raise ConfigError([Fault(name, "has no prompt text", str(path), 'write "name": "prompt"')])
        prompts[name] = prompt
    return prompts


def _file_name(nickname: str, size: tuple[int, int], index: int, sizes: int) -> str:
    """A name that every file system takes. Nicknames that had to be changed get a short digest, so none collide."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", nickname).strip("-")[:60]
    if plain != nickname or not plain:
        plain = f"{plain or 'prompt'}-{sha256_of(nickname)[:6]}"
    plain += f"-{size[0]}x{size[1]}" if sizes > 1 else ""
    return plain + (f"-{index + 1}" if index else "")
