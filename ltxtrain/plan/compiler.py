"""torch.compile builds small programs on this machine: whether it can is known before anything is loaded."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from ltxtrain.config.compute import SpeedConfig
from ltxtrain.errors import MachineError

# For the CPU whole kernels in C++; for a GPU only what launches Triton's kernels, in C against Python's headers.
C_PLUS_PLUS = ("clang++",) if sys.platform == "darwin" else ("g++",)
C = ("gcc", "clang", "cc")
WITHOUT = "or set dynamo_backend to no"


def check_compiler(speed: SpeedConfig, device: str, env: Mapping[str, str]) -> None:
    """Raise ``MachineError`` where ``speed`` compiles and ``device`` (cuda, rocm, mps or cpu) lacks what that takes."""
    if speed.dynamo_backend != "inductor":
        return
    if device == "mps":
        raise MachineError(
            "PyTorch compiles for Apple's GPUs by way of trial only (dynamo_backend inductor)",
            hint="set dynamo_backend to no",
        )
    kind, variable, names = ("C++", "CXX", C_PLUS_PLUS) if device == "cpu" else ("C", "CC", C)
    asked = env.get(variable, "").split()[:1]
    if not any(shutil.which(name, path=env.get("PATH", os.defpath)) for name in asked or names):
        found = f"{asked[0]}, which {variable} names, is not found" if asked else "none is found"
        raise MachineError(
            f"torch.compile needs a {kind} compiler, and {found} (dynamo_backend inductor)",
            hint=f"install {names[0]}, for instance with: apt-get install {names[0]} libc6-dev; {WITHOUT}",
        )
    if device != "cpu" and not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise MachineError(
            "torch.compile needs Python's headers, and Python.h is not found (dynamo_backend inductor)",
            hint=f"apt-get install python3-dev, {WITHOUT}",
        )
