"""What the container's image says of itself: the file that LTX_IMAGE names, and the digest that LTX_IMAGE_DIGEST gives.

An image cannot hold its own digest: who starts it by digest may pass it on.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

FACTS = ("kind", "version", "revision", "lock_sha256", "torch", "base", "created")
UNKNOWN = "unknown"  # what a build without that argument writes
_DIGEST = re.compile(r"(?:\S*@)?(sha256:[0-9a-f]{64})")


@dataclass(frozen=True)
class ImageFacts:
    """``facts`` by name (those of FACTS, and ``digest``): empty outside of an image. ``told``: sentences of warning."""

    facts: dict[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()


def image_facts(env: Mapping[str, str] | None = None) -> ImageFacts:
    """Never raises: a run does not depend on it."""
    env = os.environ if env is None else env
    facts, told = _from_file(env.get("LTX_IMAGE", ""))
    if given := env.get("LTX_IMAGE_DIGEST", "").strip():
        if found := _DIGEST.fullmatch(given):
            facts["digest"] = found[1]
        else:
            told.append("LTX_IMAGE_DIGEST is not of the form NAME@sha256:...: run.json will not name a digest")
    return ImageFacts(facts, tuple(told))


def _from_file(named: str) -> tuple[dict[str, str], list[str]]:
    if not named:
        return {}, []
    try:
        found = json.loads(Path(named).read_bytes())
    except FileNotFoundError:
        return {}, []
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not JSON"
        return {}, [f"{named} (from LTX_IMAGE) cannot be read ({reason}): run.json will not tell of the image"]
    if not isinstance(found, dict):
        return {}, [f"{named} (from LTX_IMAGE) holds no facts: run.json will not tell of the image"]
    values = {name: found.get(name) for name in FACTS}
    return {name: value for name, value in values.items() if isinstance(value, str) and value not in ("", UNKNOWN)}, []
