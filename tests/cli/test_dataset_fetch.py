"""``ltxtrain dataset fetch`` as it is typed: lines, exit codes, and the folder alone on stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ltxtrain.cli.app import run
from tests.prepare.fetch_hub import NAME, serving

FILES = {"one.mp4": b"a video", "one.txt": b"a cat\n", "load.py": b"import os"}


def ltxtrain(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    root = str(Path(__file__).resolve().parents[2])
    command = [sys.executable, "-m", "ltxtrain", "dataset", "fetch", *words]
    environment = kept | {"PYTHONPATH": root, "HF_HOME": str(folder / "hub"), **env}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def test_a_set_comes_into_its_usual_folder_and_the_next_line_is_told(tmp_path: Path) -> None:
    with serving(dict(FILES)) as hub:
        done = ltxtrain(tmp_path, NAME, HF_ENDPOINT=hub.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'datasets/clips'}\n"
    assert sorted(path.name for path in (tmp_path / "datasets/clips").iterdir() if path.name[0] != ".") == [
        "one.mp4",
        "one.txt",
    ]
    lines = done.stderr.splitlines()
    assert "licence: mit" in lines[0] and lines[1].endswith("load.py")
    assert lines[-1] == f"next: ltxtrain dataset inspect {tmp_path / 'datasets/clips'}"


def test_a_set_that_is_not_there_is_the_datas_fault_and_no_network_the_machines(tmp_path: Path) -> None:
    with serving({}) as hub:
        missing = ltxtrain(tmp_path, "disney", HF_ENDPOINT=hub.address)
    assert missing.returncode == 3 and "has no data set sayakpaul/video-dataset-disney-organized" in missing.stderr
    away = ltxtrain(tmp_path, "disney", HF_ENDPOINT="http://127.0.0.1:9")
    assert away.returncode == 4 and "HF_ENDPOINT to a mirror" in away.stderr
    assert not (tmp_path / "datasets").exists()


def test_a_name_that_is_none_is_refused_before_anything_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["dataset", "fetch", "disny"]) == 2
    assert "hint: OWNER/NAME as the Hub's page shows it, or a short name: disney" in capsys.readouterr().err
