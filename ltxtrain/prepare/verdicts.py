"""The planner's word on each clip: the real plan, turned from "what is trained" into "what happens to this clip"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.config import Dataset, LoadedConfig
from ltxtrain.facts.media import ClipFacts, probe_clips
from ltxtrain.plan import set_notices
from ltxtrain.plan.material import Material, judge
from ltxtrain.plan.records import Dropped, Sample, clip_name
from ltxtrain.plan.select import Selection
from ltxtrain.prepare.inspect_records import JudgedClip, Key, Verdicts

# Dropped before anybody looked into the file: what is in it is worth seeing all the same.
NOT_OPENED = ("no-caption", "bad-caption")


@dataclass
class _Decided:
    """What was decided, by clip. A dropped window of a clip that is used is lost, the clip is not."""

    samples: dict[Key, list[Sample]] = field(default_factory=dict)
    dropped: dict[Key, Dropped] = field(default_factory=dict)
    lost: dict[Key, list[Dropped]] = field(default_factory=dict)


def judge_clips(loaded: LoadedConfig, data_dir: Path | None = None) -> Verdicts:
    """Let the planner decide on each clip. Where no run could begin, why stands in ``problem``.

    ``data_dir`` is as in ``make_plan``. Raises ``ConfigError``, and ``DataError`` for a folder that cannot be read.
    """
    config = loaded.config
    data = config.data if data_dir is None else config.data.model_copy(update={"instance_data_dir": data_dir})
    material = judge(config, data)
    selections, refusal = material.selections, material.refusal
    decided = _decide([*material.filled.samples, *material.eval_samples], material.dropped, selections)
    notices, warnings = _told(material)
    return Verdicts(
        datasets=tuple(found.dataset for found in selections),
        clips=tuple(clip for found in selections for clip in _judged(found, decided, config.cache.cache_dir)),
        framerate=data.framerate,
        problem=refusal.message if refusal else "",
        hint=(refusal.hint or "") if refusal else "",
        notices=notices,
        warnings=warnings,
    )


def _told(material: Material) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The plan's notices and warnings about clips; those about the machine are not for here."""
    rule, selections = material.rule, material.selections
    return (
        tuple(text for found in selections for text in set_notices.selection_notices(found, rule)),
        tuple(text for found in selections for text in set_notices.selection_warnings(found, rule)),
    )


def _decide(samples: Iterable[Sample], dropped: Iterable[Dropped], selections: Sequence[Selection]) -> _Decided:
    decided = _Decided()
    for sample in samples:
        decided.samples.setdefault((sample.dataset, clip_name(sample)), []).append(sample)
    probed = {(selection.dataset.id, clip.found.name) for selection in selections for clip in selection.probed}
    for entry in dropped:
        clip, mark, window = entry.path.rpartition("#")
        if mark and window.isdigit() and (entry.dataset, entry.path) not in probed and (entry.dataset, clip) in probed:
            decided.lost.setdefault((entry.dataset, clip), []).append(entry)
        else:
            decided.dropped[entry.dataset, entry.path] = entry
    for key, entries in decided.lost.items():
        if key not in decided.samples:  # every window is gone
            decided.dropped.setdefault(key, entries[0])
    return decided


def _judged(selection: Selection, decided: _Decided, cache_dir: Path) -> list[JudgedClip]:
    dataset = selection.dataset
    probed = {clip.found.name: clip for clip in selection.probed}
    gone = {name for set_id, name in decided.dropped if set_id == dataset.id}
    closed = [name for name in sorted(gone) if decided.dropped[dataset.id, name].reason in NOT_OPENED]
    unopened = _facts_of(dataset, closed, cache_dir / "index")
    clips = []
    for name in sorted(probed.keys() | gone):
        key, clip = (dataset.id, name), probed.get(name)
        samples = tuple(decided.samples.get(key, ()))
        reason = None if samples else decided.dropped.get(key)
        clips.append(
            JudgedClip(
                dataset=dataset.id,
                name=name,
                path=clip.found.path if clip else dataset.root / name,
                facts=clip.facts if clip else unopened.get(name),
                captions=clip.found.captions if clip else (),
                samples=samples,
                reason=reason.reason if reason else "",
                detail=reason.detail if reason else "",
                lost=tuple(decided.lost.get(key, ())),
            )
        )
    return clips


def _facts_of(dataset: Dataset, names: Sequence[str], memo: Path) -> dict[str, ClipFacts]:
    """Facts of those of these clips that can be read."""
    answers = probe_clips([dataset.root / name for name in names], dataset.kind, memo, dataset.root)
    return {name: facts for name, facts in zip(names, answers, strict=True) if isinstance(facts, ClipFacts)}
