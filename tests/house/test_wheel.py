"""The wheel holds what a user without a checkout needs. Built offline, by the project's own build backend."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = target.glob("ltxtrain-*.whl")
    return zipfile.ZipFile(built)


def test_every_preset_travels_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    presets = {path.name: path.read_bytes() for path in (ROOT / "presets").glob("*.toml")}
    assert "smoke.toml" in presets
    for name, content in presets.items():
        assert wheel.read(f"ltxtrain/presets/{name}") == content


def test_every_file_of_the_package_travels_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    """Modules, the report's style and script, the marker of typed packages."""
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ltxtrain").rglob("*") if path.is_file()}
    wanted = {name for name in files if "__pycache__" not in name}
    assert "ltxtrain/py.typed" in wanted
    assert any(name.startswith("ltxtrain/report/") and name.endswith(".css") for name in wanted)
    assert wanted <= set(wheel.namelist())


def test_the_wheel_brings_the_command_and_the_licence(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    entry_points = next(name for name in names if name.endswith(".dist-info/entry_points.txt"))
    assert "ltxtrain = ltxtrain.cli:main" in wheel.read(entry_points).decode()
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_nothing_but_the_package_travels_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ltxtrain"}


def test_the_presets_are_found_without_a_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """``presets list`` of the unpacked wheel alone, away from the repository."""
    wheel.extractall(tmp_path / "site")
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ltxtrain.cli import main; main()"
    command = [sys.executable, "-c", code, tmp_path / "site", "presets", "list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in (ROOT / "presets").glob("*.toml"):
        assert path.stem in done.stdout + done.stderr
