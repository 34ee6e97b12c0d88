"""What the plan has to say in sentences: what was rounded, resampled or repeated, and what looks like a mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ltxtrain.config import parse_resolutions
from ltxtrain.facts.machine import Machine
from ltxtrain.facts.media import ClipFacts, frames_at
from ltxtrain.facts.reasons import Reason
from ltxtrain.plan.filling import Filled
from ltxtrain.plan.frames import floor_frames
from ltxtrain.plan.length import RunLength
from ltxtrain.plan.prompts import render_size
from ltxtrain.plan.records import Dropped, PhaseMemory, Sample
from ltxtrain.plan.select import ProbedClip, Selection
from ltxtrain.units import format_bytes

if TYPE_CHECKING:
    from ltxtrain.config import Dataset
    from ltxtrain.config.optim import ScheduleConfig
    from ltxtrain.config.validation import ValidationConfig
    from ltxtrain.plan.prompts import ValidationVideo

FEW_CLIPS = 4
MANY_EPOCHS = 400
# Below this part of the training rate, frames are shown twice or more often, and the model learns stutter.
LOW_RATE = 0.75
ENLARGED = 1.25
FAULTY: tuple[Reason, ...] = (
    "unreadable",
    "empty",
    "not-video",
    "damaged",
    "no-video",
    "too-large",
    "outside-folder",
    "no-caption",
    "bad-caption",
)


def selection_notices(selection: Selection, framerate: float) -> list[str]:
    """About one data set: frame counts, windows, frame rates, enlargement."""
    dataset = selection.dataset
    used = {sample.path for sample in selection.samples}
    clips = [clip for clip in selection.probed if str(clip.found.path) in used]
    notices = [
        *_idle_notices(dataset),
        *_frame_notices(dataset, selection.samples),
        *_window_notices(dataset, clips, framerate),
    ]
    resampled = [clip.facts for clip in clips if clip.facts.variable_rate or abs(clip.facts.fps / framerate - 1) > 0.01]
    if resampled:
        notices.append(f"{dataset.id}: {_clips(len(resampled))} resampled to {framerate:g} fps ({_rates(resampled)})")
    widths = {str(clip.found.path): clip.facts.width for clip in clips}
    enlarged = {sample.path for sample in selection.samples if sample.resize[0] > ENLARGED * widths[sample.path]}
    if enlarged:
        notices.append(
            f"{dataset.id}: {_clips(len(enlarged))} smaller than the training size and enlarged; a lower resolution "
            "costs less and loses nothing"
        )
    return notices


def selection_warnings(selection: Selection, framerate: float) -> list[str]:
    """About one data set: clips left out for a fault, files cut off, material of a low frame rate."""
    dataset = selection.dataset
    warnings = []
    faulty = [entry for entry in selection.dropped if entry.reason in FAULTY]
    if faulty:
        warnings.append(
            f"{dataset.id}: {len(faulty)} of {_clips(selection.found)} left out for a fault: {_counts(faulty)}"
        )
    used = {sample.path for sample in selection.samples}
    for clip in selection.probed:
        facts = clip.facts
        if str(clip.found.path) not in used:
            continue
        if facts.frames < 0.9 * facts.declared_frames:
            there = f"{facts.frames} of {facts.declared_frames} frames are there"
            warnings.append(f"{dataset.id}: {clip.found.name} is cut off: {there}")
        elif facts.declared_s - facts.duration_s > max(0.5, 0.1 * facts.declared_s):
            there = f"its header says {facts.declared_s:.1f} s, its pictures end after {facts.duration_s:.1f} s"
            warnings.append(f"{dataset.id}: {clip.found.name} may be cut off: {there}")
    slow = [c.facts for c in selection.probed if str(c.found.path) in used and c.facts.fps < LOW_RATE * framerate]
    if slow:
        warnings.append(
            f"{dataset.id}: {_clips(len(slow))} with fewer than {LOW_RATE * framerate:g} frames a second "
            f"({_rates(slow)}): frames are repeated to reach {framerate:g}, and the model learns the stutter"
        )
    return warnings


def quarantine_notices(asked: bool, dropped: Sequence[Dropped]) -> list[str]:
    """``delete_problematic_images`` makes a list here, never a deletion."""
    faulty = sum(entry.reason in FAULTY for entry in dropped)
    if not asked or not faulty:
        return []
    return [f"delete_problematic_images: {_clips(faulty)} on the list in dataset.jsonl; no file is deleted or changed"]


def bucket_notices(filled: Filled, batch_size: int, accumulation: int) -> list[str]:
    """Buckets that hold fewer clips than one step draws."""
    if not filled.filled:
        return []
    keys = ", ".join(bucket.bucket.key for bucket in filled.filled)
    need = f"{batch_size}" if accumulation == 1 else f"{batch_size} x {accumulation}"
    return [f"fewer clips than one step draws ({need}) in {keys}: a clip is drawn more than once to fill a batch"]


def length_notices(length: RunLength, samples: Sequence[Sample], steps_given: bool) -> list[str]:
    notices = []
    if not steps_given:
        notices.append(f"neither max_train_steps nor num_train_epochs sets a length: {length.steps} steps")
    if len(samples) < FEW_CLIPS:
        count = "one training sample" if len(samples) == 1 else f"{len(samples)} training samples"
        notices.append(f"only {count}: the adapter will learn what is in there and little else")
    if length.epochs > MANY_EPOCHS:
        notices.append(f"each sample is seen about {length.epochs:.0f} times: fewer steps may look better")
    return notices


def schedule_warnings(schedule: ScheduleConfig, steps: int) -> list[str]:
    """A warm-up as long as the run. With ``cosine`` the guides mean another curve by that, which is named."""
    name, warmup = schedule.lr_scheduler, schedule.lr_warmup_steps
    if name in ("constant", "sine", "cosine_half_period") or warmup < steps:
        return []
    text = f"the learning rate never reaches its highest value: lr_warmup_steps is {warmup}, the run has {steps} steps"
    if name == "cosine":
        text += (
            "; lr_scheduler cosine warms up here, and the curve of the guides, which only falls over that many steps, "
            "is lr_scheduler cosine_half_period"
        )
    return [text]


def machine_notices(machine: Machine) -> list[str]:
    """Hardware that lies idle."""
    if len(machine.gpus) < 2:
        return []
    return [f"one of {len(machine.gpus)} GPUs is used: a run is one process"]


def validation_notices(section: ValidationConfig, videos: Sequence[ValidationVideo]) -> list[str]:
    """Sizes and lengths that are rounded, and captions in place of prompts."""
    asked = parse_resolutions(section.validation_resolution)
    rounded = [f"{w}x{h} as {rendered[0]}x{rendered[1]}" for w, h in asked if (rendered := render_size(w, h)) != (w, h)]
    notices = [f"validation_resolution: {', '.join(rounded)}: sides are multiples of 32"] if rounded and videos else []
    frames = section.validation_num_video_frames
    if videos and frames is not None and videos[0].frames != frames:
        notices.append(f"validation_num_video_frames: {frames} as {videos[0].frames}: frame counts are 8k+1")
    return notices + _caption_notices(section, videos)


def _caption_notices(section: ValidationConfig, videos: Sequence[ValidationVideo]) -> list[str]:
    if section.validation_disable or section.validation_prompt or section.user_prompt_library:
        return []
    many = "the captions of two clips are" if len({video.prompt for video in videos}) > 1 else "a clip's caption is"
    return [f"no validation_prompt is given: {many} rendered instead"] if videos else []


def memory_warnings(memory: Sequence[PhaseMemory], machine: Machine) -> list[str]:
    """Phases whose estimate is more than the smallest device of this machine has."""
    on_device = machine.device != "cpu" and bool(machine.gpus)
    device_bytes = min(gpu.memory_bytes for gpu in machine.gpus) if on_device else machine.memory_bytes
    warnings = []
    for phase in memory:
        available = machine.memory_bytes if phase.device in ("cpu", "main memory") else device_bytes
        if available and phase.total > available:
            warnings.append(
                f"memory: {phase.phase} needs about {format_bytes(phase.total)} on {phase.device}, "
                f"{format_bytes(available)} are there; {_memory_hint(phase.phase)}"
            )
    return warnings


def _memory_hint(phase: str) -> str:
    return {
        "latents": "set vae_enable_tiling, or lower resolution or num_frames",
        "training": "keep gradient_checkpointing on, lower train_batch_size, resolution or num_frames",
        "validation": "set vae_enable_tiling, lower validation_resolution, or set validation_disable",
    }.get(phase, "a machine with more memory is needed for this model")


def _idle_notices(dataset: Dataset) -> list[str]:
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
    return [f"{dataset.id}: {text}" for text in idle]


def _frame_notices(dataset: Dataset, samples: Sequence[Sample]) -> list[str]:
    notices = []
    trained = floor_frames(dataset.num_frames)
    if trained != dataset.num_frames:
        notices.append(
            f"{dataset.id}: num_frames {dataset.num_frames} was asked, {trained} are trained: frame counts are 8k+1"
        )
    least = floor_frames(dataset.min_frames)
    if least != dataset.min_frames != dataset.num_frames:
        notices.append(f"{dataset.id}: min_frames {dataset.min_frames} was asked, {least} is the least that is used")
    shorter = {sample.path for sample in samples if sample.bucket.frames < trained}
    if shorter:
        notices.append(f"{dataset.id}: {_clips(len(shorter))} shorter than {trained} frames and used at what they hold")
    return notices


def _window_notices(dataset: Dataset, clips: Sequence[ProbedClip], framerate: float) -> list[str]:
    """Material that is left lying: with ``all`` none is, with ``uniform`` the user has said how much."""
    if dataset.window != "first":
        return []
    trained = floor_frames(dataset.num_frames)
    longer = [clip for clip in clips if frames_at(clip.facts.duration_s, framerate) >= 2 * trained]
    if not longer:
        return []
    seconds = trained / framerate
    return [
        f"{dataset.id}: only the first {seconds:.1f} s of {_clips(len(longer))} ({_names(longer)}) are used; "
        "video_window all takes every part"
    ]


def _rates(facts: Sequence[ClipFacts]) -> str:
    rates = [clip.fps for clip in facts]
    low, high = f"{min(rates):.4g}", f"{max(rates):.4g}"
    text = f"{low} fps" if low == high else f"{low} to {high} fps"
    variable = sum(clip.variable_rate for clip in facts)
    return f"{text}, {variable} of them variable" if variable else text


def _counts(dropped: Sequence[Dropped]) -> str:
    counts = Counter(entry.reason for entry in dropped)
    return ", ".join(f"{count} {reason}" for reason, count in counts.most_common())


def _clips(count: int) -> str:
    return f"{count} clip" if count == 1 else f"{count} clips"


def _names(clips: Sequence[ProbedClip]) -> str:
    names = [clip.found.name for clip in clips]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
