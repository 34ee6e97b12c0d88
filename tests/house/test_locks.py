"""The lists that `make setup` installs from: pinned, hashed, without torch, and agreeing with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
HASHED = ["lock.txt", "dev.txt", "torch-cpu.txt", "torch-mps.txt"]
TORCH_FILES = sorted(path.name for path in REQUIREMENTS.glob("torch-*.txt"))


def read(name: str) -> dict[str, tuple[Requirement, int]]:
    """Package -> (requirement, number of hashes). A line that is no requirement fails."""
    text = re.sub(r"\\\n", " ", (REQUIREMENTS / name).read_text())
    found: dict[str, tuple[Requirement, int]] = {}
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        requirement = Requirement(line.split("--hash")[0].strip())
        key = canonicalize_name(requirement.name)
        assert key not in found, f"{name} names {key} twice"
        found[key] = (requirement, len(re.findall(r"--hash=sha256:[0-9a-f]{64}(?=\s|$)", line)))
    assert found, f"{name} is empty"
    return found


def pinned(requirement: Requirement) -> bool:
    return [specifier.operator for specifier in requirement.specifier] == ["=="]


@pytest.mark.parametrize("name", HASHED)
def test_every_requirement_is_pinned_and_hashed(name: str) -> None:
    for requirement, hashes in read(name).values():
        assert pinned(requirement), requirement
        assert hashes, requirement


@pytest.mark.parametrize("name", ["lock.txt", "dev.txt"])
def test_the_shared_lists_hold_nothing_that_depends_on_the_hardware(name: str) -> None:
    hardware = [key for key in read(name) if re.match(r"(torch$|torchvision|triton|pytorch-triton|nvidia-|cuda-)", key)]
    assert hardware == []


def test_one_list_serves_all_pythons() -> None:
    """No entry of the lists is only for some of Python 3.11, 3.12, 3.13 on Linux or macOS."""
    for name in ("lock.txt", "dev.txt"):
        for requirement, _ in read(name).values():
            if requirement.marker is None:
                continue
            answers = {
                requirement.marker.evaluate(
                    {
                        "python_version": python,
                        "python_full_version": f"{python}.4",
                        "sys_platform": system,
                        "platform_machine": machine,
                    }
                )
                for python in ("3.11", "3.12", "3.13")
                for system, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
            }
            assert len(answers) == 1, requirement


def test_the_two_lists_do_not_overlap() -> None:
    assert read("lock.txt").keys() & read("dev.txt").keys() == set()


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = {**read("lock.txt"), **read("torch-cpu.txt")}
    for text in project["dependencies"]:
        asked = Requirement(text)
        requirement, _ = lock[canonicalize_name(asked.name)]
        assert asked.specifier.contains(str(requirement.specifier).removeprefix("=="), prereleases=True), text


def test_what_torch_itself_needs_is_in_the_lock() -> None:
    needs = {"filelock", "typing-extensions", "setuptools", "sympy", "networkx", "jinja2", "fsspec"}
    assert needs <= read("lock.txt").keys()


def test_all_kinds_of_torch_are_the_same_release() -> None:
    releases = {str(read(name)["torch"][0].specifier).removeprefix("==").split("+")[0] for name in TORCH_FILES}
    assert len(TORCH_FILES) >= 4
    assert len(releases) == 1


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_the_lists_name_no_index(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not any(line.startswith("-") for line in text.splitlines())
