"""This machine, probed without torch: the operating system, its memory, and what accelerators the drivers tell of."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Kinds of device with memory of their own. That of the others, cpu and mps, is the main memory.
OWN_MEMORY = ("cuda", "rocm")
# Without persistence mode the driver wakes every card anew for each question: seconds on a machine with eight.
TOOL_SECONDS = 20.0
AMD_SMI = ["amd-smi", "static", "--asic", "--vram", "--driver", "--json"]
ROCM_SMI = ["rocm-smi", "--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"]
UNITS = {"b": 1, "kb": 1024, "mb": 1024**2, "gb": 1024**3}  # as AMD's tools mean them: 196592 MB are an MI300X
# nvidia-smi's words for a card without memory of its own (DGX Spark, Jetson), and for one that was given in part.
SHARED_MEMORY = ("[N/A]", "[Not Supported]")
ONLY_A_PART = "[Insufficient Permissions]"
# Heaps of a KFD memory bank that lie on the card: visible to the host, and not.
CARD_HEAPS = ("1", "2")


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


def probe_machine(root: Path = Path("/")) -> Machine:
    """Ask the operating system and the drivers' own tools. A tool that is missing or fails means: no such device.

    ``root`` is where the kernel's files are looked for; tests name another one.
    """
    memory = memory_limit_bytes(root)
    gpus, driver = _nvidia_gpus(memory)
    device = "cuda"
    if not gpus:
        gpus, driver = _amd_gpus(root)
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


def has_gpu_files(kind: str, root: Path = Path("/")) -> bool:
    """Whether a driver's device files for ``kind`` (cuda, rocm) are there, in WSL or on a Jetson as well."""
    patterns = {"cuda": ("nvidia[0-9]*", "dxg", "nvmap"), "rocm": ("kfd", "dxg")}[kind]
    return any(True for pattern in patterns for _ in (root / "dev").glob(pattern))


def usable_cores() -> int:
    """Cores that this process may use: less than the machine's in a container or under taskset."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_limit_bytes(root: Path = Path("/")) -> int:
    """Memory that this process may use: the container's or the job's limit, where it is below the machine's memory."""
    limits = [_read_text(place).strip() for place in _memory_limits(root)]
    return min([physical_memory_bytes(), *(int(limit) for limit in limits if limit.isdigit())])


def _memory_limits(root: Path) -> set[Path]:
    """The files with the limits of this process's control group and of those above it, in either version.

    A container sees its own at the top; outside of one (a job of Slurm's) it lies where /proc tells.
    """
    mounted = root / "sys/fs/cgroup"
    files = {mounted / "memory.max", mounted / "memory/memory.limit_in_bytes"}
    for line in _read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        below = Path(path.lstrip("/"))
        if not controllers:
            files |= {mounted / group / "memory.max" for group in (below, *below.parents)}
        elif "memory" in controllers.split(","):
            files |= {mounted / "memory" / group / "memory.limit_in_bytes" for group in (below, *below.parents)}
    return files


def physical_memory_bytes() -> int:
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    text = _run(["sysctl", "-n", "hw.memsize"]).strip()
    return int(text) if text.isdigit() else 0


def _cpu_name() -> str:
    if platform.system() == "Darwin":
        return _run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", _read_text(Path("/proc/cpuinfo")), flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def _nvidia_gpus(host_bytes: int) -> tuple[tuple[Gpu, ...], str | None]:
    query = "--query-gpu=name,memory.total,compute_cap,driver_version"
    text = _run(["nvidia-smi", query, "--format=csv,noheader,nounits"])
    listing = _run(["nvidia-smi", "-L"]) if ONLY_A_PART in text else ""
    return parse_nvidia_smi(text, host_bytes, listing)


def parse_nvidia_smi(text: str, host_bytes: int = 0, listing: str = "") -> tuple[tuple[Gpu, ...], str | None]:
    """Lines of ``name, MiB, capability, driver``; lines of any other form (an error text) are passed over.

    A card without memory of its own shares ``host_bytes``. A container with a part of a card (MIG) is not told the
    card's memory; the part's stands in its name in ``listing``, the tool's answer to ``-L``.
    """
    gpus: list[Gpu] = []
    driver = None
    for line in text.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != 4 or not re.match(r"\d|\[", fields[1]):
            continue
        name, memory, capability, driver = fields[0], 0, re.fullmatch(r"\d+\.\d+", fields[2]), fields[3]
        if fields[1].isdigit():
            memory = int(fields[1]) * 1024**2
        elif fields[1] in SHARED_MEMORY:
            memory = host_bytes
        elif part := re.search(r"^\s*MIG (\w+\.(\d+)gb\S*)", listing, flags=re.MULTILINE):
            name, memory = f"{name} MIG {part[1]}", int(part[2]) * 1000**3  # a little less than it is
        if memory:
            gpus.append(Gpu(name, memory, fields[2] if capability else None))
    return tuple(gpus), driver


def _amd_gpus(root: Path) -> tuple[tuple[Gpu, ...], str | None]:
    """AMD's newer tool, its older one, and what the kernel tells without either; the first that finds a card wins."""
    for command, parse in ((AMD_SMI, parse_amd_smi), (ROCM_SMI, parse_rocm_smi)):
        gpus, driver = parse(_run(command))
        if gpus:
            return gpus, driver
    if not (root / "dev/kfd").exists():  # a container sees the kernel's list, but not the cards it was not given
        return (), None
    return kfd_gpus(root)


