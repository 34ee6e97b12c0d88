"""metrics.jsonl: one line for each optimiser step, in order, without gaps, also after a kill."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from ltxtrain.events import StepDone
from ltxtrain.files import write_atomically


def append_step(path: Path, event: StepDone) -> None:
    line = asdict(event)
    del line["total"]
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines after ``step``: they belong to steps that a resumed run does again. A torn last line goes, too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            continue
    write_atomically(path, "".join(kept))
