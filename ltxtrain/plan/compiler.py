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


def compiler_lacking(speed: SpeedConfig, device: str, env: Mapping[str, str]) -> tuple[str, str] | None:
    """What ``speed`` needs to compile for ``device`` (cuda, rocm, mps, cpu) and this machine lacks, and what to do."""
    if speed.dynamo_backend != "inductor":
        return None
    asked, off = "dynamo_backend inductor", "set dynamo_backend to no"
    if device == "mps":
        return f"{asked} is no more than a trial on Apple's GPUs", off
    return tools_lacking(asked, off, device, env)


def tools_lacking(wanting: str, off: str, device: str, env: Mapping[str, str]) -> tuple[str, str] | None:
    """What compiling for ``device`` needs and this machine lacks; ``wanting`` asks for it, ``off`` takes it back."""
    kind, variable, names = ("C++", "CXX", C_PLUS_PLUS) if device == "cpu" else ("C", "CC", C)
    asked = env.get(variable, "").split()[:1]
    if not any(shutil.which(name, path=env.get("PATH", os.defpath)) for name in asked or names):
        found = f"{asked[0]}, which {variable} names, is not found" if asked else "none is found"
        install = f"install {names[0]}, for instance with: apt-get install {names[0]} libc6-dev"
        return f"{wanting} needs a {kind} compiler, and {found}", f"{install}, or {off}"
    if device != "cpu" and not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        problem = f"{wanting} needs Python's headers, and Python.h is not found"
        return problem, f"apt-get install python3-dev, or {off}"
    return None
