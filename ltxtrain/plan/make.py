"""Everything that can be decided about a run before it costs anything: configuration, clips, machine -> ``Plan``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ltxtrain.config import LoadedConfig, TrainConfig, dataset_notices, overruled_notices
from ltxtrain.config.explain import placed
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.facts.container import no_clips
from ltxtrain.facts.machine import Machine, probe_machine
from ltxtrain.facts.media import Progress
from ltxtrain.facts.models import lora_params
from ltxtrain.plan import budget, disk, notices, set_notices
from ltxtrain.plan.advice import memory_warnings
from ltxtrain.plan.device import device_warnings
from ltxtrain.plan.filling import largest_batches
from ltxtrain.plan.folder import run_name_of
from ltxtrain.plan.length import RunLength, run_length
from ltxtrain.plan.loss import Place, loss_warnings
from ltxtrain.plan.material import Material, gather
from ltxtrain.plan.memory import TrainingSetup, estimate_memory
from ltxtrain.plan.offload import block_notices, check_swap, offload_notices, update_notices
from ltxtrain.plan.order import BatchOrder, OrderRule
from ltxtrain.plan.places import offload_folder, offload_warnings
from ltxtrain.plan.prompts import ValidationVideo, validation_videos
from ltxtrain.plan.records import Bucket, PhaseMemory, Plan, Sample
from ltxtrain.plan.sets import plan_datasets
from ltxtrain.plan.setup import VALUE_BYTES, base_facts, base_transformer, training_setup, with_batches
from ltxtrain.plan.support import support_warnings
from ltxtrain.plan.targets import check_targets


@dataclass(frozen=True)
class Needs:
    """Disk and memory, as far as the model's sizes are known."""

    disk: tuple[tuple[str, int], ...]
    memory: tuple[PhaseMemory, ...]
    warnings: tuple[str, ...]


