"""torch.compile builds small programs on this machine: whether it can is known before anything is loaded."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from ltxtrain.config.compute import SpeedConfig

# For the CPU whole kernels in C++; for a GPU only what launches Triton's kernels, in C against Python's headers.
C_PLUS_PLUS = ("clang++",) if sys.platform == "darwin" else ("g++",)
C = ("gcc", "clang", "cc")
WITHOUT = "or set dynamo_backend to no"


def compiler_lacking(speed: SpeedConfig, device: str, env: Mapping[str, str]) -> tuple[str, str] | None:
    """What ``speed`` needs to compile for ``device`` (cuda, rocm, mps, cpu) and this machine lacks, and what to do."""
    if speed.dynamo_backend != "inductor":
        return None
    if device == "mps":
        return "dynamo_backend inductor is no more than a trial on Apple's GPUs", "set dynamo_backend to no"
    kind, variable, names = ("C++", "CXX", C_PLUS_PLUS) if device == "cpu" else ("C", "CC", C)
    asked = env.get(variable, "").split()[:1]
    if not any(shutil.which(name, path=env.get("PATH", os.defpath)) for name in asked or names):
        found = f"{asked[0]}, which {variable} names, is not found" if asked else "none is found"
        install = f"install {names[0]}, for instance with: apt-get install {names[0]} libc6-dev"
        return f"dynamo_backend inductor needs a {kind} compiler, and {found}", f"{install}, {WITHOUT}"
    if device != "cpu" and not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        problem = "dynamo_backend inductor needs Python's headers, and Python.h is not found"
        return problem, f"apt-get install python3-dev, {WITHOUT}"
    return None
