"""A compiler that torch.compile needs and that is not there is told before anything is loaded."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from ltxtrain.config.compute import SpeedConfig
from ltxtrain.errors import MachineError
from ltxtrain.plan.compiler import check_compiler

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
    for device in ("cuda", "rocm"):
        check_compiler(INDUCTOR, device, machine_with)
    with pytest.raises(MachineError, match=r"needs a C\+\+ compiler, and none is found") as caught:
        check_compiler(INDUCTOR, "cpu", machine_with)
    assert "set dynamo_backend to no" in str(caught.value.hint)
    check_compiler(INDUCTOR, "cpu", machine_with | {"CXX": "gcc -O3"})


def test_a_machine_without_any_is_told(machine_with: dict[str, str], tmp_path: Path) -> None:
    nowhere = {"PATH": str(tmp_path)}
    with pytest.raises(MachineError, match="needs a C compiler"):
        check_compiler(INDUCTOR, "cuda", nowhere)
    with pytest.raises(MachineError, match="icc, which CC names, is not found"):
        check_compiler(INDUCTOR, "cuda", machine_with | {"CC": "icc -fast"})
    (tmp_path / "Python.h").unlink()
    with pytest.raises(MachineError, match=r"Python\.h is not found"):
        check_compiler(INDUCTOR, "cuda", machine_with)


def test_apples_gpus_are_refused() -> None:
    with pytest.raises(MachineError, match="Apple"):
        check_compiler(INDUCTOR, "mps", dict(os.environ))


@pytest.mark.parametrize("backend", ["no", "eager", "aot_eager"])
def test_other_back_ends_need_none(backend: str, tmp_path: Path) -> None:
    for device in ("cuda", "mps", "cpu"):
        check_compiler(SpeedConfig(dynamo_backend=backend), device, {"PATH": str(tmp_path)})
