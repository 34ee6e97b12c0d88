"""Where a run writes: told before any work when this user may not write there, or into what lies there already, or
when the place lies in a data set."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ltxtrain.config import Dataset, TrainConfig
from ltxtrain.config.compute import MemoryConfig
from ltxtrain.errors import ConfigError, Fault, MachineError
from ltxtrain.facts.access import (
    FLAGS,
    Wanted,
    allow_writing,
    first_closed,
    give_over,
    may_write,
    nearest,
    owner_text,
)
from ltxtrain.facts.container import in_container
from ltxtrain.files import try_writing
from ltxtrain.plan.folder import RunFolder

# Folders of the cache that runs write to, and those of them that hold entries in folders of their own.
CACHE_FOLDERS = ("digests", "index", "latents", "prompts", "models", "clips", "claims", "datasets")
ENTRY_FOLDERS = ("latents", "prompts")


def inside_cache(cache: Path) -> list[Path]:
    """What a run writes into below ``cache``, as far as it is there. A folder that cannot be listed is told itself."""
    return [path for name in CACHE_FOLDERS for path in _with_children(cache / name, name in ENTRY_FOLDERS)]


def inside_run(run_dir: Path) -> list[Path]:
    """The run's own folder, and what a run that goes on writes into there."""
    folder = RunFolder(run_dir)
    below = (folder.checkpoints, folder.samples, folder.export, folder.metrics_jsonl, run_dir / ".lock")
    return [run_dir, *below]


def inside_downloads(hub_cache: Path, model: str) -> list[Path]:
    """Where huggingface_hub puts ``model``, when something is there."""
    place = hub_cache / f"models--{model.replace('/', '--')}"
    return [hub_cache.parent, hub_cache, hub_cache / ".locks", *_with_children(place, listed=True)]


def _with_children(folder: Path, listed: bool) -> list[Path]:
    try:
        children = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if listed else []
    except OSError:
        children = []
    return [folder, *children]


def written_places(config: TrainConfig) -> dict[str, Path]:
    """Where a run with this configuration writes, by flag."""
    offload = offload_folder(config.memory)
    beside = {} if offload is None else {FLAGS["offload"]: offload}
    return {"--cache": config.cache.cache_dir, "--output": config.checkpoint.output_dir, **beside}


def offload_folder(memory: MemoryConfig) -> Path | None:
    """Where weights are put while they wait for their turn, None where that is main memory."""
    return memory.group_offload_to_disk_path if memory.enable_group_offload else None


def offload_warnings(memory: MemoryConfig) -> list[str]:
    """What can be told of that folder without writing there: a plan writes nothing."""
    folder = offload_folder(memory)
    if folder is None:
        return []
    place = nearest(folder)
    if place.is_dir() and may_write(place):
        return []
    why = f"it {owner_text(place)}" if place.is_dir() else f"{place} is not a folder"
    return [f"nothing can be written to {folder}, from group_offload_to_disk_path: {why}"]


def keep_out(written: Mapping[str, Path], datasets: Iterable[Dataset]) -> None:
    """Nothing is ever written into a data set. Raises ``ConfigError`` that names each place that lies in one."""
    roots = {root: root.resolve() for dataset in datasets for root in _roots_of(dataset)}
    faults = [
        Fault(flag, f"{place} lies inside of the data set {root}")
        for flag, place in written.items()
        for root, real in roots.items()
        if place.resolve().is_relative_to(real)
    ]
    if faults:
        flags = " and ".join(dict.fromkeys(fault.key for fault in faults))
        raise ConfigError(faults, hint=f"name a place outside of it with {flags}: nothing is written into a data set")


def _roots_of(dataset: Dataset) -> list[Path]:
    """A set of the ``datasets`` library has its own folder, where that is on this disk."""
    if dataset.hub is None:
        return [dataset.root]
    folder = Path(os.path.expanduser(dataset.hub.name))  # noqa: PTH111 - Path's own raises where nobody has a home
    return [dataset.root, folder] if folder.is_dir() else [dataset.root]


def check_places(cache: Path, run_dir: Path | None, sources: Mapping[str, str]) -> None:
    """Raise ``MachineError`` when nothing can be written to the cache, to the run's folder, or inside of them."""
    _check(Wanted("cache", cache), cache, inside_cache(cache), sources.get("cache_dir", "default"))
    if run_dir is not None:
        source = sources.get("output_dir", "default")
        _check(Wanted("output", run_dir.parent), run_dir, inside_run(run_dir), source)


def check_offload(memory: MemoryConfig, sources: Mapping[str, str]) -> None:
    """The same for the folder that weights are put in while they wait for their turn."""
    offload = offload_folder(memory)
    if offload is not None:
        _check(Wanted("offload", offload), offload, [], sources.get("group_offload_to_disk_path", "default"))


def _check(wanted: Wanted, folder: Path, inside: list[Path], source: str) -> None:
    said = f"{wanted.folder} is the default of {wanted.flag}" if source == "default" else f"from {source}"
    user = f"this is uid {os.geteuid()}, gid {os.getegid()}"
    closed = first_closed(path for path in inside if path != folder)
    try:
        try_writing(folder)
    except OSError as error:
        place = nearest(folder)
        why = f"{user}, and {place} {owner_text(place)}" if place.is_dir() else f"{place} is not a folder"
        raise MachineError(
            f"nothing can be written to {folder} ({error.strerror or error}, {said}): {why}",
            hint=_hint(error, place, wanted),
        ) from error
    if closed:
        raise MachineError(
            f"nothing can be written to {closed} (Permission denied, {said}): {user}, and it {owner_text(closed)}",
            hint=give_over(closed, wanted.folder, os.environ),
        )


def _hint(error: OSError, place: Path, wanted: Wanted) -> str:
    another = f"name another folder with {wanted.flag}"
    if error.errno == errno.EROFS:
        return f"mount it without :ro, or {another}" if in_container(os.environ) else another
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"make room there, or {another}"
    if error.errno not in (errno.EACCES, errno.EPERM) or not place.is_dir():
        return another
    if place.is_relative_to(wanted.folder.absolute()) and place != wanted.folder.absolute():
        return give_over(place, wanted.folder, os.environ)
    fix = allow_writing(place, wanted, os.environ)
    return fix if wanted.flag in fix else f"{fix}; or {another}"
