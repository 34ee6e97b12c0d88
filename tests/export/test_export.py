from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from ltxtrain import __version__
from ltxtrain.errors import CheckpointError
from ltxtrain.events import Exported, Notice
from ltxtrain.export import iter_export
from ltxtrain.learn.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.export.conftest import FinishedRun, MakeRun

DIFFUSERS, COMFYUI = "pytorch_lora_weights", "my-run_comfyui"


def export(run: FinishedRun, **options: object) -> dict[str, Path]:
    """Files by name, and the events say the same."""
    events = list(iter_export(run.folder, **options))  # type: ignore[arg-type]
    assert all(isinstance(event, Exported) for event in events)
    files = {path.name: path for path in sorted((run.folder / "export").iterdir())}
    assert sorted(str(path) for path in files.values()) == sorted(event.path for event in events)
    return files


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize(("dtype", "kind"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_both_layouts_are_written_in_float32_and_in_the_chosen_dtype(
    make_run: MakeRun, dtype: str, kind: torch.dtype
) -> None:
    run = make_run()
    files = export(run, dtype=dtype)
    assert set(files) == {f"{name}{end}.safetensors" for name in (DIFFUSERS, COMFYUI) for end in ("", f"_{dtype}")}
    in_memory = load_checkpoint(run.checkpoint).adapter
    for prefix, stem in (("transformer.", DIFFUSERS), ("diffusion_model.", COMFYUI)):
        full, short = load_file(files[f"{stem}.safetensors"]), load_file(files[f"{stem}_{dtype}.safetensors"])
        for name, tensor in in_memory.items():
            assert torch.equal(full[prefix + name], tensor)
            assert torch.equal(short[prefix + name], tensor.to(kind))
    assert metadata(files[f"{DIFFUSERS}_{dtype}.safetensors"])["dtype"] == dtype


def test_float32_alone_is_one_pair(make_run: MakeRun) -> None:
    assert set(export(make_run(), dtype="fp32")) == {f"{DIFFUSERS}.safetensors", f"{COMFYUI}.safetensors"}


def test_a_weight_that_the_dtype_cannot_hold_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    found = load_checkpoint(run.checkpoint)
    name = next(iter(found.adapter))
    found.adapter[name][0, 0] = 1e6  # type: ignore[index]
    save_checkpoint(run.folder / "checkpoints", Checkpoint(8, found.adapter, {}, found.state))
    with pytest.raises(CheckpointError, match=f"{name} is too large for fp16"):
        list(iter_export(run.folder, dtype="fp16"))


def test_the_metadata_are_these_and_no_others(make_run: MakeRun) -> None:
    files = export(make_run(rank=4, alpha=2.5))
    for stem, dtype in (("", "fp32"), ("_bf16", "bf16")):
        told = metadata(files[f"{DIFFUSERS}{stem}.safetensors"])
        assert metadata(files[f"{COMFYUI}{stem}.safetensors"]) == told
        assert "transformer.lora_alpha" in told.pop("lora_adapter_metadata")
        assert json.loads(told.pop("library_versions")) == {
            name: version(name) for name in ("torch", "diffusers", "peft", "safetensors")
        }
        # Neither a time nor a path: the file goes to other people.
        assert told == {
            "format": "pt",
            "modelspec.sai_model_spec": "1.0.1",
            "modelspec.architecture": "ltx-video/lora",
            "modelspec.implementation": "https://github.com/huggingface/diffusers",
            "modelspec.title": "my-run",
            "modelspec.resolution": "64x64x9, 96x64x9",
            "base_model": "ltxtrain/tiny",
            "base_model_revision": "",
            "base_model_transformer_sha256": "ab" * 32,
            "rank": "4",
            "alpha": "2.5",
            "step": "7",
            "dtype": dtype,
            "adapter_dtype": "float32",
            "config_sha256": "cd" * 32,
            "ltxtrain_version": __version__,
        }


def of_a_run_with(run: FinishedRun, /, **about: object) -> FinishedRun:
    """The run with one more checkpoint, in which something else is said of it."""
    found = load_checkpoint(run.checkpoint)
    state = {"about": found.state["about"] | about}
    path, _ = save_checkpoint(run.folder / "checkpoints", Checkpoint(8, found.adapter, {}, state))
    return FinishedRun(run.folder, run.transformer, path)


def test_of_a_local_base_model_only_the_last_part_of_its_path_is_told(make_run: MakeRun) -> None:
    files = export(of_a_run_with(make_run(), base_model="/home/someone/secret project/ltx-base"))
    assert {metadata(path)["base_model"] for path in files.values()} == {"ltx-base"}
    assert not any(b"someone" in path.read_bytes() for path in files.values())


def test_a_repository_is_told_with_its_commit(make_run: MakeRun) -> None:
    files = export(of_a_run_with(make_run(), base_model="someone/ltx-tuned", base_model_revision="c0ffee"))
    told = [metadata(path) for path in files.values()]
    assert {(found["base_model"], found["base_model_revision"]) for found in told} == {("someone/ltx-tuned", "c0ffee")}


@pytest.mark.parametrize("name", ["../../outside", "{tmp}/outside", "..\\outside", "in/side", "with\0nul", ""])
def test_a_checkpoint_whose_run_has_a_path_for_a_name_writes_nothing(
    make_run: MakeRun, tmp_path: Path, name: str
) -> None:
    run = of_a_run_with(make_run(), run=name.format(tmp=tmp_path))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CheckpointError, match="cannot be part of a file's name"):
        list(iter_export(run.folder))
    assert sorted(tmp_path.rglob("*")) == before


def test_the_same_checkpoint_gives_the_same_bytes_elsewhere_and_again(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    elsewhere = shutil.copytree(run.folder, tmp_path / "elsewhere" / "renamed")
    first = {name: path.read_bytes() for name, path in export(run).items()}
    for path in (run.folder / "export").iterdir():
        os.utime(path, (0, 0))
    assert {name: path.read_bytes() for name, path in export(run).items()} == first
    moved = FinishedRun(elsewhere, run.transformer, elsewhere / "checkpoints" / run.checkpoint.name)
    assert {name: path.read_bytes() for name, path in export(moved).items()} == first
    assert not any(str(tmp_path).encode() in content for content in first.values())


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_mode_of_the_files_follows_the_umask(make_run: MakeRun, umask: int) -> None:
    for path in export(make_run()).values():
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_the_newest_valid_checkpoint_is_exported_or_the_one_asked_for(make_run: MakeRun) -> None:
    old = make_run(step=3)
    new = make_run(step=9)
    files = export(new)
    assert metadata(files[f"{DIFFUSERS}.safetensors"])["step"] == "9"
    files = export(new, checkpoint=old.checkpoint)
    assert metadata(files[f"{DIFFUSERS}.safetensors"])["step"] == "3"
    (new.checkpoint / "adapter.safetensors").write_bytes(b"damaged")
    first, *written = iter_export(new.folder)
    assert isinstance(first, Notice)
    assert first.level == "warning"
    assert new.checkpoint.name in first.message
    assert len(written) == 4
    assert metadata(files[f"{DIFFUSERS}.safetensors"])["step"] == "3"


def test_without_a_checkpoint_there_is_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="has no checkpoint to export"):
        list(iter_export(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_named_checkpoint_that_is_damaged_is_an_error(make_run: MakeRun) -> None:
    run = make_run()
    (run.checkpoint / "state.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"state\.json"):
        list(iter_export(run.folder, checkpoint=run.checkpoint))
    assert not (run.folder / "export").exists()
