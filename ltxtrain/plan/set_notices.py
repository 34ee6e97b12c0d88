"""What the plan has to say in sentences about one data set: what was rounded, resampled or cut, what looks wrong.

Everything is counted, and a few clips are named: a set may have a hundred thousand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import mean

from ltxtrain.config import Dataset
from ltxtrain.facts.media import ClipFacts, frames_at
from ltxtrain.facts.reasons import FAULTY
from ltxtrain.plan.buckets import computed_size, ratio_of, target_of_ratio
from ltxtrain.plan.frames import floor_frames
from ltxtrain.plan.records import Dropped, Sample, clip_name
from ltxtrain.plan.select import ProbedClip, Selection, SelectionRule, sample_rate, size_rule
from ltxtrain.plan.size_map import NAME, map_name
from ltxtrain.units import counted

# Below this part of the training rate, frames are shown twice or more often, and the model learns stutter.
LOW_RATE = 0.75
ENLARGED = 1.25
CUT_OFF = 0.95  # of a picture's area; what rounding of sides leaves over is more
LITTLE = 0.5  # of a picture
CUT_TOLD = 0.1  # of a picture that is cut off by chance
NAMED = 3  # clips in one sentence


def selection_notices(selection: Selection, rule: SelectionRule) -> list[str]:
    """About one data set: frame counts, windows, frame rates, sizes that were changed."""
    dataset = selection.dataset
    clips = _used_clips(selection)
    told = [*_idle(dataset), *_found(selection)]
    if dataset.kind == "video":
        told += [
            *_frame_counts(dataset, selection.samples),
            *_windows(dataset, clips, rule.framerate),
            *_rates(dataset, clips, rule.framerate),
            *_interlaced(clips),
        ]
    told += [
        *_sizes(selection, clips),
        *_cut_at_random(selection),
        *_forced(selection, clips, rule),
        *_faces(selection),
    ]
    return [f"{dataset.id}: {text}" for text in told]


def selection_warnings(selection: Selection, rule: SelectionRule) -> list[str]:
    """About one data set: clips left out for a fault, files cut off, wrong tables, material of a low frame rate."""
    dataset = selection.dataset
    clips = _used_clips(selection)
    told = []
    faulty = [entry for entry in selection.dropped if entry.reason in FAULTY]
    if faulty:
        told.append(f"{len(faulty)} of {counted(selection.found, 'clip')} left out for a fault: {_counts(faulty)}")
    told += [*_little_kept(selection), *_cut_off(clips)]
    wrong = [clip for clip in clips if clip.found.stated_size not in (None, (clip.facts.width, clip.facts.height))]
    if wrong:
        said = ", ".join(_contradiction(clip) for clip in wrong[:NAMED]) + _more(len(wrong), "clips")
        told.append(f"the table states other sizes than the files have, and the files count: {said}")
    slow = [clip.facts for clip in clips if clip.facts.fps < LOW_RATE * rule.framerate]
    if slow and dataset.kind == "video" and dataset.fps_policy != "as_is":
        told.append(
            f"{counted(len(slow), 'clip')} with fewer than {LOW_RATE * rule.framerate:g} frames a second "
            f"({_range(slow)}): frames are repeated to reach {rule.framerate:g}, and the model learns the stutter"
        )
    return [f"{dataset.id}: {text}" for text in told]


def quarantine_notices(selections: Sequence[Selection]) -> list[str]:
    """``delete_problematic_images`` makes a list here, never a deletion. Clips that planning finds to be faulty are no
    part of it: they are found again each time."""
    left_out = sum(entry.reason == "quarantined" for found in selections for entry in found.dropped)
    if not left_out:
        return []
    clips = f"{counted(left_out, 'clip')} on the list quarantine.jsonl in the cache folder"
    verb = "is" if left_out == 1 else "are"
    return [f"delete_problematic_images: {clips} {verb} left out; no file is deleted or changed"]


def shared_notices(selections: Sequence[Selection]) -> list[str]:
    """Clips of eval sets that are trained on, too, whatever folder or link names them."""
    trained = {sample.path for found in selections if found.dataset.role == "train" for sample in found.samples}
    told = []
    for found in selections:
        if found.dataset.role != "eval":
            continue
        paths = {clip_name(sample): sample.path for sample in found.samples}
        both = sorted(name for name, path in paths.items() if path in trained)
        if both:
            names = ", ".join(both[:NAMED]) + _more(len(both), "")
            told.append(
                f"{found.dataset.id}: {len(both)} of {counted(len(paths), 'clip')} trained on, too ({names}): the loss "
                "of the set does not tell how others are learnt"
            )
    return told


def size_map_notices(selections: Sequence[Selection], rule: SelectionRule) -> list[str]:
    """Size maps in the output folder whose name is not of a resolution that is trained at."""
    if rule.size_maps is None:
        return []
    used = {found.size_map.path for found in selections}
    there = sorted(path for path in rule.size_maps.glob(NAME.format("*")) if path not in used)
    if not there:
        return []
    wanted = sorted({map_name(size_rule(found.dataset, rule)) for found in selections if not found.size_map.path})
    names = ", ".join(path.name for path in there[:NAMED]) + _more(len(there), "")
    expected = f"; for this run's resolutions the name is {', '.join(wanted[:NAMED])}" if wanted else ""
    return [f"size maps in {rule.size_maps} that no data set uses: {names}{expected}"]


def _used_clips(selection: Selection) -> list[ProbedClip]:
    used = {clip_name(sample) for sample in selection.samples}
    return [clip for clip in selection.probed if clip.found.name in used]


def _found(selection: Selection) -> list[str]:
    told = []
    if selection.others:
        other = "image" if selection.dataset.kind == "video" else "video"
        verb, them = ("is", "it") if selection.others == 1 else ("are", "them")
        files = f"{counted(selection.others, f'{other} file')} in its folder {verb} no part of it"
        told.append(f"{files}: an entry of dataset_type {other} would take {them}")
    if selection.filtered:
        told.append(f"{counted(selection.filtered, 'item')} left out by its own filter")
    return told


def _idle(dataset: Dataset) -> list[str]:
    """Keys of the data set that another of its keys makes idle."""
    idle = []
    if dataset.frame_interval is not None and dataset.bucket_strategy != "resolution_frames":
        idle.append("frame_interval has no effect: bucket_strategy is aspect_ratio")
    if dataset.windows_per_clip > 1 and dataset.window != "uniform":
        idle.append(f"windows_per_clip has no effect: window is {dataset.window}")
    captions = dataset.captions
    alone = captions.strategy == "instanceprompt" or captions.only_instance_prompt
    used = alone or captions.prepend_instance_prompt
    if captions.prepend_instance_prompt and alone:
        idle.append("prepend_instance_prompt has no effect: every caption is instance_prompt alone")
    if captions.disable_multiline_split and (alone or captions.strategy != "textfile"):
        idle.append("disable_multiline_split has no effect: captions do not come from text files")
    if captions.instance_prompt and not used:
        idle.append("instance_prompt has no effect: set prepend_instance_prompt or only_instance_prompt")
    return idle


def _frame_counts(dataset: Dataset, samples: Sequence[Sample]) -> list[str]:
    told = []
    trained = floor_frames(dataset.num_frames)
    if trained != dataset.num_frames:
        told.append(f"num_frames {dataset.num_frames} was asked, {trained} are trained: frame counts are 8k+1")
    least = floor_frames(dataset.min_frames)
    if least != dataset.min_frames != dataset.num_frames:
        told.append(f"min_frames {dataset.min_frames} was asked, {least} is the least that is used")
    shorter = {clip_name(sample) for sample in samples if sample.bucket.frames < trained}
    if shorter:
        told.append(f"{counted(len(shorter), 'clip')} shorter than {trained} frames and used at what they hold")
    return told


def _windows(dataset: Dataset, clips: Sequence[ProbedClip], framerate: float) -> list[str]:
    """Material that is left lying: with ``all`` none is, with ``uniform`` the user has said how much."""
    if dataset.window != "first":
        return []
    trained = floor_frames(dataset.num_frames)
    rates = ((clip, sample_rate(dataset, clip.facts, framerate)) for clip in clips)
    longer = [clip for clip, rate in rates if frames_at(clip.facts.duration_s, rate) >= 2 * trained]
    if not longer:
        return []
    part = f"{trained} frames" if dataset.fps_policy == "as_is" else f"{trained / framerate:.1f} s"
    return [
        f"only the first {part} of {counted(len(longer), 'clip')} ({_names(longer)}) are used; "
        "video_window all takes every part"
    ]


def _rates(dataset: Dataset, clips: Sequence[ProbedClip], framerate: float) -> list[str]:
    other = [clip.facts for clip in clips if clip.facts.variable_rate or abs(clip.facts.fps / framerate - 1) > 0.01]
    if not other:
        return []
    if dataset.fps_policy == "as_is":
        return [f"{counted(len(other), 'clip')} used frame by frame, at their own rates ({_range(other)})"]
    return [f"{counted(len(other), 'clip')} resampled to {framerate:g} fps ({_range(other)})"]


def _interlaced(clips: Sequence[ProbedClip]) -> list[str]:
    found = [clip for clip in clips if clip.facts.interlaced]
    if not found:
        return []
    verb = "is" if len(found) == 1 else "are"
    return [
        f"{counted(len(found), 'clip')} {verb} interlaced ({_names(found)}) and trained as whole frames; "
        "deinterlace them first"
    ]


def _sizes(selection: Selection, clips: Sequence[ProbedClip]) -> list[str]:
    told = []
    widths = {clip.found.name: clip.facts.width for clip in clips}
    first = {clip_name(sample): sample for sample in selection.samples}
    enlarged = [name for name, sample in first.items() if sample.resize[0] > ENLARGED * widths[name]]
    if enlarged:
        told.append(
            f"{counted(len(enlarged), 'clip')} smaller than the training size and enlarged; a lower resolution costs "
            "less and loses nothing"
        )
    if selection.reduced:
        sizes = "above maximum_image_size and reduced to target_downsample_size"
        share = _share_of_reduced(selection)
        part = f"; about {100 * share:.0f} % of each picture is trained on" if LITTLE <= share < CUT_OFF else ""
        told.append(f"{counted(len(selection.reduced), 'clip')} {sizes}{part}")
    return told


def _share_of_reduced(selection: Selection) -> float:
    """Of the pictures that ``maximum_image_size`` reduces, the part that is in the cut, on average."""
    reduced = set(selection.reduced)
    first = {clip_name(sample): sample for sample in selection.samples}
    kept = [_part_kept(sample) for name, sample in first.items() if name in reduced]
    return mean(kept) if kept else 1.0


def _little_kept(selection: Selection) -> list[str]:
    share = _share_of_reduced(selection)
    if share >= LITTLE:
        return []
    count = counted(len(selection.reduced), "clip")
    return [
        f"only {100 * share:.0f} % of each picture is trained on, in {count} above maximum_image_size: lower "
        "target_downsample_size, or leave maximum_image_size out"
    ]


def _cut_at_random(selection: Selection) -> list[str]:
    """Without ``crop`` many expect whole pictures; what the bucket's shape leaves over goes at a place by chance."""
    dataset = selection.dataset
    if dataset.crop or dataset.crop_style != "random":
        return []
    reduced = set(selection.reduced)  # told on their own
    parts = {clip_name(sample): _part_kept(sample) for sample in selection.samples}
    lost = [1 - kept for name, kept in parts.items() if name not in reduced and 1 - kept > CUT_TOLD]
    if not lost:
        return []
    return [
        f"{counted(len(lost), 'clip')} with up to {100 * max(lost):.0f} % of the picture cut off, at a place drawn by "
        "chance (crop_style random, the default of a list, cuts without crop, too); crop_style center keeps the middle"
    ]


