"""Everything that can be decided about a run before it costs anything: configuration, clips, machine -> ``Plan``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ltxtrain.config import LoadedConfig, TrainConfig, dataset_notices, resolve_datasets
from ltxtrain.errors import DataError
from ltxtrain.facts.container import no_clips
from ltxtrain.facts.machine import Machine, probe_machine
from ltxtrain.facts.models import ModelFacts, TransformerFacts, lora_params, model_facts, transformer_facts
from ltxtrain.facts.reasons import EXPLANATIONS
from ltxtrain.plan import disk, notices
from ltxtrain.plan.device import device_warnings
from ltxtrain.plan.filling import Filled, SmallBuckets, fill_buckets
from ltxtrain.plan.length import RunLength, run_length
from ltxtrain.plan.loss import Place, loss_warnings
from ltxtrain.plan.memory import TrainingSetup, estimate_memory
from ltxtrain.plan.prompts import ValidationVideo, validation_videos
from ltxtrain.plan.records import Bucket, DatasetPlan, Dropped, PhaseMemory, Plan, Sample
from ltxtrain.plan.select import Selection, SelectionRule, select_samples
from ltxtrain.plan.targets import check_targets, lora_targets

VALUE_BYTES = {"no": 4, "fp32": 4, "bf16": 2, "fp16": 2, "fp8": 2}


@dataclass(frozen=True)
class Needs:
    """Disk and memory, as far as the model's sizes are known."""

    disk: tuple[tuple[str, int], ...]
    memory: tuple[PhaseMemory, ...]
    warnings: tuple[str, ...]


def make_plan(loaded: LoadedConfig, machine: Machine | None = None, data_dir: Path | None = None) -> Plan:
    """Probe the clips and decide on everything. Reads files and writes none.

    ``data_dir`` is a folder of clips that were made because no data is named. Raises ``ConfigError`` for what cannot
    work, ``DataError`` when there is nothing to train on, ``ModelError`` for a local model that cannot be read.
    """
    config = loaded.config
    check_targets(config.adapter, _transformer_facts(config), loaded.sources.get("peft_lora_target_modules", ""))
    machine = machine or probe_machine()
    data = config.data if data_dir is None else config.data.model_copy(update={"instance_data_dir": data_dir})
    if not (data.instance_data_dir or data.datasets or data.data_backend_config) and (told := no_clips(os.environ)):
        raise told
    rule = SelectionRule(data.framerate, data.aspect_bucket_alignment, data.aspect_bucket_rounding, config.model.seed)
    selections = [select_samples(dataset, rule) for dataset in resolve_datasets(data)]
    samples = [sample for selection in selections for sample in selection.samples]
    dropped = tuple(entry for selection in selections for entry in selection.dropped)
    if not samples:
        raise _nothing_left(selections, dropped)
    batch, accumulation = data.train_batch_size, config.optimizer.gradient_accumulation_steps
    filled = fill_buckets(samples, batch, accumulation, _small_buckets(config))
    dropped += filled.dropped
    if not filled.samples:
        raise _nothing_left(selections, dropped)
    length = run_length(filled.buckets, accumulation, config.schedule.max_train_steps, config.schedule.num_train_epochs)
    videos = validation_videos(config.validation, config.model.seed, _captions(filled.samples))
    run_name = run_name_of(config, loaded.presets)
    run_dir = config.checkpoint.output_dir / run_name
    named = config.checkpoint.model_copy(update={"run_name": run_name})
    config = config.model_copy(update={"checkpoint": named})  # so that config.toml leads back to this run
    needs = _needs(config, filled, length, videos, machine, run_dir)
    steps_given = bool(config.schedule.max_train_steps or config.schedule.num_train_epochs)
    return Plan(
        config=config,
        sources=dict(loaded.sources),
        run_name=run_name,
        run_dir=run_dir,
        cache_dir=config.cache.cache_dir,
        made_clips=data_dir is not None,
        clips_found=sum(selection.found for selection in selections),
        datasets=tuple(
            DatasetPlan(
                id=selection.dataset.id,
                kind=selection.dataset.kind,
                role=selection.dataset.role,
                clips_found=selection.found,
                clips_used=len({sample.path for sample in filled.samples if sample.dataset == selection.dataset.id}),
                samples=sum(sample.dataset == selection.dataset.id for sample in filled.samples),
                uses=sum(s.repeats + 1 for s in filled.samples if s.dataset == selection.dataset.id),
            )
            for selection in selections
        ),
        samples=filled.samples,
        eval_samples=(),
        dropped=dropped,
        buckets=filled.buckets,
        batch_size=batch,
        accumulation=accumulation,
        steps=length.steps,
        steps_per_epoch=length.steps_per_epoch,
        epochs=length.epochs,
        videos=videos,
        disk=needs.disk,
        memory=needs.memory,
        notices=(
            *loaded.notices,
            *dataset_notices(data),
            *(text for selection in selections for text in notices.selection_notices(selection, data.framerate)),
            *notices.quarantine_notices(data.delete_problematic_images, dropped),
            *notices.bucket_notices(filled, batch, accumulation),
            *notices.length_notices(length, filled.samples, steps_given),
            *notices.validation_notices(config.validation, videos),
            *notices.machine_notices(machine),
        ),
        warnings=(
            *loss_warnings(_places(config, run_dir), os.environ),
            *(text for selection in selections for text in notices.selection_warnings(selection, data.framerate)),
            *notices.schedule_warnings(config.schedule, length.steps),
            *device_warnings(machine, config.model.pretrained_model_name_or_path, os.environ),
            *needs.warnings,
        ),
        machine=machine,
    )


