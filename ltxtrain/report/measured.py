"""What the phases of a run took, out of memory.jsonl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltxtrain.events import MAIN_MEMORY
from ltxtrain.report.loose import JsonObject, as_number, as_text


@dataclass(frozen=True)
class Measured:
    """Bytes. ``allocated`` is what stood in tensors, None where that was not counted; ``used`` all that was in use.

    ``tried`` is that of a trial of the largest batch, None where there was none.
    """

    allocated: float | None
    used: float
    tried: float | None = None


def read_measured(lines: Sequence[JsonObject]) -> Mapping[tuple[str, str], Measured]:
    """By phase and device. Of a phase that was measured several times the last line holds, as of several trials."""
    runs: dict[tuple[str, str], Measured] = {}
    trials: dict[tuple[str, str], float] = {}
    for line in lines:
        key, used = (as_text(line.get("phase")), as_text(line.get("device"))), as_number(line.get("device_used"))
        if used is None:
            continue
        if as_text(line.get("where")) == "probe":
            trials[key] = used
        else:
            runs[key] = Measured(as_number(line.get("allocated")), used)
    of_trials = {key: Measured(None, used, used) for key, used in trials.items()}
    return of_trials | {key: Measured(one.allocated, one.used, trials.get(key)) for key, one in runs.items()}


def largest_peak(measured: Mapping[tuple[str, str], Measured]) -> tuple[str, float] | None:
    """The phase that had the most of the device in use, in a trial or in the run, and so many bytes."""
    peaks = [
        (phase, max(one.used, one.tried or 0.0)) for (phase, device), one in measured.items() if device != MAIN_MEMORY
    ]
    return max(peaks, key=lambda peak: peak[1], default=None)
