"""All clips that a run is made of: those of each data set, sorted into buckets, used or left out for a reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ltxtrain.config import Dataset, TrainConfig, resolve_datasets
from ltxtrain.errors import DataError
from ltxtrain.facts.index_walk import shown_name
from ltxtrain.facts.media import Progress
from ltxtrain.plan.filling import Filled, FillRule, SmallBuckets, fill_buckets, sizes_of
from ltxtrain.plan.places import keep_out, written_places
from ltxtrain.plan.records import Dropped, Sample
from ltxtrain.plan.select import Selection, SelectionRule, select_samples
from ltxtrain.plan.sets import check_accounts, check_not_empty

if TYPE_CHECKING:
    from ltxtrain.config.data import DataConfig


@dataclass(frozen=True)
class Material:
    """All clips of a run. ``dropped`` are those of the selections, and those whose buckets are too small.

    With a ``refusal`` no run can begin; clips of buckets that are refused for their size are among ``dropped`` then.
    """

    rule: SelectionRule
    selections: tuple[Selection, ...]
    sizes: FillRule
    filled: Filled
    eval_samples: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    refusal: DataError | None = None


def gather(config: TrainConfig, data: DataConfig, progress: Progress | None = None) -> Material:
    """Every clip that ``data`` names, used or left out. Raises as ``make_plan`` does."""
    material = judge(config, data, progress)
    if material.refusal is not None:
        raise material.refusal
    return material


def judge(config: TrainConfig, data: DataConfig, progress: Progress | None = None) -> Material:
    """The same, with the reason in ``refusal`` where there is nothing to train on. Raises ``ConfigError``, and
    ``DataError`` for a folder that cannot be read."""
    rule = SelectionRule(
        framerate=data.framerate,
        alignment=data.aspect_bucket_alignment,
        rounding=data.aspect_bucket_rounding,
        seed=config.model.seed,
        size_maps=config.checkpoint.output_dir,
        cache_dir=config.cache.cache_dir,
        progress=progress,
    )
    resolved = resolve_datasets(data, config.cache, config.validation)
    keep_out(written_places(config), resolved)
    if data.datasets or data.data_backend_config is not None:
        _check_folders(resolved)
    selections = tuple(select_samples(dataset, rule) for dataset in resolved)
    training = [sample for found in selections if found.dataset.role == "train" for sample in found.samples]
    eval_samples = [sample for found in selections if found.dataset.role == "eval" for sample in found.samples]
    dropped = tuple(entry for found in selections for entry in found.dropped)
    refusal = _refusal_of(selections, [*training, *eval_samples], dropped)
    sizes = sizes_of(data, resolved)
    sizes = replace(sizes, accumulation=config.optimizer.gradient_accumulation_steps, small=_small_buckets(data))
    try:
        filled = fill_buckets(training, sizes)
    except DataError as error:
        refusal = refusal or error
        filled = fill_buckets(training, replace(sizes, small="drop"))
    dropped += filled.dropped
    used = [*filled.samples, *eval_samples]
    check_accounts(selections, used, dropped)
    return Material(
        rule=rule,
        selections=selections,
        sizes=sizes,
        filled=filled,
        eval_samples=tuple(sorted(eval_samples, key=lambda sample: sample.id)),
        dropped=dropped,
        refusal=refusal or _refusal_of(selections, used, dropped),
    )


def _refusal_of(
    selections: Sequence[Selection], samples: Sequence[Sample], dropped: Sequence[Dropped]
) -> DataError | None:
    try:
        check_not_empty(selections, samples, dropped)
    except DataError as error:
        return error
    return None


def _check_folders(datasets: Sequence[Dataset]) -> None:
    """Raise ``DataError`` for sets of a list whose folder is not there, with the path that was looked for."""
    for dataset in datasets:
        root = dataset.root
        if dataset.hub is not None or root.is_dir():
            continue
        what = "is not a folder" if root.exists() else "does not exist"
        absolute = "" if root.is_absolute() else f" ({Path.cwd() / root})"
        raise DataError(
            f"the folder of data set {dataset.id} {what}: {shown_name(f'{root}{absolute}')}",
            hint="correct its instance_data_dir" + ("; paths count from the working folder" if absolute else ""),
        )


def _small_buckets(data: DataConfig) -> SmallBuckets:
    """A folder named alone is trained on as it is; for a documented list the documented rule holds."""
    if not data.datasets and data.data_backend_config is None:
        return "keep"
    if data.allow_dataset_oversubscription:
        return "pad"
    return "refuse" if data.disable_bucket_pruning else "drop"
