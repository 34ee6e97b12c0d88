"""The data sets of a plan: what each gives to training, that no clip is lost, and what is said when nothing is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ltxtrain.errors import DataError
from ltxtrain.facts.reasons import EXPLANATIONS
from ltxtrain.plan.records import DatasetPlan, Dropped, Sample, clip_name
from ltxtrain.plan.select import Selection

LISTED = 20  # clips that one error names

HINTS: dict[str, str] = {
    "no-caption": "put a .txt with the same name beside each clip, or set caption_strategy filename",
    "too-short": "lower num_frames (and min_frames), or use longer clips",
    "too-long": "raise max_frames, or leave it out",
    "too-small": "lower minimum_image_size, or raise max_upscale_threshold where that is set",
    "small-bucket": "raise repeats, lower train_batch_size, or set allow_dataset_oversubscription",
    "wrong-shape": "widen minimum_aspect_ratio and maximum_aspect_ratio",
    "outside-folder": "copy the clips into the folder, or name the folder that they are in",
}


def plan_datasets(selections: Sequence[Selection], samples: Sequence[Sample]) -> tuple[DatasetPlan, ...]:
    """One record for each data set; ``samples`` are those that are used, of all sets."""
    counts = Counter(sample.dataset for sample in samples)
    uses: Counter[str] = Counter()
    for sample in samples:
        uses[sample.dataset] += sample.repeats + 1
    used = _clips_used(samples)
    return tuple(
        DatasetPlan(
            id=dataset.id,
            kind=dataset.kind,
            role=dataset.role,
            clips_found=selection.found,
            clips_used=used[dataset.id],
            samples=counts[dataset.id],
            uses=uses[dataset.id],
            schedule=dataset.schedule,
            cache=dataset.cache,
            regularisation=dataset.regularisation,
            timestep_offset=dataset.timestep_offset,
        )
        for selection in selections
        for dataset in [selection.dataset]
    )


def check_accounts(selections: Sequence[Selection], samples: Sequence[Sample], dropped: Sequence[Dropped]) -> None:
    """Used plus dropped is what was found, in each data set: anything else is a defect, not a fault of the data."""
    used = _clips_used(samples)
    left_out = Counter(entry.dataset for entry in dropped)
    for selection in selections:
        name = selection.dataset.id
        if used[name] + left_out[name] != selection.found:
            counts = f"{selection.found} clips found, {used[name]} used, {left_out[name]} left out"
            raise RuntimeError(f"a clip of {name} is not accounted for: {counts}")


def check_not_empty(selections: Sequence[Selection], samples: Sequence[Sample], dropped: Sequence[Dropped]) -> None:
    """Raise ``DataError`` for data sets that give no sample: which clip was left out for which reason, and what helps.

    A data set that was asked for and gives nothing is never passed over.
    """
    used = _clips_used(samples)
    empty = [selection for selection in selections if not used[selection.dataset.id]]
    if not empty:
        return
    found = sum(selection.found for selection in empty)
    names = {selection.dataset.id for selection in empty}
    whose = "" if len(selections) == 1 else f" of {', '.join(sorted(names))}"
    if not found:
        raise _nothing_found(empty)
    entries = sorted((entry for entry in dropped if entry.dataset in names), key=lambda entry: entry.path)
    counts = Counter(entry.reason for entry in entries).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    lines = [f"no samples detected: none of {found} clips{whose} can be used: {reasons}"]
    lines += [f"  {entry.path}: {entry.reason}: {entry.detail}" for entry in entries[:LISTED]]
    lines += [f"  and {len(entries) - LISTED} more"] if len(entries) > LISTED else []
    most = counts[0][0]
    if most == "too-short":
        lines += _longest(empty)
    raise DataError("\n".join(lines), hint=HINTS.get(most) or explained(most) or None)


def _nothing_found(empty: Sequence[Selection]) -> DataError:
    """There is not a single clip, but perhaps files of the other kind, or items that are filtered out."""
    others, filtered = (sum(getattr(selection, name) for selection in empty) for name in ("others", "filtered"))
    if filtered:
        names = ", ".join(selection.dataset.id for selection in empty)
        return DataError(
            f"no samples detected: the filter of {names} leaves out all {filtered} items",
            hint="ask for less in filter_func",
        )
    folders = ", ".join(str(selection.dataset.root) for selection in empty)
    kinds = sorted({selection.dataset.kind for selection in empty})
    told = f"no samples detected: no {' or '.join(kinds)} files in {folders}"
    if not others:
        return DataError(told, hint="name the folder of the clips")
    other = "image" if kinds == ["video"] else "video"
    files = "1 file" if others == 1 else f"{others} files"
    return DataError(
        f"{told}, but {files} of the other kind", hint=f"list the folder as a data set of dataset_type {other}"
    )


def explained(reason: str) -> str:
    """What a code says in words; nothing for one that is not on the list."""
    return _EXPLAINED.get(reason, "")


_EXPLAINED: dict[str, str] = {str(code): EXPLANATIONS[code] for code in EXPLANATIONS}


def _longest(selections: Sequence[Selection]) -> list[str]:
    clips = [(selection, clip) for selection in selections for clip in selection.probed]
    if not clips:
        return []
    selection, clip = max(clips, key=lambda pair: pair[1].facts.duration_s)
    name, seconds, wanted = clip.found.name, clip.facts.duration_s, selection.dataset.num_frames
    return [f"the longest clip is {name} with {seconds:.1f} s; num_frames is {wanted}"]


def _clips_used(samples: Sequence[Sample]) -> Counter[str]:
    return Counter(dataset for dataset, _ in {(sample.dataset, clip_name(sample)) for sample in samples})