def _part_kept(sample: Sample) -> float:
    return sample.bucket.width * sample.bucket.height / (sample.resize[0] * sample.resize[1])


def _forced(selection: Selection, clips: Sequence[ProbedClip], rule: SelectionRule) -> list[str]:
    """What the user's size map changed, and which of its lines are for no clip of this set."""
    dataset, map_ = selection.dataset, selection.size_map
    if map_.path is None:
        return []
    sizes = size_rule(dataset, rule, map_)
    if dataset.crop and dataset.crop_aspect in ("closest", "random"):
        ratios = {ratio for ratio, _ in dataset.aspects}
    else:
        ratios = {round(clip.facts.width / clip.facts.height, sizes.rounding) or 1.0 for clip in clips}
    worked_out = {computed_size(ratio, sizes): target_of_ratio(ratio, sizes) for ratio in ratios}
    changed = sorted((old, new) for old, new in worked_out.items() if old != new)
    matched = {ratio_of(old, sizes.rounding) for old in worked_out}
    idle = sorted(ratio for ratio in map_.sizes if ratio not in matched)
    told = []
    if changed:
        words = [f"{new[0]}x{new[1]} in place of {old[0]}x{old[1]}" for old, new in changed[: 2 * NAMED]]
        told.append(f"sizes of buckets from {map_.path}: {', '.join(words)}{_more(len(changed), 'sizes', 2 * NAMED)}")
    if idle:
        there = ", ".join(f"{ratio:g}" for ratio in sorted(matched)[: 2 * NAMED])
        unused = ", ".join(f"{ratio:g}" for ratio in idle[: 2 * NAMED]) + _more(len(idle), "ratios", 2 * NAMED)
        told.append(f"{map_.path} says sizes for ratios that no bucket has: {unused}; buckets have {there}")
    return told


