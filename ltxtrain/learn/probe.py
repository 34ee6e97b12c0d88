"""What torch knows of itself and of this machine, as JSON lines on stdout. Run as a process of its own::

    python -m ltxtrain.learn.probe [PACKAGE...]

One line tells torch, one whether the first device computes, which a run takes, and one for each package named whether
it can be imported. Each line is written before the next thing is tried, so that a crash tells by the line that is
missing what crashed. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TextIO

FP8_NVIDIA = (8, 9)
FP8_AMD = ("gfx942", "gfx95", "gfx12")
BF16_MACOS = 14


def main(packages: Sequence[str]) -> None:
    out = _keep_stdout()
    torch, facts = import_torch()
    _tell(out, facts)
    if torch is not None and facts["available"]:
        _tell(out, {"device": 0, "error": _error_of(lambda: _compute(torch))})
    for name in packages:
        _tell(out, {"package": name, "error": _error_of(lambda name=name: importlib.import_module(name))})


def import_torch() -> tuple[Any, dict[str, Any]]:
    """The module, or None; and what is told of it."""
    try:
        import torch
    except (Exception, SystemExit) as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "torch"
        return None, {"torch": None, "missing": missing, "error": _one_line(error)}
    try:
        return torch, torch_facts(torch)
    except (Exception, SystemExit) as error:
        return None, {"torch": None, "missing": False, "error": _one_line(error)}


def torch_facts(torch: Any) -> dict[str, Any]:
    """Versions, the build's architectures, and each device that can be seen. Sizes are bytes."""
    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    facts: dict[str, Any] = {
        "torch": str(torch.__version__),
        "cuda": cuda,
        "hip": hip,
        "available": False,
        "error": "",
        "archs": _architectures(torch),
        "devices": [],
        "macos": platform.mac_ver()[0],
    }
    if cuda or hip:
        facts["available"], facts["error"] = _initialise(torch)
        if facts["available"]:
            facts["devices"] = [_device(torch, index, bool(hip)) for index in range(torch.cuda.device_count())]
    elif sys.platform == "darwin" and torch.backends.mps.is_available():
        facts["available"] = True
        facts["devices"] = [_apple_device(torch, facts["macos"])]
    return facts


def _initialise(torch: Any) -> tuple[bool, str]:
    """Whether there is a device, and else why not: an exception's words, or those of a warning."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            available = bool(torch.cuda.is_available()) and torch.cuda.device_count() > 0
            torch.cuda.init()
        except (Exception, SystemExit) as error:
            told = [str(warning.message).split("\n")[0] for warning in caught if "CUDA" in str(warning.message)]
            words = _one_line(error)
            return False, " ".join(dict.fromkeys([words, *told]))
    return available, "" if available else "no device is found"


def _architectures(torch: Any) -> list[str]:
    """What the build was compiled for. ``get_arch_list`` is empty without a device, the flags beneath it are not."""
    flags = getattr(getattr(torch, "_C", None), "_cuda_getArchFlags", None)
    if callable(flags):
        return str(flags() or "").split()
    return [str(arch) for arch in torch.cuda.get_arch_list()]


def _device(torch: Any, index: int, amd: bool) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    major, minor = torch.cuda.get_device_capability(index)
    architecture = str(getattr(properties, "gcnArchName", "")).split(":")[0] if amd else f"{major}.{minor}"
    fp8 = architecture.startswith(FP8_AMD) if amd else (major, minor) >= FP8_NVIDIA
    # What is free of the main memory, as such a device tells it, leaves out what the system would give back at once.
    shared = bool(getattr(properties, "is_integrated", False))
    return {
        "name": str(torch.cuda.get_device_name(index)),
        "capability": architecture,
        "total": int(properties.total_memory),
        "free": None if index or shared else _or_none(lambda: int(torch.cuda.mem_get_info(index)[0])),
        "bf16": _or_none(lambda: _bf16(torch, index)),
        "fp8": fp8,
    }


def _bf16(torch: Any, index: int) -> bool:
    """Asked as a run asks: bf16 that is only emulated does not count."""
    with torch.cuda.device(index):
        return bool(torch.cuda.is_bf16_supported(False))


def _apple_device(torch: Any, macos: str) -> dict[str, Any]:
    release = macos.split(".")[0]
    return {
        "name": "Apple GPU",
        "capability": None,
        "total": _or_none(lambda: int(torch.mps.recommended_max_memory())),
        "free": None,
        "bf16": release.isdigit() and int(release) >= BF16_MACOS,
        "fp8": False,
    }


def _compute(torch: Any) -> None:
    device = "cuda:0" if torch.version.cuda or torch.version.hip else "mps"
    square = torch.ones((16, 16), device=device)
    found = float((square @ square).sum().item())
    if found != 16.0**3:
        raise ArithmeticError(f"a product of ones is {found:g} and not 4096")


def _error_of(work: Callable[[], object]) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except (Exception, SystemExit) as error:
        return _one_line(error)
    return ""


def _or_none(ask: Callable[[], object]) -> object:
    try:
        return ask()
    except (Exception, SystemExit):
        return None


def _one_line(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}"[:300]


def _keep_stdout() -> TextIO:
    """This process's stdout for the answer alone: from here on file descriptor 1 is stderr, for C libraries too."""
    kept = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(kept, "w", encoding="utf-8")


def _tell(out: TextIO, facts: dict[str, Any]) -> None:
    out.write(json.dumps(facts) + "\n")
    out.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
