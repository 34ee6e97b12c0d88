"""Look at every clip of the configured data sets: the plan's verdict, its caption, its pictures. Nothing is changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltxtrain.config import LoadedConfig
from ltxtrain.events import Event, StageDone, StageProgress, StageStarted
from ltxtrain.facts.media_facts import MediaError
from ltxtrain.prepare.findings import Finding
from ltxtrain.prepare.inspect_records import Inspection, JudgedClip, Key, Verdicts
from ltxtrain.prepare.lint import TokenCounter, estimated_tokens, lint_captions, named
from ltxtrain.prepare.looks import Fingerprint, Strip, fingerprint, is_still, luma_of, picture_findings, strip_of
from ltxtrain.prepare.looks_alike import alike
from ltxtrain.prepare.looks_stills import moments_of, stills
from ltxtrain.prepare.verdicts import judge_clips
from ltxtrain.units import counted

PICTURES = "pictures"
NAMED = 3
# Where the first, middle and last frame are the same, these parts of the clip have the last word.
MORE_PARTS = (0.0, 0.13, 0.29, 0.37, 0.62, 0.71, 0.87)


@dataclass(frozen=True)
class InspectRule:
    """``thumbnails`` is how many clips get a strip of pictures on the page; ``pictures`` False opens no clip for that.

    ``count_tokens`` is the model's own tokenizer, where it is on this disk.
    """

    loaded: LoadedConfig
    data_dir: Path | None = None
    pictures: bool = True
    thumbnails: int = 500
    count_tokens: TokenCounter | None = None
    clock: Callable[[], float] = time.monotonic


class _Sheet:
    """Strips of pictures, bounded: clips with something to say come first, the others in the order of their names."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._strips: tuple[dict[Key, Strip], dict[Key, Strip]] = ({}, {})

    def keep(self, key: Key, pictures: NDArray[np.uint8], telling: bool) -> None:
        strips = self._strips[not telling]
        if len(strips) < self._limit:
            strips[key] = strip_of(pictures)

    def chosen(self, telling: set[Key]) -> dict[Key, Strip]:
        """``telling`` knows more than there was to know when the pictures came: which clips look alike."""
        whole = self._strips[0] | self._strips[1]
        ranked = sorted(whole, key=lambda key: key not in telling)
        return {key: whole[key] for key in ranked[: self._limit]}


def iter_inspect(rule: InspectRule) -> Generator[Event, None, Inspection]:
    """Emit a stage for what takes long, and return what was found out. Raises as ``judge_clips`` does."""
    begun = rule.clock()
    yield StageStarted("clips")
    verdicts = judge_clips(rule.loaded, rule.data_dir)
    yield StageDone("clips", rule.clock() - begun, counted(len(verdicts.clips), "clip"))
    count = rule.count_tokens or estimated_tokens
    findings = lint_captions(verdicts.clips, {entry.id: entry.captions for entry in verdicts.datasets}, count)
    sheet: dict[Key, Strip] = {}
    if rule.pictures:
        sheet = yield from _look(verdicts, findings, rule)
    return Inspection(
        verdicts=verdicts,
        findings={key: tuple(found) for key, found in findings.items()},
        tokens={clip.key: max(map(count, clip.captions)) for clip in verdicts.clips if clip.captions},
        tokens_exact=rule.count_tokens is not None,
        sheet=sheet,
        looked=rule.pictures,
    )


def _look(
    verdicts: Verdicts, findings: dict[Key, list[Finding]], rule: InspectRule
) -> Generator[Event, None, dict[Key, Strip]]:
    """Decode a few frames of each clip, add what they tell to ``findings``, and return the strips for the sheet."""
    kinds = {dataset.id: dataset.kind for dataset in verdicts.datasets}
    wanted = [(clip, moments_of(clip.facts, kinds[clip.dataset])) for clip in verdicts.clips if clip.facts]
    begun, sheet = rule.clock(), _Sheet(rule.thumbnails)
    prints: list[tuple[JudgedClip, Fingerprint]] = []
    suspects: list[JudgedClip] = []
    yield StageStarted(PICTURES, len(wanted), 0, "clips")
    answers = stills([moments for _, moments in wanted])
    for done, ((clip, _), pictures) in enumerate(zip(wanted, answers, strict=True), start=1):
        if isinstance(pictures, MediaError):
            found = [Finding("no-pictures", pictures.detail)]
        else:
            luma_FHW = luma_of(pictures)
            found = picture_findings(luma_FHW)
            if not any(finding.code == "black" for finding in found):
                prints.append((clip, fingerprint(luma_FHW)))
                if is_still(luma_FHW):
                    suspects.append(clip)
            sheet.keep(clip.key, pictures, telling=bool(found) or clip.key in findings or not clip.used)
        if found:
            findings.setdefault(clip.key, []).extend(found)
        yield StageProgress(PICTURES, done)
    for key, finding in [*_frozen(suspects), *_alike(prints, verdicts)]:
        findings.setdefault(key, []).append(finding)
    yield StageDone(PICTURES, rule.clock() - begun)
    return sheet.chosen(set(findings) | {clip.key for clip in verdicts.clips if not clip.used})


def _frozen(suspects: Sequence[JudgedClip]) -> list[tuple[Key, Finding]]:
    """Three equal frames are a suspicion: a clip that comes back to where it began is cleared by more of them."""
    asked = [(clip, moments_of(clip.facts, "video", MORE_PARTS)) for clip in suspects if clip.facts]
    answers = stills([moments for _, moments in asked])
    return [
        (clip.key, Finding("frozen", f"{len(more)} frames of it are the same"))
        for (clip, _), more in zip(asked, answers, strict=True)
        if not isinstance(more, MediaError) and is_still(luma_of(more))
    ]


def _alike(prints: Sequence[tuple[JudgedClip, Fingerprint]], verdicts: Verdicts) -> list[tuple[Key, Finding]]:
    role = {dataset.id: dataset.role for dataset in verdicts.datasets}
    kind = {dataset.id: dataset.kind for dataset in verdicts.datasets}
    found = []
    for wanted in ("video", "image"):
        of_kind = [(clip, entry) for clip, entry in prints if kind[clip.dataset] == wanted]
        for group in alike([entry for _, entry in of_kind]):
            clips = [of_kind[index][0] for index in group]
            several = len({clip.dataset for clip in clips}) > 1
            names = [f"{clip.dataset}/{clip.name}" if several else clip.name for clip in clips[: NAMED + 1]]
            across = len({role[clip.dataset] for clip in clips}) > 1
            for place, clip in enumerate(clips):
                others = [name for index, name in enumerate(names) if index != place][:NAMED]
                detail = f"as {named(others, len(clips) - 1)}"
                found.append((clip.key, Finding("eval-duplicate" if across else "near-duplicate", detail)))
    return found