def _faces(selection: Selection) -> list[str]:
    if not selection.faceless:
        return []
    shown = f"{selection.faceless} of {len(selection.samples)} samples"
    return [f"no face is found in {shown}: those are cut in the middle"]


def _cut_off(clips: Sequence[ProbedClip]) -> list[str]:
    """Files whose pictures end before their header says."""
    certain, likely = [], []
    for clip in clips:
        facts, name = clip.facts, clip.found.name
        if facts.frames < 0.9 * facts.declared_frames:
            certain.append(f"{name} is cut off: {facts.frames} of {facts.declared_frames} frames are there")
        elif facts.declared_s - facts.duration_s > max(0.5, 0.1 * facts.declared_s):
            said = f"its header says {facts.declared_s:.1f} s, its pictures end after {facts.duration_s:.1f} s"
            likely.append(f"{name} may be cut off: {said}")
    told = [*certain, *likely]
    rest = len(told) - 2 * NAMED
    return told[: 2 * NAMED] + ([f"{counted(rest, 'clip')} more that are cut off, or may be"] if rest > 0 else [])


def _contradiction(clip: ProbedClip) -> str:
    stated = clip.found.stated_size or (0, 0)
    return f"{clip.found.name} {stated[0]}x{stated[1]}, not {clip.facts.width}x{clip.facts.height}"


def _range(facts: Sequence[ClipFacts]) -> str:
    rates = [clip.fps for clip in facts]
    low, high = f"{min(rates):.4g}", f"{max(rates):.4g}"
    text = f"{low} fps" if low == high else f"{low} to {high} fps"
    variable = sum(clip.variable_rate for clip in facts)
    return f"{text}, {variable} of them variable" if variable else text


def _counts(dropped: Iterable[Dropped]) -> str:
    counts = Counter(entry.reason for entry in dropped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _names(clips: Sequence[ProbedClip]) -> str:
    return ", ".join(clip.found.name for clip in clips[:NAMED]) + _more(len(clips), "")


def _more(count: int, what: str, named: int = NAMED) -> str:
    return f" and {count - named} more{f' {what}' if what else ''}" if count > named else ""
