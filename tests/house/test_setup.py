"""``make setup`` does nothing when nothing has changed, and something when any list or the project's metadata has."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what setup reads, with an environment that pip could not install into."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho installing instead of resting >&2\nexit 1\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / "pyvenv.cfg").write_text(f"home = /usr/bin\nversion = {platform.python_version()}\n")
    (tmp_path / ".venv" / "ltxtrain-setup").write_text(f"cpu {digest(tmp_path)}")
    return tmp_path


def digest(checkout: Path, kind: str = "cpu") -> str:
    code = f"import sys; sys.path.insert(0, 'scripts'); import setup; print(setup.digest_of_inputs({kind!r}))"
    return subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=True).stdout


def setup(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/setup.py", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_nothing_is_installed_when_nothing_has_changed(checkout: Path) -> None:
    done = setup(checkout)
    assert done.returncode == 0, done.stderr
    assert "up to date" in done.stdout


@pytest.mark.parametrize("name", ["lock.txt", "dev.txt", "torch-cpu.txt"])
def test_a_changed_list_is_installed(checkout: Path, name: str) -> None:
    changed = checkout / "requirements" / name
    changed.write_text(changed.read_text().replace("sha256:", "sha256:0", 1))
    done = setup(checkout)
    assert done.returncode != 0
    assert "installing instead of resting" in done.stderr


def test_a_changed_dependency_of_the_project_is_installed(checkout: Path) -> None:
    metadata = checkout / "pyproject.toml"
    metadata.write_text(metadata.read_text().replace('"torch>=', '"torch>=99', 1))
    assert setup(checkout).returncode != 0


def test_another_rule_for_the_linter_is_no_reason_to_install(checkout: Path) -> None:
    metadata = checkout / "pyproject.toml"
    metadata.write_text(metadata.read_text().replace("max-complexity = 15", "max-complexity = 14", 1))
    assert setup(checkout).returncode == 0


def test_a_setup_that_failed_is_tried_again(checkout: Path) -> None:
    changed = checkout / "requirements" / "lock.txt"
    original = changed.read_text()
    changed.write_text(original + "# changed\n")
    assert setup(checkout).returncode != 0
    changed.write_text(original)
    assert setup(checkout).returncode != 0


def test_an_unknown_kind_of_torch_is_refused_with_the_known_ones(checkout: Path) -> None:
    done = setup(checkout, "--torch", "cu999")
    assert done.returncode == 2
    assert "cu129" in done.stderr


def test_the_kind_of_torch_that_was_chosen_once_stays(checkout: Path) -> None:
    stamp = checkout / ".venv" / "ltxtrain-setup"
    stamp.write_text(f"cu129 {digest(checkout, 'cu129')}")
    assert "up to date" in setup(checkout).stdout
    assert setup(checkout, "--torch", "cpu").returncode != 0  # another one is installed when it is asked for


def test_a_failed_setup_keeps_the_kind_of_torch(checkout: Path) -> None:
    assert setup(checkout, "--torch", "cu129").returncode != 0
    assert (checkout / ".venv" / "ltxtrain-setup").read_text().startswith("cu129 ")


def test_another_python_than_the_environment_has_is_refused(checkout: Path) -> None:
    (checkout / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion = 3.10.2\n")
    done = setup(checkout)
    assert done.returncode == 1
    assert "3.10.2" in done.stderr


@pytest.mark.parametrize("content", ["", "cpu", "nonsense 1234"])
def test_a_record_that_was_cut_off_means_installing_again(checkout: Path, content: str) -> None:
    (checkout / ".venv" / "ltxtrain-setup").write_text(content)
    assert "installing instead of resting" in setup(checkout).stderr