def run_name_of(config: TrainConfig, presets: Sequence[str]) -> str:
    """The name of the run's folder below ``output_dir``."""
    return config.checkpoint.run_name or (presets[-1] if presets else "run")


def _places(config: TrainConfig, run_dir: Path) -> tuple[Place, Place]:
    results, caches = config.checkpoint.output_dir, config.cache.cache_dir
    return Place("results", run_dir, results, "./out"), Place("caches", caches, caches, "./cache")


def _captions(samples: Sequence[Sample]) -> list[str]:
    """Every clip's first caption, each once, in the order of the clips."""
    return list(dict.fromkeys(sample.captions[0] for sample in samples))


def _small_buckets(config: TrainConfig) -> SmallBuckets:
    """A folder named alone is trained on as it is; for a documented list the documented rule holds."""
    listed = bool(config.data.datasets) or config.data.data_backend_config is not None
    if not listed or config.data.allow_dataset_oversubscription:
        return "fill"
    return "refuse" if config.data.disable_bucket_pruning else "drop"


def _nothing_left(selections: Sequence[Selection], dropped: Sequence[Dropped]) -> DataError:
    """Say which rule left nothing over: counts by reason, and what to do about the most frequent one."""
    found = sum(selection.found for selection in selections)
    if not found:
        folders = ", ".join(str(selection.dataset.root) for selection in selections)
        return DataError(f"no video files in {folders}", hint="name the folder that holds the clips")
    counts = Counter(entry.reason for entry in dropped).most_common()
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
    first = next(entry for entry in dropped if entry.reason == counts[0][0])
    lines = [f"none of {found} clips can be trained on: {reasons}", f"for example {first.path}: {first.detail}"]
    if counts[0][0] == "too-short":
        lines.append(_longest(selections))
    return DataError("\n".join(lines), hint=_HINTS.get(counts[0][0], EXPLANATIONS.get(counts[0][0])))  # type: ignore[call-overload]


_HINTS = {
    "no-caption": "put a .txt with the same name beside each clip, or set caption_strategy filename",
    "too-short": "lower num_frames (and min_frames), or use longer clips",
    "too-long": "raise max_frames, or leave it out",
    "too-small": "lower minimum_image_size",
    "small-bucket": "raise repeats, lower train_batch_size, or set allow_dataset_oversubscription",
    "wrong-shape": "widen minimum_aspect_ratio and maximum_aspect_ratio",
    "outside-folder": "copy the clips into the folder, or name the folder that they are in",
}


def _longest(selections: Sequence[Selection]) -> str:
    clips = [(selection, clip) for selection in selections for clip in selection.probed]
    selection, clip = max(clips, key=lambda pair: pair[1].facts.duration_s)
    name, seconds, wanted = clip.found.name, clip.facts.duration_s, selection.dataset.num_frames
    return f"the longest clip is {name} with {seconds:.1f} s; num_frames is {wanted}"


