"""The run folder: one name for each file of the public contract, and the files that the plan itself writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.files import write_atomically
from ltxtrain.plan.records import plain
from ltxtrain.plan.text import render_plan
from ltxtrain.plan.toml import dump_toml

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.plan.records import Plan


def run_name_of(config: TrainConfig, presets: Sequence[str]) -> str:
    """The name of the run's folder below ``output_dir``."""
    return config.checkpoint.run_name or (presets[-1] if presets else "run")


@dataclass(frozen=True)
class RunFolder:
    """``output_dir/run_name``. The paths are names only: nothing is created by asking for them."""

    root: Path

    @property
    def run_json(self) -> Path:
        return self.root / "run.json"

    @property
    def config_toml(self) -> Path:
        return self.root / "config.toml"

    @property
    def plan_json(self) -> Path:
        return self.root / "plan.json"

    @property
    def plan_txt(self) -> Path:
        return self.root / "plan.txt"

    @property
    def dataset_jsonl(self) -> Path:
        return self.root / "dataset.jsonl"

    @property
    def metrics_jsonl(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def memory_jsonl(self) -> Path:
        return self.root / "memory.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def export(self) -> Path:
        return self.root / "export"

    @property
    def report_html(self) -> Path:
        return self.root / "report.html"

    @property
    def readme(self) -> Path:
        return self.root / "README.md"


def write_plan_files(plan: Plan, folder: RunFolder) -> None:
    """Write config.toml (which loads back), plan.json, plan.txt and, with a line for each clip, dataset.jsonl."""
    write_atomically(folder.config_toml, render_config(plan.config))
    write_atomically(folder.plan_json, json.dumps(plan.to_json(clips=False), indent=1, ensure_ascii=False) + "\n")
    write_atomically(folder.plan_txt, render_plan(plan))
    lines = (json.dumps(line, ensure_ascii=False) for line in _dataset_lines(plan))
    write_atomically(folder.dataset_jsonl, "".join(f"{line}\n" for line in lines))


def render_config(config: TrainConfig) -> str:
    """The configuration as TOML: what differs from the defaults, and the defaults as comments."""
    values = config.model_dump(mode="json", exclude_none=True)
    values["data"]["datasets"] = [entry.model_dump(mode="json", exclude_unset=True) for entry in config.data.datasets]
    chosen = config.model_dump(mode="json", exclude_defaults=True)
    names = {name for section in values.values() for name in section}
    return dump_toml(values, commented=frozenset(names - {name for section in chosen.values() for name in section}))


def _dataset_lines(plan: Plan) -> Iterator[dict[str, Any]]:
    for role, samples in (("train", plan.samples), ("eval", plan.eval_samples)):
        for sample in samples:
            yield {"used": True, "role": role, **plain(sample)}
    roles = {dataset.id: dataset.role for dataset in plan.datasets}
    for entry in plan.dropped:
        yield {"used": False, "role": roles.get(entry.dataset, "train"), **plain(entry)}
