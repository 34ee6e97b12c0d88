"""What an inspection finds out, as frozen records: the page and the JSON are two views of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.config import Dataset
from ltxtrain.facts.media import ClipFacts
from ltxtrain.plan.records import Bucket, Dropped, Sample
from ltxtrain.prepare.findings import CODES, Code, Finding
from ltxtrain.prepare.looks import Strip

Key = tuple[str, str]  # data set, name of the clip in it


@dataclass(frozen=True)
class JudgedClip:
    """One clip and the plan's verdict: ``samples`` where it is used, else ``reason`` and ``detail``.

    ``facts`` is None for a file that cannot be read, and ``captions`` are as training would use them. ``lost`` are
    windows that are left out of a clip that is used.
    """

    dataset: str
    name: str
    path: Path
    facts: ClipFacts | None
    captions: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
    reason: str = ""
    detail: str = ""
    lost: tuple[Dropped, ...] = ()

    @property
    def key(self) -> Key:
        return self.dataset, self.name

    @property
    def used(self) -> bool:
        return bool(self.samples)

    @property
    def bucket(self) -> Bucket | None:
        return self.samples[0].bucket if self.samples else None


@dataclass(frozen=True)
class Verdicts:
    """The planner's word on every clip. ``problem`` is why there would be no run at all; empty where there would be."""

    datasets: tuple[Dataset, ...]
    clips: tuple[JudgedClip, ...]
    framerate: float
    problem: str = ""
    hint: str = ""
    notices: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inspection:
    """``findings`` and ``tokens`` are by clip. ``sheet`` holds the first, middle and last frame of as many clips
    as were asked for. ``tokens_exact`` is False where the model's tokenizer is not on this disk."""

    verdicts: Verdicts
    findings: Mapping[Key, tuple[Finding, ...]]
    tokens: Mapping[Key, int]
    tokens_exact: bool
    sheet: Mapping[Key, Strip] = field(default_factory=dict)
    looked: bool = True

    @property
    def clips(self) -> tuple[JudgedClip, ...]:
        return self.verdicts.clips

    def of(self, clip: JudgedClip) -> tuple[Finding, ...]:
        return self.findings.get(clip.key, ())

    @property
    def counts(self) -> dict[Code, int]:
        """Clips by finding, in the order of the list of codes; those that were not found are left out."""
        counted = Counter(code for found in self.findings.values() for code in {finding.code for finding in found})
        return {code: counted[code] for code in CODES if counted[code]}
