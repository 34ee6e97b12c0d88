"""``ltxtrain dataset inspect`` as people run it: what goes where, exit codes, and that no data set is changed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from tests.prepare.inspect_clips import moving, plain_folder, write

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def in_a_clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("LTXTRAIN_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    return plain_folder(tmp_path / "clips")


def told(capsys: Captured, *words: str) -> tuple[int, str, str]:
    code = run(["dataset", "inspect", *words])
    out, err = capsys.readouterr()
    return code, out, err


def stamps(root: Path) -> dict[str, tuple[int, int, int]]:
    every = [root, *root.rglob("*")]
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns, path.stat().st_mode) for path in every}


def test_the_page_goes_to_the_output_folder_and_its_place_and_a_summary_to_stderr(
    capsys: Captured, clips: Path, tmp_path: Path
) -> None:
    before = stamps(clips)
    code, out, err = told(capsys, "clips")
    assert (code, out) == (0, "")
    assert "3 clips: 3 used" in err and err.splitlines()[-1] == "page: output/inspect.html"
    page = (tmp_path / "output" / "inspect.html").read_text(encoding="utf-8")
    assert page.count("data:image/jpeg") == 3 and "good2.mp4" in page
    assert stamps(clips) == before


def test_json_goes_to_stdout_alone_and_no_page_is_written(capsys: Captured, clips: Path, tmp_path: Path) -> None:
    code, out, err = told(capsys, str(clips), "--json")
    assert code == 0 and "page:" not in err
    assert [clip["name"] for clip in json.loads(out)["clips"]] == ["good0.mp4", "good1.mp4", "good2.mp4"]
    assert not (tmp_path / "output").exists()


def test_json_and_a_page_where_one_is_named(capsys: Captured, clips: Path, tmp_path: Path) -> None:
    code, out, err = told(capsys, "clips", "--json", "--page", "there/look.html", "--thumbnails", "1")
    assert code == 0 and json.loads(out)["clips_found"] == 3
    assert err.splitlines()[-1] == "page: there/look.html"
    assert (tmp_path / "there" / "look.html").read_text(encoding="utf-8").count("data:image/jpeg") == 1


def test_options_of_a_run_change_the_verdict(capsys: Captured, clips: Path) -> None:
    _, out, _ = told(capsys, "clips", "--json", "--no-pictures", "--num-frames", "17")
    assert [clip["bucket"][-3:] for clip in json.loads(out)["clips"]] == ["@17"] * 3


def test_the_configured_data_sets_are_taken_where_no_folder_is_named(
    capsys: Captured, clips: Path, tmp_path: Path
) -> None:
    write(tmp_path / "more" / "b.mp4", moving(7), "A field of light in another folder")
    (tmp_path / "run.toml").write_text(
        """
        [[datasets]]
        id = "one"
        dataset_type = "video"
        instance_data_dir = "clips"
        repeats = 9
        video = { num_frames = 25, min_frames = 25 }
        [[datasets]]
        id = "two"
        dataset_type = "video"
        instance_data_dir = "more"
        repeats = 9
        video = { num_frames = 25, min_frames = 25 }
        """
    )
    _, out, _ = told(capsys, "--config", "run.toml", "--json", "--no-pictures")
    assert [(c["dataset"], c["name"]) for c in json.loads(out)["clips"]][2:] == [("one", "good2.mp4"), ("two", "b.mp4")]
    _, out, _ = told(capsys, "more", "--config", "run.toml", "--json", "--no-pictures")
    assert [clip["name"] for clip in json.loads(out)["clips"]] == ["b.mp4"]


def test_clips_that_no_run_could_use_give_a_page_and_exit_code_3(capsys: Captured, clips: Path, tmp_path: Path) -> None:
    code, _, err = told(capsys, "clips", "--minimum-image-size", "2000", "--no-pictures")
    assert code == 3 and "page: output/inspect.html" in err
    assert "3 too-small" in err and err.splitlines()[-1].startswith("hint: ")
    assert "A run could not begin." in (tmp_path / "output" / "inspect.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["--page", "clips/inspect.html"], ["--page"]),
        (["--output", "clips/out"], ["--page"]),
        (["--cache", "clips"], ["--cache"]),
        (["--cache", "clips/c", "--output", "clips"], ["--cache", "--page"]),
    ],
)
def test_nothing_is_ever_written_into_the_data_set(
    capsys: Captured, clips: Path, words: list[str], flags: list[str]
) -> None:
    before = stamps(clips)
    code, out, err = told(capsys, "clips", *words)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert [line.split(":")[1].strip() for line in lines[:-1]] == flags
    assert stamps(clips) == before


def test_without_any_clips_the_folder_is_told(capsys: Captured, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = told(capsys, "empty")
    assert code == 3 and "error: " in err and "empty" in err
    code, _, err = told(capsys, "nowhere")
    assert code == 3 and "nowhere" in err


def test_no_folder_and_no_data_is_told_as_elsewhere(capsys: Captured) -> None:
    code, out, err = told(capsys)
    assert (code, out) == (3, "") and "no clips are named" in err


def test_an_interrupt_ends_it_at_once_with_its_children_and_without_a_page(tmp_path: Path) -> None:
    clip = write(tmp_path / "clips" / "0.mp4", moving(0), "A field of light on a wall")
    for number in range(1, 300):
        os.link(clip, clip.with_name(f"{number}.mp4"))
        clip.with_name(f"{number}.txt").write_text(f"A field of light, number {number}")
    words = [sys.executable, "-m", "ltxtrain", "dataset", "inspect", "clips"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    said = ""
    while "pictures: 300 clips" not in said:
        line = process.stderr.readline()
        assert line, said
        said += line
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the children as well
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and out == ""
    assert "Traceback" not in err and "error: interrupted" in err
    assert not (tmp_path / "output").exists()
    deadline = time.monotonic() + 10
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_torch_is_imported(clips: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "ltxtrain", "dataset", "inspect", str(clips)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    log = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    packages = {line.rsplit("|", 1)[1].strip().split(".")[0] for line in log}
    assert "numpy" in packages and packages & {"torch", "diffusers", "transformers", "peft", "accelerate"} == set()
