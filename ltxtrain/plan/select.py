"""From the clips of one data set to its samples: window, bucket, resize and crop of each, or the reason against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from ltxtrain.config import Dataset
from ltxtrain.facts.index import FoundClip, index_folder
from ltxtrain.facts.media import ClipFacts, MediaError, frames_at, probe_clips
from ltxtrain.facts.reasons import Reason
from ltxtrain.plan.buckets import SizeRule, covering_size, crop_offset, is_large_enough, target_size
from ltxtrain.plan.frames import floor_frames, floor_to_interval, windows
from ltxtrain.plan.records import Bucket, Dropped, Sample


@dataclass(frozen=True)
class SelectionRule:
    """What all data sets share. ``alignment`` and ``rounding`` are the bucket rules' (``plan/buckets.py``)."""

    framerate: float
    alignment: int
    rounding: int
    seed: int


@dataclass(frozen=True)
class ProbedClip:
    found: FoundClip
    facts: ClipFacts


@dataclass(frozen=True)
class Selection:
    """``probed`` holds every clip that could be read, also those that are not used. ``found`` counts all clips."""

    dataset: Dataset
    found: int
    probed: tuple[ProbedClip, ...]
    samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]


def select_samples(dataset: Dataset, rule: SelectionRule) -> Selection:
    """Index and probe a data set and decide on each clip. ``found`` = clips with samples + dropped, always."""
    index = index_folder(dataset.root, dataset.captions)
    dropped = [Dropped(dataset.id, entry.name, entry.reason, entry.detail) for entry in index.rejected]
    probed: list[ProbedClip] = []
    for clip, facts in zip(index.clips, probe_clips([clip.path for clip in index.clips]), strict=True):
        if isinstance(facts, MediaError):
            dropped.append(Dropped(dataset.id, clip.name, facts.reason, facts.detail))
        else:
            probed.append(ProbedClip(clip, facts))
    samples: list[tuple[Sample, ...]] = []
    for probed_clip in probed:
        fitted = fit_clip(dataset, probed_clip, rule)
        if isinstance(fitted, Dropped):
            dropped.append(fitted)
        else:
            samples.append(fitted)
    kept, over = _subset(dataset, samples)
    return Selection(
        dataset=dataset,
        found=len(index.clips) + len(index.rejected),
        probed=tuple(probed),
        samples=tuple(sample for clip_samples in kept for sample in clip_samples),
        dropped=tuple(sorted([*dropped, *over], key=lambda entry: entry.path)),
    )


def fit_clip(dataset: Dataset, clip: ProbedClip, rule: SelectionRule) -> tuple[Sample, ...] | Dropped:
    """The samples of one clip: one for each window. All of them lie in the same bucket."""
    facts, name = clip.facts, clip.found.name
    unfit = _unfit_size(dataset, facts)
    if unfit is not None:
        return Dropped(dataset.id, name, *unfit)
    available = frames_at(facts.duration_s, rule.framerate)
    frames = frame_count(dataset, available)
    least, most = floor_frames(dataset.min_frames), dataset.max_frames
    if frames is None:
        detail = f"{available} frames at {rule.framerate:g} fps; at least {least} are needed"
        return Dropped(dataset.id, name, "too-short", detail)
    if most is not None and floor_frames(available) > most:
        detail = f"{available} frames at {rule.framerate:g} fps; max_frames is {most}"
        return Dropped(dataset.id, name, "too-long", detail)
    size_rule = SizeRule(
        dataset.resolution,
        dataset.resolution_type,
        rule.alignment,
        rule.rounding,
        square=dataset.crop and dataset.crop_aspect == "square",
    )
    target = target_size(facts.width, facts.height, size_rule)
    resize = covering_size(facts.width, facts.height, target)
    bucket = Bucket(*target, frames)
    samples = []
    for window in windows(available, frames, dataset.window, dataset.windows_per_clip):
        sample_id = f"{dataset.id}/{name}#{window.index}"
        samples.append(
            Sample(
                id=sample_id,
                dataset=dataset.id,
                path=str(clip.found.path),
                captions=clip.found.captions,
                start=window.first_frame / rule.framerate,
                fps=rule.framerate,
                bucket=bucket,
                resize=resize,
                crop=crop_offset(resize, target, dataset.crop_style, f"{rule.seed}:{sample_id}"),
                repeats=dataset.repeats,
                i2v=dataset.is_i2v and frames > 1,
            )
        )
    return tuple(samples)


def frame_count(dataset: Dataset, available: int) -> int | None:
    """Frames that a clip with ``available`` frames is trained at, of the form 8k+1; None when it is too short.

    With ``aspect_ratio`` all clips have ``num_frames``. With ``resolution_frames`` a shorter clip, down to
    ``min_frames``, is used at the most frames that it holds.
    """
    wanted, least, held = (floor_frames(count) for count in (dataset.num_frames, dataset.min_frames, available))
    if held < least:
        return None
    if dataset.bucket_strategy == "resolution_frames":
        frames, most = (floor_to_interval(count, dataset.frame_interval) for count in (min(wanted, held), wanted))
        return frames if frames >= min(most, least) else None
    return wanted if held >= wanted else None


def _unfit_size(dataset: Dataset, facts: ClipFacts) -> tuple[Reason, str] | None:
    size, aspect = f"{facts.width}x{facts.height}", facts.width / facts.height
    if not is_large_enough(facts.width, facts.height, dataset.minimum_image_size, dataset.resolution_type):
        return "too-small", f"{size}; minimum_image_size is {dataset.minimum_image_size:g} ({dataset.resolution_type})"
    least, most = dataset.minimum_aspect_ratio, dataset.maximum_aspect_ratio
    if (least is not None and aspect < least) or (most is not None and aspect > most):
        allowed = f"{'any' if least is None else f'{least:g}'} to {'any' if most is None else f'{most:g}'}"
        return "wrong-shape", f"{size}, aspect ratio {aspect:.2f}; allowed is {allowed}"
    return None


def _subset(dataset: Dataset, clips: Sequence[tuple[Sample, ...]]) -> tuple[list[tuple[Sample, ...]], list[Dropped]]:
    """At most ``max_num_samples`` clips: those whose digest of id and name is smallest, whatever else there is."""
    limit = dataset.max_num_samples
    if limit is None or len(clips) <= limit:
        return list(clips), []
    ranked = sorted(clips, key=lambda samples: sha256(samples[0].id.encode()).digest())
    chosen = {samples[0].id for samples in ranked[:limit]}
    detail = f"max_num_samples keeps {limit} of {len(clips)} clips"
    over = [
        Dropped(dataset.id, clip_name(samples[0]), "over-limit", detail)
        for samples in clips
        if samples[0].id not in chosen
    ]
    return [samples for samples in clips if samples[0].id in chosen], over


def clip_name(sample: Sample) -> str:
    """The clip's path inside its data set."""
    return sample.id.removeprefix(f"{sample.dataset}/").rpartition("#")[0]
