"""The run folder: one name for each file of the public contract, and the files that the plan itself writes."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.plan.text import render_plan
from ltxtrain.plan.toml import dump_toml

if TYPE_CHECKING:
    from ltxtrain.plan.records import Plan


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


def write_text_atomically(path: Path, text: str) -> None:
    """Write ``path`` as UTF-8 so that a reader sees the old file or the new one, whole, even after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_plan_files(plan: Plan, folder: RunFolder) -> None:
    """Write config.toml (which loads back), plan.json, plan.txt and dataset.jsonl."""
    write_text_atomically(folder.config_toml, dump_toml(plan.config.model_dump(mode="json", exclude_none=True)))
    write_text_atomically(folder.plan_json, json.dumps(plan.to_json(), indent=1, ensure_ascii=False) + "\n")
    write_text_atomically(folder.plan_txt, render_plan(plan))
    lines = [json.dumps(line, ensure_ascii=False) for line in _dataset_lines(plan)]
    write_text_atomically(folder.dataset_jsonl, "".join(f"{line}\n" for line in lines))


def _dataset_lines(plan: Plan) -> list[dict[str, Any]]:
    used = [{"used": True, **asdict(sample)} for sample in plan.samples]
    return used + [{"used": False, **asdict(dropped)} for dropped in plan.dropped]


def _umask() -> int:
    """mkstemp gives 0600; a run's files follow the umask like any other. Asking for the mask means setting it twice."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable. Windows cannot open a folder and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
