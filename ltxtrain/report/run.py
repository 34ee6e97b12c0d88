"""A finished, running or broken run, read from its folder."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ltxtrain.errors import DataError
from ltxtrain.events import EVALUATIONS
from ltxtrain.facts.models import public_name
from ltxtrain.plan.folder import RunFolder
from ltxtrain.report.loose import (
    JsonObject,
    as_count,
    as_number,
    as_object,
    as_objects,
    as_text,
    read_lines,
    read_object,
    read_objects,
)
from ltxtrain.report.measured import Measured, read_measured
from ltxtrain.report.sets import Listing, SetFacts, read_listing, read_sets

HEADER_LIMIT = 64 * 1024**2  # a safetensors header longer than this is no adapter's
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
RUN_HINT = "give the run folder that `ltxtrain train` named: OUTPUT/RUN"


@dataclass(frozen=True)
class Step:
    """One line of metrics.jsonl. What a line lacks, or holds as NaN, is None.

    ``loss`` and ``sigma_bands`` are those of what is learnt: regularisation sets, whose loss is the distance from the
    model as it was, are in ``dataset_losses`` alone.
    """

    step: int
    epoch: int
    loss: float | None
    lr: float | None
    grad_norm: float | None
    seconds: float | None
    memory_bytes: float | None
    sigma_bands: tuple[tuple[str, float], ...]
    dataset_losses: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One line of evaluations.jsonl: the loss on a data set that is held out."""

    step: int
    dataset: str
    loss: float


@dataclass(frozen=True)
class Video:
    """One validation video. Files are absolute and lie in the run folder; None where the file is not there."""

    step: int
    name: str
    prompt: str
    file: Path | None
    poster: Path | None
    facts: JsonObject


@dataclass(frozen=True)
class Setting:
    section: str
    name: str
    value: object
    source: str


@dataclass(frozen=True)
class ExportedFile:
    """A file of export/. ``dtypes`` and ``metadata`` are read from a safetensors header."""

    name: str
    bytes: int
    sha256: str
    tensors: int
    dtypes: tuple[str, ...]
    metadata: JsonObject


@dataclass(frozen=True)
class Run:
    """``missing`` names the files of the contract that are not there or cannot be read."""

    root: Path
    name: str
    plan: JsonObject
    plan_text: str
    sets: tuple[SetFacts, ...]
    listing: Listing
    manifest: JsonObject
    settings: tuple[Setting, ...]
    steps: tuple[Step, ...]
    evaluations: tuple[Evaluation, ...]
    measured: Mapping[tuple[str, str], Measured]
    videos: tuple[Video, ...]
    exports: tuple[ExportedFile, ...]
    config_sha256: str
    missing: tuple[str, ...]

    def setting(self, name: str) -> object:
        """The value of a setting, None where the run does not tell."""
        return next((setting.value for setting in self.settings if setting.name == name), None)

    @property
    def planned_steps(self) -> int:
        return as_count(self.plan.get("steps"))

    @property
    def done_steps(self) -> int:
        return self.steps[-1].step if self.steps else 0

    @property
    def adapter(self) -> ExportedFile | None:
        """The exported file that diffusers loads."""
        return next((file for file in self.exports if file.name == DIFFUSERS_FILE), None)

    @property
    def base_model(self) -> str:
        """The base model's name as it may be told to others."""
        value = as_text(self.setting("pretrained_model_name_or_path"))
        return public_name(value, as_text(as_object(self.manifest.get("model")).get("revision")))


def read_run(root: Path) -> Run:
    """Read all that the run folder holds. Raises DataError when ``root`` is no run folder."""
    folder = RunFolder(root.resolve())
    _refuse_other_folders(root, folder)
    plan, manifest = read_object(folder.plan_json), read_object(folder.run_json)
    config_bytes = folder.config_toml.read_bytes() if folder.config_toml.is_file() else b""
    sets = read_sets(plan)
    steps = _read_steps(folder.metrics_jsonl, frozenset(entry.id for entry in sets if entry.regularisation))
    found = {
        "plan.json": bool(plan),
        "run.json": bool(manifest),
        "config.toml": bool(config_bytes),
        "metrics.jsonl": bool(steps),
    }
    return Run(
        root=folder.root,
        name=as_text(plan.get("run_name")) or folder.root.name,
        plan=plan,
        plan_text=folder.plan_txt.read_text(encoding="utf-8", errors="replace") if folder.plan_txt.is_file() else "",
        sets=sets,
        listing=read_listing(folder.dataset_jsonl, len(sets)),
        manifest=manifest,
        settings=_read_settings(plan, manifest, config_bytes),
        steps=steps,
        evaluations=_read_evaluations(folder.root / EVALUATIONS),
        measured=read_measured(read_lines(folder.memory_jsonl)),
        videos=_read_videos(folder),
        exports=_read_exports(folder.export),
        config_sha256=hashlib.sha256(config_bytes).hexdigest() if config_bytes else "",
        missing=tuple(name for name, is_there in found.items() if not is_there),
    )


def _refuse_other_folders(root: Path, folder: RunFolder) -> None:
    if not root.is_dir():
        raise DataError(f"no such folder: {root}", hint=RUN_HINT)
    marks = _marks(folder)
    if any(mark.is_file() for mark in marks):
        return
    runs = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and _is_run(entry))
    names = ", ".join(mark.name for mark in marks)
    hint = f"runs in it: {', '.join(runs[:5])}" if runs else RUN_HINT
    raise DataError(f"{root} is no run folder: it holds none of {names}", hint=hint)