def make_plan(
    loaded: LoadedConfig,
    machine: Machine | None = None,
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Probe the clips and decide on everything. Writes no file but what it remembers of the clips, in the cache.

    ``data_dir`` is a folder of clips that were made because no data is named. ``progress`` hears how many of a data
    set's files are opened. Raises ``ConfigError`` for what cannot
    work, ``DataError`` when there is nothing to train on, ``ModelError`` for a local model that cannot be read.
    """
    config = loaded.config
    check_targets(config.adapter, base_transformer(config), loaded.sources.get("peft_lora_target_modules", ""))
    check_swap(config, base_transformer(config), loaded.sources)
    machine = machine or probe_machine()
    data = config.data if data_dir is None else config.data.model_copy(update={"instance_data_dir": data_dir})
    if not (data.instance_data_dir or data.datasets or data.data_backend_config) and (told := no_clips(os.environ)):
        raise told
    run_name = run_name_of(config, loaded.presets)
    run_dir = config.checkpoint.output_dir / run_name
    named = config.checkpoint.model_copy(update={"run_name": run_name})
    config = config.model_copy(update={"checkpoint": named})  # so that config.toml leads back to this run
    material = gather(config, data, progress)
    datasets = plan_datasets(material.selections, [*material.filled.samples, *material.eval_samples])
    accumulation = config.optimizer.gradient_accumulation_steps
    order = BatchOrder(
        OrderRule(
            samples=material.filled.samples,
            buckets=material.filled.buckets,
            datasets=datasets,
            seed=config.model.seed,
            accumulation=accumulation,
            sampling=data.data_backend_sampling,
        )
    )
    length = run_length(order, accumulation, config.schedule.max_train_steps, config.schedule.num_train_epochs)
    videos = validation_videos(config.validation, config.model.seed, _captions(material.filled.samples))
    config, sources, chosen = _in_budget(config, loaded.sources, material, videos, machine)
    needs = _needs(config, material, length, videos, machine, run_dir)
    plan = Plan(
        config=config,
        sources=sources,
        run_name=run_name,
        run_dir=run_dir,
        cache_dir=config.cache.cache_dir,
        made_clips=data_dir is not None,
        clips_found=sum(selection.found for selection in material.selections),
        settled=tuple(selection.dataset for selection in material.selections),
        datasets=datasets,
        samples=material.filled.samples,
        eval_samples=material.eval_samples,
        dropped=material.dropped,
        buckets=material.filled.buckets,
        batch_size=data.train_batch_size,
        accumulation=accumulation,
        steps=length.steps,
        steps_per_epoch=length.steps_per_epoch,
        epochs=length.epochs,
        videos=videos,
        disk=needs.disk,
        memory=needs.memory,
        notices=(
            *loaded.notices,
            *dataset_notices(data, config.validation, config.objective),
            *overruled_notices(config, loaded.sources),
            *(text for found in material.selections for text in set_notices.selection_notices(found, material.rule)),
            *set_notices.shared_notices(material.selections),
            *set_notices.size_map_notices(material.selections, material.rule),
            *set_notices.quarantine_notices(material.selections),
            *notices.bucket_notices(material.filled),
            *notices.token_notices(material.filled, data.train_batch_tokens, material.sizes.batch_sizes),
            *notices.length_notices(
                length,
                material.filled.samples,
                bool(config.schedule.max_train_steps or config.schedule.num_train_epochs),
            ),
            *notices.validation_notices(config.validation, videos),
            *notices.model_notices(config.model.pretrained_model_name_or_path),
            *notices.paging_notices(config, base_transformer(config), machine),
            *block_notices(config, base_transformer(config)),
            *offload_notices(config.memory, machine.device),
            *update_notices(config.optimizer, machine.device),
            *notices.machine_notices(machine),
            *chosen,
        ),
        warnings=(
            *loss_warnings(_places(config, run_dir), os.environ),
            *(text for found in material.selections for text in set_notices.selection_warnings(found, material.rule)),
            *notices.schedule_warnings(config.schedule, length.steps),
            *notices.undrawn_warnings(order, length.steps * accumulation),
            *device_warnings(machine, config.model.pretrained_model_name_or_path, os.environ),
            *support_warnings(config, machine),
            *offload_warnings(config.memory),
            *needs.warnings,
        ),
        machine=machine,
    )
    return replace(plan, warnings=(*plan.warnings, *memory_warnings(plan)))


def _places(config: TrainConfig, run_dir: Path) -> tuple[Place, Place]:
    results, caches = config.checkpoint.output_dir, config.cache.cache_dir
    return Place("results", run_dir, results, "./out"), Place("caches", caches, caches, "./cache")


def _captions(samples: Sequence[Sample]) -> list[str]:
    """Every clip's first caption, each once, in the order of the clips."""
    return list(dict.fromkeys(sample.captions[0] for sample in samples))


def _needs(
    config: TrainConfig,
    material: Material,
    length: RunLength,
    videos: Sequence[ValidationVideo],
    machine: Machine,
    run_dir: Path,
) -> Needs:
    name = config.model.pretrained_model_name_or_path
    model = base_facts(config)
    if model is None:
        warning = f"{name} is not known here and not on this disk: its memory and disk needs are not estimated"
        return Needs((), (), (warning,))
    setup = _setup(config, material, videos, machine)
    memory = estimate_memory(model, [bucket.bucket for bucket in material.filled.buckets], setup)
    outputs = disk.RunOutputs(
        checkpoints=_checkpoints_kept(config, length.steps),
        adapter_params=lora_params(model.transformer, setup.rank, setup.targets),
        export_bytes=VALUE_BYTES[config.checkpoint.export_dtype],
        videos=_videos_rendered(config, length.steps, videos),
    )
    written = {found.dataset.id for found in material.selections if found.dataset.cache.written}
    kept = [sample for sample in (*material.filled.samples, *material.eval_samples) if sample.dataset in written]
    cache = disk.cache_bytes(kept, model, setup.weight_bytes, len(videos) + 2)
    download = disk.download_bytes(model, os.environ)
    offloaded = disk.offloaded_bytes(model, setup, config.memory)
    results = (
        ("checkpoints", disk.checkpoint_bytes(outputs)),
        ("exported adapters", disk.export_bytes(outputs)),
        ("validation videos", disk.video_bytes(outputs)),
    )
    lines = (
        ("model download", download),
        ("offloaded weights", offloaded),
        ("cache of latents and embeddings", cache),
        *results,
    )
    places = [
        (disk.hub_cache(os.environ), download),
        (config.cache.cache_dir, cache),
        (run_dir, sum(size for _, size in results)),
        *((folder, offloaded) for folder in [offload_folder(config.memory)] if folder is not None),
    ]
    return Needs(tuple(line for line in lines if line[1]), memory, tuple(disk.disk_warnings(places)))


def _setup(
    config: TrainConfig, material: Material, videos: Sequence[ValidationVideo], machine: Machine
) -> TrainingSetup:
    rules = {found.dataset.id: found.dataset.cache for found in material.selections}
    samples = (*material.filled.samples, *material.eval_samples)
    setup = with_batches(training_setup(config, machine.device, videos), material.filled.buckets, samples, rules)
    if config.validation.eval_loss_disable:
        return setup
    return replace(setup, measured=largest_batches(material.eval_samples, material.sizes))


def _in_budget(
    config: TrainConfig,
    sources: Mapping[str, str],
    material: Material,
    videos: Sequence[ValidationVideo],
    machine: Machine,
) -> tuple[TrainConfig, dict[str, str], tuple[str, ...]]:
    """The configuration with what ``memory_budget_gb`` chooses, the sources of that, and what is to be said of it."""
    if config.memory.memory_budget_gb is None:
        return config, dict(sources), ()
    model = base_facts(config)
    if model is None:
        name = config.model.pretrained_model_name_or_path
        problem = f"the sizes of {name} are not known here, so that nothing can be chosen for them"
        hint = "name a folder on this disk, or leave the budget out"
        key, place = placed(budget.NAME, sources.get(budget.NAME, "default"))
        raise ConfigError([Fault(key, problem, place, hint)])
    buckets = [bucket.bucket for bucket in material.filled.buckets]

    def estimate(tried: TrainConfig) -> tuple[PhaseMemory, ...]:
        return estimate_memory(model, buckets, _setup(tried, material, videos, machine))

    choice = budget.choose(config, sources, machine, model.transformer.layers, estimate)
    return choice.config, {**sources, **choice.sources}, (choice.notice,)


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
