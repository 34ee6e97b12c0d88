"""The data sets of a plan: what each gives to training, that no clip is lost, and what is said when nothing is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ltxtrain.errors import DataError
from ltxtrain.facts.captions import EMPTIED
from ltxtrain.facts.reasons import EXPLANATIONS
from ltxtrain.plan.records import DatasetPlan, Dropped, Sample, clip_name
from ltxtrain.plan.select import Selection
from ltxtrain.units import counted

LISTED = 20  # clips that one error names
FOLDER_ALONE = "clips"  # the id of the set that --data makes

HINTS: dict[str, str] = {
    "no-caption": "put a .txt with the same name beside each clip, or set caption_strategy filename",
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
    if not found:
        raise _nothing_found(empty, several=len(selections) > 1)
    names = {selection.dataset.id for selection in empty}
    entries = sorted((entry for entry in dropped if entry.dataset in names), key=lambda entry: entry.path)
    counts = Counter(entry.reason for entry in entries)
    lines = [_headline(empty, counts, found, len(selections))]
    lines += [f"  {entry.path}: {entry.reason}: {entry.detail}" for entry in entries[:LISTED]]
    lines += [f"  and {len(entries) - LISTED} more"] if len(entries) > LISTED else []
    most = counts.most_common(1)[0][0]
    if most == "too-short" and not _held_back(empty, counts):
        lines += _longest(empty)
    raise DataError("\n".join(lines), hint=_hint(most, entries, empty, len(selections)))


def _headline(empty: Sequence[Selection], counts: Counter[str], found: int, sets: int) -> str:
    names = ", ".join(sorted(selection.dataset.id for selection in empty))
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    if sets > len(empty) and counts["small-bucket"]:
        return f"data set {names} would have no clip left, of {counted(found, 'clip')}: {reasons}"
    of_sets = "" if sets == 1 else f" of {names}"
    if found == 1:
        return f"no samples detected: the only clip{of_sets} cannot be used: {reasons}"
    return f"no samples detected: none of {found} clips{of_sets} can be used: {reasons}"


def _hint(most: str, entries: Sequence[Dropped], empty: Sequence[Selection], sets: int) -> str | None:
    """What helps most clips that have the reason ``most``, and in which data set where there are several."""
    concerned = {entry.dataset for entry in entries if entry.reason == most}
    where = f" in data set {', '.join(sorted(concerned))}" if sets > 1 or concerned != {FOLDER_ALONE} else ""
    if most == "no-caption":
        return _caption_hint([entry for entry in entries if entry.reason == most], empty) or HINTS[most]
    if most == "too-short":
        if limits := _held_back(empty, Counter(entry.reason for entry in entries)):
            return f"raise max_frames{where}, or leave it out: {limits}"
        return f"lower num_frames (and min_frames){where}, or use longer clips"
    if most == "small-bucket" and where:
        return f"raise repeats or lower train_batch_size{where}, or set allow_dataset_oversubscription"
    return HINTS.get(most) or explained(most) or None


def _caption_hint(entries: Sequence[Dropped], empty: Sequence[Selection]) -> str:
    """For captions that come of something else than a .txt, or that a filter emptied."""
    emptied = sum(entry.detail.startswith(EMPTIED) for entry in entries)
    if 2 * emptied > len(entries):
        return "take out less by caption_filter_list: it leaves nothing of these captions"
    strategies = {selection.dataset.captions.strategy for selection in empty}
    if strategies <= {"parquet", "csv", "jsonl", "huggingface"}:
        return "fill the column of captions, or name another one"
    return ""


def _held_back(empty: Sequence[Selection], counts: Counter[str]) -> str:
    """What is to be said of ``max_frames`` where it leaves out the clips that are not too short."""
    limits = sorted({each.dataset.max_frames for each in empty if each.dataset.max_frames is not None})
    if not counts["too-long"] or not limits:
        return ""
    return f"{counted(counts['too-long'], 'clip')} above {' and '.join(map(str, limits))} frames, the others too short"


def _nothing_found(empty: Sequence[Selection], several: bool) -> DataError:
    """There is not a single clip, but perhaps files of the other kind, or items that are filtered out."""
    others, filtered = (sum(getattr(selection, name) for selection in empty) for name in ("others", "filtered"))
    names = ", ".join(selection.dataset.id for selection in empty)
    if filtered:
        return DataError(
            f"no samples detected: the filter of {names} leaves out all {filtered} items",
            hint="ask for less in filter_func",
        )
    whose = f" (data set {names})" if several or names != FOLDER_ALONE else ""
    folders = ", ".join(str(selection.dataset.root) for selection in empty)
    kinds = sorted({selection.dataset.kind for selection in empty})
    told = f"no samples detected: no {' or '.join(kinds)} files in {folders}{whose}"
    if not others:
        return DataError(told, hint="name the folder of the clips")
    wrong = [selection.dataset for selection in empty if selection.others]
    if any(dataset.role == "eval" for dataset in wrong):
        hint = "name a folder of what is trained on: eval sets hold the same kind"
    else:
        other = "image" if wrong[0].kind == "video" else "video"
        place = f" in data set {', '.join(dataset.id for dataset in wrong)}" if whose else ""
        hint = f'set dataset_type = "{other}"{place}' if place else f'list the folder with dataset_type = "{other}"'
    return DataError(f"{told}, but {counted(others, 'file')} of the other kind", hint=hint)


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
