"""What a command takes from around it before its work, and tells where no plan is shown: the token for the Hub,
whether the image tells of itself, options that do nothing on this device."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ltxtrain.facts.hub_login import take_hub_token
from ltxtrain.facts.image import image_facts

if TYPE_CHECKING:
    from ltxtrain.config.compute import MemoryConfig


def look_around() -> None:
    """Warnings go to stderr. Raises ``ConfigError`` for a token's file that cannot be used."""
    for sentence in (*take_hub_token(), *image_facts().told):
        print(f"warning: {sentence}", file=sys.stderr)


def tell_offload(memory: MemoryConfig, device: str) -> None:
    """What of the offload does nothing on this kind of device, where no plan is shown that would say it."""
    from ltxtrain.plan.offload import offload_notices

    for sentence in offload_notices(memory, device):
        print(f"note: {sentence}", file=sys.stderr)
