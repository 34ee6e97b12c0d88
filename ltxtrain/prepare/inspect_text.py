"""An inspection in a few lines, for the screen."""

from __future__ import annotations

from collections import Counter

from ltxtrain.prepare.findings import KINDS
from ltxtrain.prepare.inspect_records import Inspection
from ltxtrain.units import counted


def summary(found: Inspection) -> list[str]:
    """``11 clips: 10 used, 1 left out (1 too-short)``, then a line for each finding."""
    clips = found.clips
    used = sum(clip.used for clip in clips)
    reasons = Counter(clip.reason for clip in clips if not clip.used).most_common()
    left = f", {len(clips) - used} left out ({', '.join(f'{count} {reason}' for reason, count in reasons)})"
    lines = [f"{counted(len(clips), 'clip')}: {used} used{left if reasons else ''}"]
    lines += [f"  {count:>6}  {KINDS[code].title} [{code}]" for code, count in found.counts.items()]
    return lines if found.counts else [*lines, "nothing odd was found"]