def _needs(
    config: TrainConfig,
    filled: Filled,
    length: RunLength,
    videos: Sequence[ValidationVideo],
    machine: Machine,
    run_dir: Path,
) -> Needs:
    name = config.model.pretrained_model_name_or_path
    model = _model_facts(config)
    if model is None:
        warning = f"{name} is not known here and not on this disk: its memory and disk needs are not estimated"
        return Needs((), (), (warning,))
    setup = training_setup(config, machine.device, videos)
    memory = estimate_memory(model, [bucket.bucket for bucket in filled.buckets], setup)
    outputs = disk.RunOutputs(
        checkpoints=_checkpoints_kept(config, length.steps),
        adapter_params=lora_params(model.transformer, setup.rank, setup.targets),
        export_bytes=VALUE_BYTES[config.checkpoint.export_dtype],
        videos=_videos_rendered(config, length.steps, videos),
    )
    cache = disk.cache_bytes(filled.samples, model, setup.weight_bytes, len(videos) + 2)
    download = disk.download_bytes(model, os.environ)
    lines = (
        ("model download", download),
        ("cache of latents and embeddings", cache),
        ("checkpoints", disk.checkpoint_bytes(outputs)),
        ("exported adapters", disk.export_bytes(outputs)),
        ("validation videos", disk.video_bytes(outputs)),
    )
    places = [
        (disk.hub_cache(os.environ), download),
        (config.cache.cache_dir, cache),
        (run_dir, sum(size for _, size in lines[2:])),
    ]
    warnings = (*notices.memory_warnings(memory, machine), *disk.disk_warnings(places))
    return Needs(tuple(line for line in lines if line[1]), memory, warnings)


def _model_facts(config: TrainConfig) -> ModelFacts | None:
    """Sizes of the base model, with another transformer in it where one is named and its sizes are known."""
    model = model_facts(config.model.pretrained_model_name_or_path)
    if model is None or not config.model.pretrained_transformer_model_name_or_path:
        return model
    return replace(model, transformer=_transformer_facts(config) or model.transformer)


def _transformer_facts(config: TrainConfig) -> TransformerFacts | None:
    """The transformer that is trained, where it is known for certain."""
    other = config.model.pretrained_transformer_model_name_or_path
    if other:
        subfolder = config.model.pretrained_transformer_subfolder
        return transformer_facts(other, "" if subfolder.lower() == "none" else subfolder)
    model = model_facts(config.model.pretrained_model_name_or_path)
    return model.transformer if model else None


def training_setup(config: TrainConfig, device: str, videos: Sequence[ValidationVideo]) -> TrainingSetup:
    """What the memory estimate needs to know. ``device`` is the kind of the machine: cuda, rocm, mps or cpu."""
    shapes = [Bucket(video.width, video.height, video.frames) for video in videos]
    return TrainingSetup(
        rank=config.adapter.lora_rank,
        targets=lora_targets(config.adapter),
        weight_bytes=VALUE_BYTES[config.precision.mixed_precision],
        vae_bytes=VALUE_BYTES[config.precision.vae_dtype],
        batch_size=config.data.train_batch_size,
        checkpointing=config.memory.gradient_checkpointing,
        tiling=config.cache.vae_enable_tiling,
        accelerator=device,
        validation=max(shapes, key=lambda shape: shape.tokens) if shapes else None,
    )


def _checkpoints_kept(config: TrainConfig, steps: int) -> int:
    """How many checkpoints lie on the disk at the end. Those by the clock are not foreseen, but for the limit."""
    interval, limit = config.checkpoint.checkpoint_step_interval, config.checkpoint.checkpoints_total_limit
    made = (steps // interval if interval else 0) + 1
    return min(made, limit) if limit else made


def _videos_rendered(
    config: TrainConfig, steps: int, videos: Sequence[ValidationVideo]
) -> tuple[tuple[Bucket, int], ...]:
    interval = config.validation.validation_step_interval
    times = (steps // interval if interval else 0) + 2  # and before the first step, and after the last
    shapes = Counter(Bucket(video.width, video.height, video.frames) for video in videos)
    return tuple((shape, count * times) for shape, count in sorted(shapes.items()))
