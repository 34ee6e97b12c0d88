"""From the clips of one data set to its samples: window, bucket, resize and crop of each, or the reason against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from ltxtrain.config import Dataset
from ltxtrain.facts.faces import FaceRequest, find_faces
from ltxtrain.facts.index import FoundClip, index_clips
from ltxtrain.facts.media import ClipFacts, MediaError, Progress, frames_at, probe_clips
from ltxtrain.facts.quarantine import Quarantined, read_quarantine
from ltxtrain.plan.buckets import Size, SizeRule, crop_around, crop_offset
from ltxtrain.plan.frames import floor_frames, floor_to_interval, windows
from ltxtrain.plan.records import Bucket, Dropped, Sample, clip_name
from ltxtrain.plan.shapes import Shape, fit_shape, input_size
from ltxtrain.plan.size_map import NO_MAP, SizeMap, read_size_map

EVAL_SEED = 0  # whatever the run's seed is, so that losses of two runs can be compared


@dataclass(frozen=True)
class SelectionRule:
    """What all data sets share. ``alignment`` and ``rounding`` are the bucket rules' (``plan/buckets.py``).

    ``size_maps`` is the folder where a user's size maps are looked for; below ``cache_dir`` facts are remembered.
    ``progress`` hears how many of a data set's files are opened.
    """

    framerate: float
    alignment: int
    rounding: int
    seed: int
    size_maps: Path | None = None
    cache_dir: Path | None = None
    progress: Progress | None = None

    @property
    def memo(self) -> Path | None:
        return self.cache_dir / "index" if self.cache_dir else None


@dataclass(frozen=True)
class ProbedClip:
    found: FoundClip
    facts: ClipFacts


@dataclass(frozen=True)
class Selection:
    """``probed`` holds every clip that could be read, also those that are not used. ``found`` counts all clips.

    ``size_map`` is the user's, ``faceless`` counts samples in which no face was found to cut around, ``others`` files
    of the other kind in the set's folder, ``filtered`` items that the set's own filter leaves out, ``reduced`` are the
    names of clips above ``maximum_image_size``.
    """

    dataset: Dataset
    found: int
    probed: tuple[ProbedClip, ...]
    samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    size_map: SizeMap = NO_MAP
    faceless: int = 0
    others: int = 0
    filtered: int = 0
    reduced: tuple[str, ...] = ()


def select_samples(dataset: Dataset, rule: SelectionRule) -> Selection:
    """Index and probe a data set and decide on each clip. ``found`` = clips with samples + dropped, always."""
    if dataset.role == "eval":
        rule = replace(rule, seed=EVAL_SEED)
    sizes = read_size_map(rule.size_maps, size_rule(dataset, rule)) if rule.size_maps else NO_MAP
    index = index_clips(dataset, cache_dir=rule.cache_dir, seed=rule.seed)
    dropped = [Dropped(dataset.id, entry.name, entry.reason, entry.detail) for entry in index.rejected]
    listed = read_quarantine(rule.cache_dir) if dataset.quarantine and rule.cache_dir else {}
    clips = []
    for clip in index.clips:
        entry = listed.get(str(clip.path))
        if entry is None:
            clips.append(clip)
        else:
            dropped.append(_quarantined(dataset, clip, entry))
    probed: list[ProbedClip] = []
    probes = probe_clips([clip.path for clip in clips], dataset.kind, rule.memo, dataset.root, rule.progress)
    for clip, facts in zip(clips, probes, strict=True):
        if isinstance(facts, MediaError):
            dropped.append(Dropped(dataset.id, clip.name, facts.reason, facts.detail))
        else:
            probed.append(ProbedClip(clip, facts))
    samples: list[tuple[Sample, ...]] = []
    for probed_clip in probed:
        fitted = fit_clip(dataset, probed_clip, rule, sizes)
        if isinstance(fitted, Dropped):
            dropped.append(fitted)
        else:
            samples.append(fitted)
    kept, over = _subset(dataset, samples)
    chosen = tuple(sample for clip_samples in kept for sample in clip_samples)
    around_faces = dataset.crop_style == "face"
    chosen, faceless = _cut_around_faces(chosen, rule.memo) if around_faces else (chosen, 0)
    return Selection(
        dataset=dataset,
        found=len(index.clips) + len(index.rejected),
        probed=tuple(probed),
        samples=chosen,
        dropped=tuple(sorted([*dropped, *over], key=lambda entry: entry.path)),
        size_map=sizes,
        faceless=faceless,
        others=index.others,
        filtered=index.filtered,
        reduced=_reduced(dataset, probed, {clip_name(sample) for sample in chosen}),
    )


def _reduced(dataset: Dataset, probed: Sequence[ProbedClip], used: set[str]) -> tuple[str, ...]:
    if dataset.maximum_image_size is None:
        return ()
    sizes = ((clip.found.name, (clip.facts.width, clip.facts.height)) for clip in probed)
    return tuple(name for name, size in sizes if name in used and input_size(dataset, size) != size)


def _quarantined(dataset: Dataset, clip: FoundClip, entry: Quarantined) -> Dropped:
    return Dropped(dataset.id, clip.name, "quarantined", f"{entry.reason}: {entry.detail}")


def size_rule(dataset: Dataset, rule: SelectionRule, sizes: SizeMap | None = None) -> SizeRule:
    return SizeRule(
        dataset.resolution,
        dataset.resolution_type,
        rule.alignment,
        rule.rounding,
        square=dataset.crop and dataset.crop_aspect == "square",
        forced=sizes.sizes if sizes else {},
    )


def fit_clip(
    dataset: Dataset, clip: ProbedClip, rule: SelectionRule, sizes: SizeMap | None = None
) -> tuple[Sample, ...] | Dropped:
    """The samples of one clip: one for each window. All of them lie in the same bucket.

    With ``crop_style`` face the cut is in the middle here: the picture itself is looked at later.
    """
    facts, name = clip.facts, clip.found.name
    size = facts.width, facts.height
    shape = fit_shape(dataset, size, size_rule(dataset, rule, sizes), f"{rule.seed}:{dataset.id}/{name}")
    if not isinstance(shape, Shape):
        return Dropped(dataset.id, name, *shape)
    fps = sample_rate(dataset, facts, rule.framerate)
    available = 1 if dataset.kind == "image" else frames_at(facts.duration_s, fps)
    frames = 1 if dataset.kind == "image" else frame_count(dataset, available)
    most = dataset.max_frames
    if frames is None:
        detail = f"{available} frames at {fps:.4g} fps; at least {floor_frames(dataset.min_frames)} are needed"
        return Dropped(dataset.id, name, "too-short", detail)
    if most is not None and floor_frames(available) > most:
        return Dropped(dataset.id, name, "too-long", f"{available} frames at {fps:.4g} fps; max_frames is {most}")
    bucket = Bucket(*shape.target, frames)
    style = "center" if dataset.crop_style == "face" else dataset.crop_style
    samples = []
    for window in windows(available, frames, dataset.window, dataset.windows_per_clip, dataset.window_stride):
        sample_id = f"{dataset.id}/{name}#{window.index}"
        samples.append(
            Sample(
                id=sample_id,
                dataset=dataset.id,
                path=str(clip.found.path),
                captions=clip.found.captions,
                start=window.first_frame / fps,
                fps=fps,
                bucket=bucket,
                resize=shape.resize,
                crop=crop_offset(shape.resize, shape.target, style, f"{rule.seed}:{sample_id}"),
                repeats=dataset.repeats,
                i2v=dataset.is_i2v and frames > 1,
                kind=dataset.kind,
            )
        )
    return tuple(samples)


def sample_rate(dataset: Dataset, facts: ClipFacts, framerate: float) -> float:
    """Frames a second at which a clip is read: the training rate, or with ``as_is`` the clip's own."""
    return facts.fps if dataset.fps_policy == "as_is" and dataset.kind == "video" else framerate


