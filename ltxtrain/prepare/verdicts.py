"""The planner's word on each clip: the real plan, turned from "what is trained" into "what happens to this clip"."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.config import Dataset, LoadedConfig, resolve_datasets
from ltxtrain.errors import DataError, MachineError, ModelError
from ltxtrain.facts.media import ClipFacts, probe_clips
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.records import Dropped, Plan, Sample
from ltxtrain.plan.select import Selection, SelectionRule, clip_name, select_samples
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
    """Plan a run and tell what it does with each clip; a run that cannot be planned is told as ``problem``.

    ``data_dir`` is as in ``make_plan``. Raises ``ConfigError``, and ``DataError`` for a folder that cannot be read.
    """
    data = loaded.config.data if data_dir is None else _with_folder(loaded, data_dir)
    datasets = tuple(resolve_datasets(data))
    rule = SelectionRule(data.framerate, data.aspect_bucket_alignment, data.aspect_bucket_rounding, _seed(loaded))
    selections = [select_samples(dataset, rule) for dataset in datasets]
    plan, problem, hint = _planned(loaded, data_dir)
    if plan is not None:
        decided = _decide([*plan.samples, *plan.eval_samples], plan.dropped, selections)
    else:
        samples = [sample for selection in selections for sample in selection.samples]
        decided = _decide(samples, [entry for selection in selections for entry in selection.dropped], selections)
    return Verdicts(
        datasets=datasets,
        clips=tuple(clip for selection in selections for clip in _judged(selection, decided)),
        framerate=data.framerate,
        problem=problem,
        hint=hint,
        notices=plan.notices if plan else (),
        warnings=plan.warnings if plan else (),
    )


def _with_folder(loaded: LoadedConfig, data_dir: Path):  # type: ignore[no-untyped-def]
    return loaded.config.data.model_copy(update={"instance_data_dir": data_dir})


def _seed(loaded: LoadedConfig) -> int:
    return loaded.config.model.seed


def _planned(loaded: LoadedConfig, data_dir: Path | None) -> tuple[Plan | None, str, str]:
    """The plan, or why there is none, with a hint. A model that is not there is no matter of the clips."""
    try:
        return make_plan(loaded, data_dir=data_dir), "", ""
    except (DataError, ModelError, MachineError) as error:
        return None, error.message, error.hint or ""


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


def _judged(selection: Selection, decided: _Decided) -> list[JudgedClip]:
    dataset = selection.dataset
    probed = {clip.found.name: clip for clip in selection.probed}
    gone = {name for set_id, name in decided.dropped if set_id == dataset.id}
    unopened = _facts_of(dataset, [name for name in gone if decided.dropped[dataset.id, name].reason in NOT_OPENED])
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


def _facts_of(dataset: Dataset, names: Sequence[str]) -> dict[str, ClipFacts]:
    """Facts of those of these clips that can be read."""
    paths = [dataset.root / name for name in names]
    answers = zip(names, probe_clips(paths), strict=True)
    return {name: facts for name, facts in answers if isinstance(facts, ClipFacts)}
