"""A planted import in the wrong direction, or through the wrong door, fails the checks that `make lint` runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent

PLANTED = {
    "an upward import": ("plan/planted.py", "from ltxtrain.cli import main", "Floors"),
    "an upward import inside a function": ("config/planted.py", "def f():\n    import ltxtrain.facts.media", "Floors"),
    "an import of a sibling": ("model/planted.py", "import ltxtrain.data", "Floors"),
    "a room that stands on no floor": ("attic.py", "", "Floors"),
    "torch below its line": ("facts/planted.py", "import torch", "torch line"),
    "torch below its line, inside a function": ("plan/planted.py", "def f():\n    import torch", "torch line"),
    "torch by way of a recipe": ("report/planted.py", "def f():\n    import ltxtrain.train", "torch line"),
    "diffusers outside model/": ("learn/planted.py", "import diffusers", "Door of diffusers"),
    "transformers outside model/": ("data/planted.py", "from transformers import T5Config", "Door of diffusers"),
    "peft outside its file": ("model/planted.py", "import peft", "Door of peft"),
    "accelerate outside its files": ("learn/planted.py", "import accelerate", "Door of accelerate"),
    "PyAV outside its files": ("data/planted.py", "import av", "Door of PyAV"),
    "datasets outside its file": ("facts/planted.py", "def f():\n    import datasets", "Door of datasets"),
    "pyarrow outside its files": ("plan/planted.py", "def f():\n    import pyarrow.parquet", "Door of datasets"),
    "Pillow outside its files": ("plan/planted.py", "def f():\n    from PIL import Image", "Door of Pillow"),
    "OpenCV outside its file": ("plan/planted.py", "def f():\n    import cv2", "Doors of OpenCV"),
    "PySceneDetect outside its room": ("facts/planted.py", "def f():\n    import scenedetect", "Doors of OpenCV"),
    "httpx outside its room": ("doctor/planted.py", "def f():\n    import httpx", "Door of httpx"),
    "torch in prepare/": ("prepare/planted.py", "def f():\n    import torch", "torch line"),
    "rich outside its rooms": ("plan/planted.py", "def f():\n    import rich", "Doors of rich"),
    "pydantic-settings outside config/": (
        "plan/planted.py",
        "def f():\n    import pydantic_settings",
        "pydantic-settings",
    ),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("house")
    shutil.copytree(ROOT / "ltxtrain", copy / "ltxtrain", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def lint_imports(house: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BIN / "lint-imports", "--no-cache"], cwd=house, capture_output=True, text=True, check=False)


def test_the_house_as_it_stands_keeps_all_contracts(house: Path) -> None:
    done = lint_imports(house)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("what", PLANTED)
def test_planted_import_is_found(house: Path, what: str) -> None:
    place, text, contract = PLANTED[what]
    planted = house / "ltxtrain" / place
    planted.write_text(f"{text}\n")
    try:
        done = lint_imports(house)
    finally:
        planted.unlink()
    broken = [line.split(" BROKEN")[0] for line in done.stdout.splitlines() if " BROKEN" in line]
    assert done.returncode != 0, done.stdout
    assert any(contract in line for line in broken), done.stdout


@pytest.mark.parametrize(
    "library",
    ["torch", "diffusers", "peft", "pydantic_settings", "safetensors.torch", "rich", "datasets", "pyarrow", "cv2"],
)
def test_expensive_library_at_the_top_of_a_command_is_found(house: Path, library: str) -> None:
    planted = house / "ltxtrain" / "cli" / "planted.py"
    planted.write_text(f"import {library}\n\nprint({library})\n")
    done = subprocess.run(
        [BIN / "ruff", "check", "--no-cache", planted], cwd=house, capture_output=True, text=True, check=False
    )
    planted.unlink()
    assert done.returncode == 1
    assert "TID253" in done.stdout


def test_reading_a_pickle_is_found(house: Path) -> None:
    planted = house / "ltxtrain" / "model" / "planted.py"
    planted.write_text("import torch\n\nprint(torch.load('x'))\n")
    done = subprocess.run(
        [BIN / "ruff", "check", "--no-cache", planted], cwd=house, capture_output=True, text=True, check=False
    )
    planted.unlink()
    assert "TID251" in done.stdout


def test_an_untyped_function_below_the_torch_line_is_found(house: Path) -> None:
    planted = house / "ltxtrain" / "plan" / "planted.py"
    planted.write_text("def double(x):\n    return 2 * x\n")
    command = [BIN / "mypy", "--cache-dir", house / "types", "ltxtrain/errors.py", "ltxtrain/plan/planted.py"]
    done = subprocess.run(command, cwd=house, capture_output=True, text=True, check=False)
    planted.unlink()
    assert done.returncode == 1
    assert "no-untyped-def" in done.stdout
