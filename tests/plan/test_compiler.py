"""A compiler that torch.compile needs and that is not there is told before anything is loaded."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from ltxtrain.config import load_config
from ltxtrain.config.compute import SpeedConfig
from ltxtrain.errors import MachineError
from ltxtrain.facts.machine import Machine
from ltxtrain.plan.compiler import compiler_lacking
from ltxtrain.plan.support import check_support

INDUCTOR = SpeedConfig(dynamo_backend="inductor")


@pytest.fixture
def machine_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment whose path has a C compiler and no other, and a Python with its headers."""
    compiler = tmp_path / "bin" / "gcc"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    return {"PATH": str(compiler.parent)}


def test_a_gpu_takes_a_c_compiler_and_a_cpu_one_for_c_plus_plus(machine_with: dict[str, str]) -> None:
    assert compiler_lacking(INDUCTOR, "cuda", machine_with) is compiler_lacking(INDUCTOR, "rocm", machine_with) is None
    problem, hint = compiler_lacking(INDUCTOR, "cpu", machine_with) or ("", "")
    assert problem == "dynamo_backend inductor needs a C++ compiler, and none is found"
    assert hint.endswith("or set dynamo_backend to no")
    assert compiler_lacking(INDUCTOR, "cpu", machine_with | {"CXX": "gcc -O3"}) is None


def test_a_machine_without_any_is_told(machine_with: dict[str, str], tmp_path: Path) -> None:
    assert "needs a C compiler" in str(compiler_lacking(INDUCTOR, "cuda", {"PATH": str(tmp_path)}))
    assert "icc, which CC names, is not found" in str(
        compiler_lacking(INDUCTOR, "cuda", machine_with | {"CC": "icc -w"})
    )
    (tmp_path / "Python.h").unlink()
    assert "Python.h is not found" in str(compiler_lacking(INDUCTOR, "cuda", machine_with))


def test_apples_gpus_are_refused() -> None:
    assert "Apple" in str(compiler_lacking(INDUCTOR, "mps", dict(os.environ)))


@pytest.mark.parametrize("backend", ["no", "eager", "aot_eager"])
def test_other_back_ends_need_none(backend: str, tmp_path: Path) -> None:
    for device in ("cuda", "mps", "cpu"):
        assert compiler_lacking(SpeedConfig(dynamo_backend=backend), device, {"PATH": str(tmp_path)}) is None


def test_it_is_refused_before_anything_is_loaded(machine_with: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(env={}, flags={"dynamo_backend": "inductor"}).config
    cpu = Machine("Linux", "a CPU", 2, 8 * 1024**3, "cpu")
    monkeypatch.setenv("PATH", machine_with["PATH"])
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(MachineError, match=r"needs a C\+\+ compiler"):
        check_support(config, cpu)
