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

# Names that Windows keeps for devices, with any suffix.
_RESERVED = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]", re.IGNORECASE)


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

    Sizes are floored to multiples of 32 and frames to 8k+1, as the VAE needs them. No two videos have one name, on
    file systems that know no case neither. Raises ``ConfigError`` for an unusable library.
    """
    if section.validation_disable:
        return ()
    prompts = _prompts(section, captions)
    sizes = list(dict.fromkeys(render_size(*size) for size in parse_resolutions(section.validation_resolution)))
    frames = ((section.validation_num_video_frames or DEFAULT_FRAMES) - 1) // 8 * 8 + 1
    first_seed = seed if section.validation_seed is None else section.validation_seed
    endings = {
        (size, index): (f"-{size[0]}x{size[1]}" if len(sizes) > 1 else "") + (f"-{index + 1}" if index else "")
        for size in sizes
        for index in range(section.num_validation_images)
    }
    stems = _stems(list(prompts), list(endings.values()))
    return tuple(
        ValidationVideo(f"{stem}{ending}", prompts[name], *size, frames, first_seed + index)
        for name, stem in stems.items()
        for (size, index), ending in endings.items()
    )


def render_size(width: int, height: int) -> tuple[int, int]:
    """The size that is rendered for one that is asked for, in pixels."""
    return width // ALIGNMENT * ALIGNMENT, height // ALIGNMENT * ALIGNMENT


def _prompts(section: ValidationConfig, captions: Sequence[str]) -> dict[str, str]:
    """Prompts by nickname."""
    prompts = {MAIN_PROMPT: section.validation_prompt} if section.validation_prompt else {}
    path = section.user_prompt_library
    library = read_prompt_library(path) if path else {}
    if prompts.keys() & library.keys():
        problem = f"{MAIN_PROMPT} is the name of validation_prompt's own video"
        raise ConfigError([Fault(MAIN_PROMPT, problem, str(path), "rename it, or leave validation_prompt out")])
    prompts |= library
    return prompts or {f"caption-{index}": caption for index, caption in enumerate(captions[:CAPTIONS_RENDERED], 1)}


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


def _stems(nicknames: Sequence[str], endings: Sequence[str]) -> dict[str, str]:
    """What the file names of each nickname begin with: itself, as far as every file system takes that.

    A nickname that had to be changed gets a digest of itself; so does one of whose names, a stem with one of
    ``endings``, an earlier nickname has taken, be it in other case (``a-2`` after ``a``, ``Cat`` after ``cat``).
    """
    stems: dict[str, str] = {}
    taken: set[str] = set()
    for nickname in nicknames:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", nickname).strip("-")[:60]
        digest = sha256_of(nickname)
        changed = not plain or plain != nickname or bool(_RESERVED.fullmatch(plain))
        letters = 6 if changed else 0
        stem = _with_digest(plain, digest[:letters])
        while taken & {f"{stem}{ending}".lower() for ending in endings}:
            letters += 6
            stem = _with_digest(plain, digest[:letters])
        taken |= {f"{stem}{ending}".lower() for ending in endings}
        stems[nickname] = stem
    return stems


def _with_digest(plain: str, digest: str) -> str:
    return f"{plain or 'prompt'}-{digest}" if digest else plain