def frame_count(dataset: Dataset, available: int) -> int | None:
    """Frames that a clip with ``available`` frames is trained at, of the form 8k+1; None when it is too short.

    With ``aspect_ratio`` all clips have ``num_frames``. With ``resolution_frames`` a shorter clip, down to
    ``min_frames``, is used at the most frames that it holds. From ``num_frames`` on, ``min_frames`` asks what a clip
    holds, of which whole intervals are used.
    """
    wanted, least, held = (floor_frames(count) for count in (dataset.num_frames, dataset.min_frames, available))
    if held < least:
        return None
    if dataset.bucket_strategy == "resolution_frames":
        frames = floor_to_interval(min(wanted, held), dataset.frame_interval)
        return frames if frames >= least or least >= wanted else None
    return wanted if held >= wanted else None


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


def _cut_around_faces(samples: Sequence[Sample], memo: Path | None) -> tuple[tuple[Sample, ...], int]:
    """Each sample with its cut around the largest face of its first frame, and how many show none: those keep theirs.

    A picture of which nothing is cut off is not searched.
    """
    searched = [sample for sample in samples if sample.resize != _size_of(sample.bucket)]
    requests = [FaceRequest(Path(sample.path), sample.start, sample.kind) for sample in searched]
    centres = {sample.id: face for sample, face in zip(searched, find_faces(requests, memo), strict=True)}
    moved = []
    for sample in samples:
        centre = centres.get(sample.id)
        crop = sample.crop if centre is None else crop_around(sample.resize, _size_of(sample.bucket), centre)
        moved.append(replace(sample, crop=crop))
    return tuple(moved), sum(centre is None for centre in centres.values())


def _size_of(bucket: Bucket) -> Size:
    return bucket.width, bucket.height