def _marks(folder: RunFolder) -> tuple[Path, ...]:
    return folder.plan_json, folder.run_json, folder.metrics_jsonl


def _is_run(folder: Path) -> bool:
    return any(mark.is_file() for mark in _marks(RunFolder(folder)))


def _read_steps(path: Path, regularisation: frozenset[str]) -> tuple[Step, ...]:
    """Steps in order. Where a step stands twice, as after a kill before the file was cut back, the later line holds."""
    steps = {}
    for line in read_lines(path):
        step = _read_step(line, regularisation)
        if step.step > 0:
            steps[step.step] = step
    return tuple(steps[key] for key in sorted(steps))


def _read_evaluations(path: Path) -> tuple[Evaluation, ...]:
    """In the order of steps; of a step and data set that stand twice, the later line holds."""
    found = {}
    for line in read_lines(path):
        loss = as_number(line.get("loss"))
        if loss is not None:
            one = Evaluation(as_count(line.get("step")), as_text(line.get("dataset")), loss)
            found[one.step, one.dataset] = one
    return tuple(sorted(found.values(), key=lambda one: one.step))


def _read_step(line: JsonObject, regularisation: frozenset[str]) -> Step:
    losses = _read_numbers(line.get("dataset_losses"))
    learnt = [loss for name, loss in losses if name not in regularisation]
    loss, bands = as_number(line.get("loss")), _read_numbers(line.get("sigma_bands"))
    if len(learnt) < len(losses):  # the recorded mean and the bands hold regularisation, too
        loss, bands = (sum(learnt) / len(learnt) if learnt else None), ()
    return Step(
        step=as_count(line.get("step")),
        epoch=as_count(line.get("epoch")),
        loss=loss,
        lr=as_number(line.get("lr")),
        grad_norm=as_number(line.get("grad_norm")),
        seconds=as_number(line.get("seconds")),
        memory_bytes=as_number(line.get("memory_bytes")),
        sigma_bands=bands,
        dataset_losses=losses,
    )


def _read_numbers(value: object) -> tuple[tuple[str, float], ...]:
    numbers = ((name, as_number(each)) for name, each in as_object(value).items())
    return tuple((name, number) for name, number in numbers if number is not None)


def _read_settings(plan: JsonObject, manifest: JsonObject, config_bytes: bytes) -> tuple[Setting, ...]:
    """Each setting with its source: from plan.json, else run.json, else config.toml, which knows no sources.

    Lists of entries always come from config.toml, which holds of each entry what was said; the others fill it up.
    """
    try:
        written = tomllib.loads(config_bytes.decode(errors="replace"))
    except tomllib.TOMLDecodeError:
        written = {}
    for record in (plan, manifest):
        config = as_object(record.get("config"))
        if config:
            settings = _flatten(config, as_object(record.get("sources")))
            return tuple(replace(each, value=_as_written(each, written)) for each in settings)
    return _flatten(written, {})


def _as_written(setting: Setting, written: JsonObject) -> object:
    if not as_objects(setting.value):
        return setting.value
    return as_objects(as_object(written.get(setting.section)).get(setting.name)) or setting.value


def _flatten(config: JsonObject, sources: JsonObject) -> tuple[Setting, ...]:
    settings = []
    for section, entries in config.items():
        for name, value in as_object(entries).items():
            settings.append(Setting(section, name, value, as_text(sources.get(name)) or "default"))
    return tuple(settings)


def _read_videos(folder: RunFolder) -> tuple[Video, ...]:
    videos = []
    for index in sorted(folder.samples.glob("step-*/index.json")):
        number = index.parent.name.removeprefix("step-")
        if not number.isdecimal():
            continue
        for entry in read_objects(index):
            videos.append(
                Video(
                    step=int(number),
                    name=as_text(entry.get("name")),
                    prompt=as_text(entry.get("prompt")),
                    file=_file_inside(folder.root, index.parent, as_text(entry.get("video"))),
                    poster=_file_inside(folder.root, index.parent, as_text(entry.get("poster"))),
                    facts=entry,
                )
            )
    return tuple(sorted(videos, key=lambda video: video.step))


def _file_inside(root: Path, folder: Path, name: str) -> Path | None:
    """The named file, relative to the run folder or to its index; never one that lies outside the run folder."""
    if not name or "\0" in name:
        return None
    for base in (root, folder):
        path = (base / name).resolve()
        if path.is_relative_to(root) and path.is_file():
            return path
    return None


def _read_exports(folder: Path) -> tuple[ExportedFile, ...]:
    return tuple(_read_export(path) for path in sorted(folder.glob("*")) if path.is_file() and path.name[0] != ".")


def _read_export(path: Path) -> ExportedFile:
    header = _safetensors_header(path) if path.suffix == ".safetensors" else {}
    tensors = [as_object(value) for name, value in header.items() if name != "__metadata__"]
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return ExportedFile(
        name=path.name,
        bytes=path.stat().st_size,
        sha256=digest,
        tensors=len(tensors),
        dtypes=tuple(sorted({as_text(tensor.get("dtype")) for tensor in tensors})),
        metadata=as_object(header.get("__metadata__")),
    )


def _safetensors_header(path: Path) -> JsonObject:
    """The JSON header: eight bytes of length (little endian), then that many bytes of JSON."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= min(HEADER_LIMIT, path.stat().st_size):
            return {}
        try:
            return as_object(json.loads(stream.read(length)))
        except ValueError:
            return {}
