"""This machine, probed without torch: the operating system, its memory, and what accelerators the drivers tell of."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Gpu:
    """``capability`` is CUDA's ("8.6"), or AMD's architecture ("gfx942"), where the driver tells it."""

    name: str
    memory_bytes: int
    capability: str | None = None


@dataclass(frozen=True)
class Machine:
    """``device`` is the kind that a run would use: cuda, rocm, mps or cpu. Apple's GPU shares ``memory_bytes``."""

    os: str
    cpu: str
    cores: int
    memory_bytes: int
    device: str
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None


def probe_machine() -> Machine:
    """Ask the operating system and the drivers' own tools. A tool that is missing or fails means: no such device."""
    memory = memory_limit_bytes()
    gpus, driver = _nvidia_gpus()
    device = "cuda"
    if not gpus:
        gpus, driver = _amd_gpus()
        device = "rocm"
    if not gpus and platform.system() == "Darwin" and platform.machine() == "arm64":
        gpus, driver = (Gpu(name=f"{_cpu_name()} GPU", memory_bytes=memory),), None
        device = "mps"
    return Machine(
        os=f"{platform.system()} {platform.release()}",
        cpu=_cpu_name(),
        cores=usable_cores(),
        memory_bytes=memory,
        device=device if gpus else "cpu",
        gpus=gpus,
        driver=driver,
    )


def usable_cores() -> int:
    """Cores that this process may use: less than the machine's in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limit_bytes() -> int:
    """Memory that this process may use: the container's limit where there is one below the machine's memory."""
    total = _physical_memory_bytes()
    for limit in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        text = _read_text(limit).strip()
        if text.isdigit():
            return min(total, int(text))
    return total


def _physical_memory_bytes() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = _run(["sysctl", "-n", "hw.memsize"]).strip()
    return int(text) if text.isdigit() else 0


def _cpu_name() -> str:
    if platform.system() == "Darwin":
        return _run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", _read_text(Path("/proc/cpuinfo")), flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _nvidia_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    text = _run(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    return parse_nvidia_smi(text)


def parse_nvidia_smi(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """Lines of ``name, MiB, capability, driver``; lines of any other form (an error text) are passed over."""
    gpus: list[Gpu] = []
    driver = None
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not fields[1].isdigit():
            continue
        capability = fields[2] if re.fullmatch(r"\d+\.\d+", fields[2]) else None
        gpus.append(Gpu(fields[0], int(fields[1]) * 1024**2, capability))
        driver = fields[3]
    return tuple(gpus), driver


def _amd_gpus() -> tuple[tuple[Gpu, ...], str | None]:
    text = _run(["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"])
    return parse_rocm_smi(text)


def parse_rocm_smi(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """rocm-smi's JSON: one object for each ``cardN``, and ``system`` with the driver's version."""
    try:
        found = json.loads(text)
    except ValueError:
        return (), None
    if not isinstance(found, dict):
        return (), None
    gpus = [
        _amd_gpu(card) for name, card in sorted(found.items()) if name.startswith("card") and isinstance(card, dict)
    ]
    system = found.get("system")
    driver = system.get("Driver version") if isinstance(system, dict) else None
    return tuple(gpu for gpu in gpus if gpu.memory_bytes), driver


def _amd_gpu(card: dict[str, object]) -> Gpu:
    memory = str(card.get("VRAM Total Memory (B)", "0"))
    name = card.get("Card Series") or card.get("Card series") or card.get("Card Model") or "AMD GPU"
    architecture = card.get("GFX Version")
    return Gpu(str(name), int(memory) if memory.isdigit() else 0, str(architecture) if architecture else None)


def _run(command: list[str]) -> str:
    """The tool's output, or nothing: a machine without the tool is the common case, not a fault."""
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
