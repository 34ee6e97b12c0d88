"""Checkpoints: what was saved is what is loaded, and damage is seen."""

from __future__ import annotations

import json
import os
import resource
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ltxtrain.errors import CheckpointError
from ltxtrain.learn.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_valid,
    prune_checkpoints,
    save_checkpoint,
)

Make = Callable[..., Checkpoint]
Same = Callable[[Checkpoint, Checkpoint], bool]
FILES = ("MANIFEST.json", "adapter.safetensors", "optimizer.safetensors", "state.json")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    adapter = {name: torch.randn((7, 3), generator=generator) for name in ("b", "a")}
    optimizer = {"step|a": torch.tensor(12.0), "exp_avg|a": torch.randn((7, 3), generator=generator).to(torch.bfloat16)}
    state = {"identity": {"base model": "é"}, "learning_rate": 0.1 + 0.2, "list": [1, None, True]}
    path, size = save_checkpoint(tmp_path, Checkpoint(12, adapter, optimizer, state))
    loaded = load_checkpoint(path)
    assert (loaded.step, loaded.state) == (12, state)
    for saved, found in ((adapter, loaded.adapter), (optimizer, loaded.optimizer)):
        assert saved.keys() == found.keys()
        assert all(torch.equal(found[name], saved[name]) and found[name].dtype == saved[name].dtype for name in saved)
    assert path == tmp_path / "step-00000012"
    assert names(path) == sorted(FILES)
    assert size == sum((path / name).stat().st_size for name in FILES if name != "MANIFEST.json")


