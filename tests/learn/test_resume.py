"""Where a run goes on, and what it refuses to go on from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.errors import CheckpointError
from ltxtrain.learn.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from ltxtrain.learn.resume import changed_settings, check_same_run, choose_checkpoint, peek_step

Make = Callable[..., Checkpoint]


def steps(folder: Path) -> list[int]:
    return [load_checkpoint(path).step for path in list_checkpoints(folder)]


def aside(folder: Path) -> list[str]:
    return sorted(path.name.rsplit("-", 1)[0] for path in folder.iterdir() if not path.name.startswith("step-"))


def test_latest_is_the_newest(folder: Path) -> None:
    chosen, told = choose_checkpoint(folder, "latest")
    assert chosen is not None
    assert (chosen.step, told, steps(folder)) == (30, [], [30, 20, 10])


def test_latest_of_a_new_run_is_none(tmp_path: Path) -> None:
    assert choose_checkpoint(tmp_path / "checkpoints", "latest") == (None, [])
    assert choose_checkpoint(tmp_path / "checkpoints", "") == (None, [])


def test_latest_goes_past_a_damaged_one_and_says_so(folder: Path) -> None:
    (folder / "step-00000030" / "MANIFEST.json").unlink()
    chosen, told = choose_checkpoint(folder, "latest")
    assert chosen is not None
    assert chosen.step == 20
    assert "MANIFEST.json is missing" in told[0]
    assert aside(folder) == ["invalid-step-00000030"]


@pytest.mark.parametrize("how", ["name", "number", "path", "relative path"])
def test_named_one_is_used_and_later_ones_are_put_aside(
    how: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    wanted = {
        "name": "step-00000020",
        "number": "20",
        "path": str(folder / "step-00000020"),
        "relative path": "checkpoints/step-00000020",
    }[how]
    chosen, told = choose_checkpoint(folder, wanted)
    assert chosen is not None
    assert chosen.step == 20
    assert steps(folder) == [20, 10]
    assert aside(folder) == ["superseded-step-00000030"]
    assert "superseded-step-00000030" in told[0]


def test_the_step_is_peeked_at_without_opening_anything(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    named = ("latest", "20", "step-00000010", str(folder.parent / "other" / "step-00000007"), "", "somewhere")
    assert [peek_step(folder, wanted) for wanted in named] == [30, 20, 10, 7, 0, 0]
    assert peek_step(folder.parent / "nowhere", "latest") == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_naming_the_newest_puts_nothing_aside(folder: Path) -> None:
    chosen, told = choose_checkpoint(folder, "30")
    assert chosen is not None
    assert (chosen.step, told, aside(folder)) == (30, [], [])


def test_path_into_another_run_leaves_nothing_of_this_one_in_the_way(folder: Path, checkpoint_of: Make) -> None:
    """A checkpoint of this run would otherwise be the latest of a history that it is no part of."""
    path, _ = save_checkpoint(folder.parent / "other" / "checkpoints", checkpoint_of(15, run=2.0))
    chosen, _ = choose_checkpoint(folder, str(path))
    assert chosen is not None
    assert float(chosen.adapter["a.lora_B"][0]) == 2.0
    assert steps(folder) == []
    assert len(aside(folder)) == 3
    assert steps(path.parent) == [15]


def test_empty_starts_afresh_and_loses_nothing(folder: Path) -> None:
    chosen, told = choose_checkpoint(folder, "")
    assert chosen is None
    assert aside(folder) == [f"superseded-step-{step:08d}" for step in (10, 20, 30)]
    assert all(f"superseded-step-{step:08d}" in told[0] for step in (10, 20, 30))
    assert choose_checkpoint(folder, "latest") == (None, ["starting afresh; 3 checkpoints were put aside earlier"])


@pytest.mark.parametrize("wanted", ["step-00000015", "15", "nowhere/step-00000010", "best", "..", "²"])
def test_named_one_that_is_not_there_is_an_error_and_never_a_fresh_start(wanted: str, folder: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        choose_checkpoint(folder, wanted)
    assert caught.value.exit_code == 7
    assert (steps(folder), aside(folder)) == ([30, 20, 10], [])


def test_error_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint .*step-00000015") as caught:
        choose_checkpoint(folder, "15")
    assert "step-00000030, step-00000020, step-00000010" in str(caught.value.hint)


def test_named_one_that_is_damaged_is_an_error_and_stays_where_it_is(folder: Path) -> None:
    (folder / "step-00000020" / "adapter.safetensors").write_bytes(b"short")
    with pytest.raises(CheckpointError, match=r"damaged: adapter\.safetensors"):
        choose_checkpoint(folder, "20")
    assert len(list_checkpoints(folder)) == 3
    assert aside(folder) == []


def test_all_damaged_is_an_error_again_and_again_until_a_fresh_start_is_asked_for(folder: Path) -> None:
    for path in list_checkpoints(folder):
        (path / "state.json").write_text("{}")
    for _ in range(2):
        with pytest.raises(CheckpointError, match="none of the 3 checkpoints"):
            choose_checkpoint(folder, "latest")
    assert choose_checkpoint(folder, "")[0] is None
    assert len(aside(folder)) == 3


def test_checkpoint_of_another_run_is_refused_before_anything_is_put_aside(folder: Path, checkpoint_of: Make) -> None:
    mine = dict(checkpoint_of(20).state["identity"])
    with pytest.raises(CheckpointError, match="another adapter"):
        choose_checkpoint(folder, "20", mine | {"adapter": "other"})
    assert (steps(folder), aside(folder)) == ([30, 20, 10], [])
    chosen, _ = choose_checkpoint(folder, "20", mine)
    assert chosen is not None


def test_run_with_another_model_adapter_or_data_is_named(tmp_path: Path) -> None:
    saved = {"base model": "a", "adapter": "b", "set of clips": "c"}
    check_same_run(saved, dict(saved), tmp_path)
    with pytest.raises(CheckpointError, match="another base model and another set of clips") as caught:
        check_same_run(saved, {"base model": "x", "adapter": "b", "set of clips": "y"}, tmp_path)
    assert "--run-name" in str(caught.value.hint)
    with pytest.raises(CheckpointError, match="another adapter"):
        check_same_run({"base model": "a", "set of clips": "c"}, saved, tmp_path)


def test_changed_settings_are_told_with_both_values() -> None:
    saved = {"learning_rate": 1e-4, "lr_scheduler": "cosine", "gone": 1}
    assert changed_settings(saved, {"learning_rate": 5e-5, "lr_scheduler": "cosine", "new": 2}) == [
        "learning_rate 0.0001 -> 5e-05"
    ]
    assert changed_settings(saved, saved) == []


def test_long_lists_of_changes_are_cut() -> None:
    saved = {f"option_{index:02d}": 0 for index in range(12)}
    told = changed_settings(saved, dict.fromkeys(saved, 1))
    assert told[0] == "option_00 0 -> 1"
    assert len(told) == 9
    assert told[-1] == "and 4 more"