def parse_amd_smi(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """amd-smi's JSON: a list with one object for each card, since ROCm 7 below ``gpu_data``."""
    found = _json_of(text)
    if isinstance(found, dict):
        found = found.get("gpu_data", [found])
    cards = [card for card in found if isinstance(card, dict)] if isinstance(found, list) else []
    gpus, drivers = [], []
    for card in cards:
        asic, vram, driver = _part(card, "asic"), _part(card, "vram"), _part(card, "driver")
        name = _told(asic, "market_name") or _told(_part(card, "board"), "product_name") or "AMD GPU"
        memory = _amd_bytes(vram.get("size", vram.get("vram_size")))
        gpus.append(Gpu(name, memory, _told(asic, "target_graphics_version")))
        drivers.append(_told(driver, "version") or _told(driver, "driver_version"))
    return tuple(gpu for gpu in gpus if gpu.memory_bytes), next(filter(None, drivers), None)


def _amd_bytes(size: object) -> int:
    """``{"value": 196592, "unit": "MB"}``, ``"196592 MB"`` or a plain number of MB."""
    if isinstance(size, dict):
        size = f"{size.get('value')} {size.get('unit', 'MB')}"
    found = re.fullmatch(r"(\d+)(?:\.\d+)?\s*([KMG]?B)?", str(size).strip(), flags=re.IGNORECASE)
    return int(found.group(1)) * UNITS[(found.group(2) or "MB").lower()] if found else 0


def _part(card: dict[str, object], key: str) -> dict[str, object]:
    part = card.get(key)
    return part if isinstance(part, dict) else {}


def _told(part: dict[str, object], *keys: str) -> str | None:
    """The first of the values that is told; AMD's tools write N/A for what they do not know."""
    for key in keys:
        value = str(part.get(key) or "").strip()
        if value and value.upper() != "N/A":
            return value
    return None


def parse_rocm_smi(text: str) -> tuple[tuple[Gpu, ...], str | None]:
    """rocm-smi's JSON: one object for each ``cardN``, and ``system`` with the driver's version."""
    found = _json_of(text)
    if not isinstance(found, dict):
        return (), None
    gpus = [
        _amd_gpu(card) for name, card in sorted(found.items()) if name.startswith("card") and isinstance(card, dict)
    ]
    return tuple(gpu for gpu in gpus if gpu.memory_bytes), _told(_part(found, "system"), "Driver version")


def _amd_gpu(card: dict[str, object]) -> Gpu:
    memory = str(card.get("VRAM Total Memory (B)", "0"))
    name = _told(card, "Card Series", "Card series", "Card Model") or "AMD GPU"
    return Gpu(name, int(memory) if memory.isdigit() else 0, _told(card, "GFX Version"))


def kfd_gpus(root: Path = Path("/")) -> tuple[tuple[Gpu, ...], str | None]:
    """The cards that the kernel's compute driver lists, and amdgpu's version where it was built with one."""
    gpus = []
    nodes = root / "sys/class/kfd/kfd/topology/nodes"
    for node in sorted(nodes.glob("[0-9]*"), key=lambda path: int(path.name) if path.name.isdigit() else 0):
        properties = parse_kfd(_read_text(node / "properties"))
        architecture = gfx_name(properties.get("gfx_target_version", ""))
        if architecture is None:  # a processor
            continue
        banks = [parse_kfd(_read_text(bank / "properties")) for bank in sorted(node.glob("mem_banks/*"))]
        memory = sum(
            int(bank.get("size_in_bytes", "0")) for bank in banks if bank.get("heap_type") in CARD_HEAPS
        ) or int(properties.get("local_mem_size", "0"))
        device = root / f"sys/class/drm/renderD{properties.get('drm_render_minor', '')}/device"
        name = _read_text(device / "product_name").strip() or f"AMD {architecture}"
        gpus.append(Gpu(name, memory, architecture))
    version = _read_text(root / "sys/module/amdgpu/version").strip()
    return tuple(gpu for gpu in gpus if gpu.memory_bytes), version or None


def parse_kfd(text: str) -> dict[str, str]:
    """``name number`` in each line; anything else is passed over."""
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def gfx_name(version: str) -> str | None:
    """``90402`` -> ``gfx942``, ``90010`` -> ``gfx90a``: two decimal digits each, of which the last two are hexadecimal
    in the name. None for a processor, which has 0."""
    if not version.isdigit() or int(version) == 0:
        return None
    number = int(version)
    return f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}"


def _json_of(text: str) -> object:
    """The JSON in a tool's output, which may say something else before and after it; None where there is none."""
    for start in re.finditer(r"^\s*[{\[]", text, flags=re.MULTILINE):
        try:
            found: object = json.JSONDecoder().raw_decode(text[start.end() - 1 :])[0]
        except ValueError:
            continue
        return found
    return None


def _run(command: list[str]) -> str:
    """The tool's output, or nothing: a machine without the tool is the common case, not a fault."""
    try:
        done = ask_tool(command)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def ask_tool(command: list[str], seconds: float = TOOL_SECONDS) -> subprocess.CompletedProcess[str]:
    """What a driver's tool says. Raises ``OSError`` where it is missing, ``TimeoutExpired`` where it does not end.

    Unlike ``subprocess.run``, this does not wait for a tool that even SIGKILL does not end, as when its driver hangs.
    """
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, errors="replace")
    try:
        out, errors = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=1)
        raise
    finally:
        for stream in (child.stdout, child.stderr):
            if stream:
                stream.close()
    return subprocess.CompletedProcess(command, child.returncode, out, errors)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