def test_same_state_gives_the_same_bytes(tmp_path: Path, checkpoint_of: Make) -> None:
    for folder in ("one", "two"):
        save_checkpoint(tmp_path / folder, checkpoint_of(5))
    for name in FILES:
        one, two = (tmp_path / folder / "step-00000005" / name for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_files_are_readable_as_the_umask_says(tmp_path: Path, checkpoint_of: Make) -> None:
    before = os.umask(0o022)
    try:
        path, _ = save_checkpoint(tmp_path, checkpoint_of(5))
    finally:
        os.umask(before)
    assert {stat.S_IMODE((path / name).stat().st_mode) for name in FILES} == {0o644}
    assert stat.S_IMODE(path.stat().st_mode) == 0o755


@pytest.mark.parametrize("part", ["adapter", "optimizer"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_not_saved(bad: float, part: str, tmp_path: Path, checkpoint_of: Make) -> None:
    checkpoint = checkpoint_of(5)
    next(iter(getattr(checkpoint, part).values()))[0] = bad
    with pytest.raises(CheckpointError, match="NaN or infinity: step 5 is not saved"):
        save_checkpoint(tmp_path / "checkpoints", checkpoint)
    assert not (tmp_path / "checkpoints").exists()


def test_every_single_flipped_bit_of_every_file_is_seen(folder: Path) -> None:
    path = folder / "step-00000030"
    for name in FILES:
        content = (path / name).read_bytes()
        with (path / name).open("r+b", buffering=0) as file:
            for place, byte in enumerate(content):
                for bit in range(8):
                    os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                    with pytest.raises(CheckpointError, match="step-00000030"):
                        load_checkpoint(path)
                os.pwrite(file.fileno(), bytes([byte]), place)
    assert load_checkpoint(path).step == 30


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_deletion_and_foreign_content_is_seen(name: str, folder: Path) -> None:
    path = folder / "step-00000030"
    content = (path / name).read_bytes()
    contents = [content[:length] for length in range(len(content))]
    contents += [content + b"\n{}", bytes(len(content)), b"[]", b"null", b"{}", b"\xff", b"[" * 100_000]
    for damaged in contents:
        (path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=rf"step-00000030 is damaged: {name}"):
            load_checkpoint(path)
    (path / name).write_bytes((folder / "step-00000020" / name).read_bytes())
    with pytest.raises(CheckpointError, match="step-00000030 is damaged"):
        load_checkpoint(path)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=f"incomplete: {name} is missing"):
        load_checkpoint(path)
    (path / name).mkdir()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(path)


def test_checkpoint_under_another_name_is_seen(folder: Path) -> None:
    (folder / "step-00000030").rename(folder / "step-00000040")
    with pytest.raises(CheckpointError, match="holds step 30"):
        load_checkpoint(folder / "step-00000040")
    kept = (folder / "step-00000020").rename(folder / "kept for later")
    assert load_checkpoint(kept).step == 20


def test_checkpoint_of_a_later_format_is_refused_by_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltxtrain.learn.checkpoint.FORMAT", 2)
    with pytest.raises(CheckpointError, match="format 1, which this version"):
        load_checkpoint(folder / "step-00000030")


def test_damaged_newest_is_put_aside_and_the_one_before_is_used(folder: Path, checkpoint_of: Make, same: Same) -> None:
    (folder / "step-00000030" / "adapter.safetensors").write_bytes(b"")
    found, told = newest_valid(folder)
    assert found is not None
    assert same(found, checkpoint_of(20))
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000020", "step-00000010"]
    (aside,) = [name for name in names(folder) if name.startswith("invalid-")]
    assert set(names(folder / aside)) == set(FILES), "nothing of it is lost"
    (sentence,) = told
    assert "step-00000030 is damaged: adapter.safetensors" in sentence
    assert aside in sentence


def test_run_whose_checkpoints_are_all_damaged_is_refused_each_time(folder: Path) -> None:
    """Putting them all aside would make the next start a silent beginning at step 0."""
    for path in list_checkpoints(folder):
        (path / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match="none of the 3 checkpoints") as caught:
            newest_valid(folder)
        assert "resume-from-checkpoint" in str(caught.value.hint)
    assert len(list_checkpoints(folder)) == 3


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert newest_valid(tmp_path / "empty") == newest_valid(tmp_path / "absent") == (None, [])


def test_only_names_that_a_run_gives_are_checkpoints(folder: Path) -> None:
    others = ["step-5", "step-", "step-0000001x", "step-00000010.bak", "old-step-00000050", ".step-00000060.ab.tmp"]
    others += ["step-²0000001", "step-00000070 (copy)", "superseded-step-00000080-ab", "final"]
    for name in others:
        shutil.copytree(folder / "step-00000010", folder / name)
    (folder / "step-00000090").touch()
    assert [path.name for path in list_checkpoints(folder)] == ["step-00000030", "step-00000020", "step-00000010"]
    prune_checkpoints(folder, 1)
    assert set(names(folder)) == {"step-00000030", "step-00000090", *others} - {".step-00000060.ab.tmp"}


def test_steps_beyond_eight_digits_are_sorted_by_number(tmp_path: Path, checkpoint_of: Make) -> None:
    for step in (100_000_000, 99_999_999):
        save_checkpoint(tmp_path, checkpoint_of(step))
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-100000000", "step-99999999"]


@pytest.mark.parametrize(
    ("keep", "left"), [(1, [30]), (2, [30, 20]), (3, [30, 20, 10]), (9, [30, 20, 10]), (0, [30, 20, 10])]
)
def test_older_ones_are_pruned_and_zero_keeps_all(keep: int, left: list[int], folder: Path) -> None:
    pruned = prune_checkpoints(folder, keep)
    assert [path.name for path in pruned] == [f"step-{step:08d}" for step in (30, 20, 10) if step not in left]
    assert names(folder) == sorted(f"step-{step:08d}" for step in left)


def test_last_valid_one_is_never_pruned(folder: Path) -> None:
    for step in (20, 30):
        (folder / f"step-{step:08d}" / "state.json").write_text("{}")
    assert prune_checkpoints(folder, 1) == []
    assert prune_checkpoints(folder, 2) == []
    found, _ = newest_valid(folder)
    assert found is not None
    assert found.step == 10


def test_what_a_kill_left_behind_is_removed_and_never_loaded(folder: Path) -> None:
    shutil.copytree(folder / "step-00000030", folder / ".step-00000040.0badcafe.tmp")
    found, _ = newest_valid(folder)
    assert found is not None
    assert found.step == 30
    prune_checkpoints(folder, 5)
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"]
    assert prune_checkpoints(folder.parent / "absent", 5) == []


def test_second_save_of_a_step_takes_the_place_of_the_first_which_is_kept_aside(
    folder: Path, checkpoint_of: Make, same: Same
) -> None:
    path, _ = save_checkpoint(folder, checkpoint_of(30, run=7.0))
    assert same(load_checkpoint(path), checkpoint_of(30, run=7.0))
    (aside,) = [name for name in names(folder) if name.startswith("superseded-step-00000030")]
    assert same(load_checkpoint(folder / aside), checkpoint_of(30))


def test_full_disk_is_an_error_that_says_so_and_leaves_what_was_there(folder: Path, checkpoint_of: Make) -> None:
    """The limit on a file's size stands in for the disk: the kernel refuses the write for real."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"step 40 could not be saved in .*File too large") as caught:
            save_checkpoint(folder, checkpoint_of(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.exit_code == 7
    assert names(folder) == ["step-00000010", "step-00000020", "step-00000030"]


def test_manifest_is_json_that_other_tools_can_check(folder: Path) -> None:
    manifest = json.loads((folder / "step-00000010" / "MANIFEST.json").read_text())
    assert (manifest["format"], manifest["step"]) == (1, 10)
    assert {name: size for name, (size, _) in manifest["files"].items()} == {
        name: (folder / "step-00000010" / name).stat().st_size for name in FILES if name != "MANIFEST.json"
    }
