"""What a checkpoint remembers of its run: what must be the same to go on, what may change and is told, its origin."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from ltxtrain.config import dataset_settings
from ltxtrain.config.optimizers import adapter_dtype
from ltxtrain.facts.digests import sha256_of
from ltxtrain.plan.manifest import PLACES, config_sha256
from ltxtrain.plan.records import Plan

TOLD_SECTIONS = frozenset(
    ("model", "adapter", "data", "cache", "precision", "memory", "speed", "objective", "optimizer", "schedule")
)
READ_AHEAD = ("dataloader_prefetch", "dataloader_prefetch_qlen")  # they change no bit of what is read


def identity_of(plan: Plan, spec: Any) -> dict[str, str]:
    """What must be the same for a checkpoint to be of this run, in words that an error message can use.

    ``spec`` is the adapter's. Clips that are held out may change: nothing is learned from them. How often and how clips
    are used may change too, which ``told_settings`` tells: repeats, first frames, batch sizes, weights.
    """
    return {
        "adapter": sha256_of(spec.rank, spec.alpha, sorted(spec.targets)),
        "set of clips": plan.clips_digest,
    }


def told_settings(plan: Plan) -> dict[str, Any]:
    """The values that a checkpoint remembers so that a later start can tell which of them have changed.

    Those of listed data sets are named by data set and key, as ``gestures.schedule.weight``.
    """
    config = plan.config
    sections = config.model_dump(mode="json", include=set(TOLD_SECTIONS))
    untold = {*PLACES, *READ_AHEAD}
    settings = {name: value for section in sections.values() for name, value in section.items() if name not in untold}
    settings.pop("datasets")
    if config.data.datasets or config.data.data_backend_config is not None:
        for dataset in plan.settled:
            settings |= dict(_flat(dataset.id, dataset_settings(dataset)))
    plain: dict[str, Any] = json.loads(json.dumps(settings, default=str))
    return plain


def _flat(name: str, value: object) -> Iterator[tuple[str, object]]:
    value = asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _flat(f"{name}.{key}", each)
    else:
        yield name, value


def about(plan: Plan, spec: Any, model: Any, digest: str) -> dict[str, Any]:
    """What an exported file says of itself. Nothing here depends on when or where the run took place.

    ``model`` is the base model's folder, ``digest`` that of its transformer.
    """
    return {
        "run": plan.run_name,
        "base_model": model.name,
        "base_model_revision": model.revision,
        "base_model_sha256": digest,
        "rank": spec.rank,
        "alpha": spec.alpha,
        "peft_config": spec.peft_config(),
        "adapter_dtype": adapter_dtype(plan.config.optimizer.optimizer),
        "config_sha256": config_sha256(plan),
        "resolutions": sorted({planned.bucket.key for planned in plan.buckets}),
    }
