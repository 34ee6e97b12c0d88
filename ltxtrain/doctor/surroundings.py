"""What stands around the program: containers, device files, the drivers' tools and the variables that hide devices."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.facts.container import in_container
from ltxtrain.facts.machine import ask_tool

# Where the kernel's files are looked for. Tests name another place.
ROOT = Path("/")
NVIDIA, AMD = "0x10de", "0x1002"
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NVIDIA_DRIVER_CAPABILITIES",
    "HSA_OVERRIDE_GFX_VERSION",
    "LD_LIBRARY_PATH",
    "PYTORCH_MPS_HIGH_WATERMARK_RATIO",
    "PYTORCH_MPS_LOW_WATERMARK_RATIO",
)


@dataclass(frozen=True)
class DeviceFile:
    """A file of /dev that a driver makes. ``group`` is the number of its group."""

    path: str
    usable: bool
    group: int


@dataclass(frozen=True)
class Surroundings:
    """``nvidia`` are /dev/nvidia0, ...; ``render`` /dev/dri/renderD128, ...

    ``nvidia_smi`` is ``ok``, ``missing``, or what the tool complained of. ``vendors`` are the display cards on the bus,
    which a container sees whether it was given them or not.
    """

    container: bool = False
    wsl: bool = False
    vendors: frozenset[str] = frozenset()
    nvidia: tuple[DeviceFile, ...] = ()
    nvidia_control: bool = False
    nvidia_smi: str = "missing"
    kernel_driver: str | None = None
    kfd: DeviceFile | None = None
    render: tuple[DeviceFile, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def look_around(root: Path | None = None, env: Mapping[str, str] | None = None) -> Surroundings:
    """Read files below ``root`` (the machine's own) and ask nvidia-smi."""
    root = ROOT if root is None else root
    env = os.environ if env is None else env
    cards = [found for path in sorted(root.glob("dev/nvidia[0-9]*")) if (found := _device_file(path, root))]
    render = [found for path in sorted(root.glob("dev/dri/renderD*")) if (found := _device_file(path, root))]
    return Surroundings(
        container=in_container(env, root),
        wsl=(root / "dev/dxg").exists(),
        vendors=frozenset(_display_vendors(root)),
        nvidia=tuple(cards),
        nvidia_control=(root / "dev/nvidiactl").exists(),
        nvidia_smi=_ask_nvidia_smi(),
        kernel_driver=parse_kernel_driver(_read(root / "proc/driver/nvidia/version")),
        kfd=_device_file(root / "dev/kfd", root),
        render=tuple(render),
        variables={name: env[name] for name in VARIABLES if name in env},
    )


def parse_kernel_driver(text: str) -> str | None:
    """The version in /proc/driver/nvidia/version: ``... Kernel Module  535.129.03  Thu Oct 19 ...``."""
    found = re.search(r"Kernel Module\b.*?\s(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return found.group(1) if found else None


def _display_vendors(root: Path) -> set[str]:
    """Class 0x03 is display, 0x12 a processing accelerator (AMD's Instinct cards)."""
    found = set()
    for device in root.glob("sys/bus/pci/devices/*"):
        if _read(device / "class").strip()[:4] in ("0x03", "0x12"):
            found.add(_read(device / "vendor").strip())
    return found


def _device_file(path: Path, root: Path) -> DeviceFile | None:
    try:
        group = path.stat().st_gid
    except OSError:
        return None
    return DeviceFile(f"/{path.relative_to(root)}", os.access(path, os.R_OK | os.W_OK), group)


def _ask_nvidia_smi() -> str:
    try:
        done = ask_tool(["nvidia-smi", "-L"])
    except (FileNotFoundError, PermissionError):
        return "missing"
    except subprocess.TimeoutExpired as error:
        return f"no answer within {error.timeout:g} s"
    except OSError as error:
        return error.strerror or type(error).__name__
    if done.returncode == 0:
        return "ok"
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return lines[0] if lines else f"exit code {done.returncode}"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
