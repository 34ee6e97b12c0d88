"""What a command takes from around it before its work: the token for the Hub, and whether the image tells of itself."""

from __future__ import annotations

import sys

from ltxtrain.facts.hub_login import take_hub_token
from ltxtrain.facts.image import image_facts


def look_around() -> None:
    """Warnings go to stderr. Raises ``ConfigError`` for a token's file that cannot be used."""
    for sentence in (*take_hub_token(), *image_facts().told):
        print(f"warning: {sentence}", file=sys.stderr)
