"""An inspection as plain JSON values: every clip, without the pictures."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from ltxtrain.prepare.findings import KINDS
from ltxtrain.prepare.inspect_records import Inspection, JudgedClip

FORMAT = 1


def to_json(found: Inspection) -> dict[str, Any]:
    """``clips`` in the order of their data sets and names; ``findings`` by code, with what to do."""
    verdicts = found.verdicts
    dropped = Counter(clip.reason for clip in found.clips if not clip.used)
    return {
        "format": FORMAT,
        "datasets": [
            {"id": entry.id, "root": str(entry.root), "kind": entry.kind, "role": entry.role}
            for entry in verdicts.datasets
        ],
        "framerate": verdicts.framerate,
        "clips_found": len(found.clips),
        "clips_used": sum(clip.used for clip in found.clips),
        "dropped": dict(dropped.most_common()),
        "problem": verdicts.problem or None,
        "notices": list(verdicts.notices),
        "warnings": list(verdicts.warnings),
        "tokens_exact": found.tokens_exact,
        "looked_at_frames": found.looked,
        "findings": {code: {"clips": count} | asdict(KINDS[code]) for code, count in found.counts.items()},
        "clips": [_clip(found, clip) for clip in found.clips],
    }


def _clip(found: Inspection, clip: JudgedClip) -> dict[str, Any]:
    facts = clip.facts
    return {
        "dataset": clip.dataset,
        "name": clip.name,
        "path": str(clip.path),
        "verdict": "used" if clip.used else "dropped",
        "bucket": clip.bucket.key if clip.bucket else None,
        "windows": [{"start_s": sample.start, "frames": sample.bucket.frames} for sample in clip.samples],
        "windows_dropped": [
            {"window": entry.path, "reason": entry.reason, "detail": entry.detail} for entry in clip.lost
        ],
        "reason": clip.reason or None,
        "detail": clip.detail or None,
        "width": facts.width if facts else None,
        "height": facts.height if facts else None,
        "seconds": round(facts.duration_s, 4) if facts else None,
        "frames": facts.frames if facts else None,
        "fps": round(facts.fps, 4) if facts else None,
        "variable_rate": facts.variable_rate if facts else None,
        "codec": facts.codec if facts else None,
        "captions": list(clip.captions),
        "tokens": found.tokens.get(clip.key),
        "findings": [{"code": finding.code, "detail": finding.detail or None} for finding in found.of(clip)],
    }
