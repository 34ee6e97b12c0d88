"""How long a server asks to be left alone."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

MOST_WAIT_S = 120.0


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that an answer's Retry-After names, as a number or as a time of day; 0 where it names none."""
    after = headers.get("retry-after", "").strip()
    try:
        number = after.isascii() and after.replace(".", "", 1).isdigit()
        seconds = float(after) if number else parsedate_to_datetime(after).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), MOST_WAIT_S)
