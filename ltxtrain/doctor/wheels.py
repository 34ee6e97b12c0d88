"""Does the build of torch fit the device: its architecture, number formats, memory, and what compiles kernels."""

from __future__ import annotations

import os
import re
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.doctor.torch_facts import TorchDevice, TorchFacts
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.units import format_bytes

# Builds of torch, by the oldest and newest NVIDIA capability that they hold code for.
OLDEST_OF_NEW_BUILDS = (7, 5)
BLACKWELL = (10, 0)
IN_USE_SHARE, IN_USE_BYTES = 0.15, 2 * 1024**3
COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Wants:
    """What the configured run would ask of the device. ``bf16_flags`` are the flags that would stop asking for bf16.

    ``gpu_bytes`` and ``host_bytes`` are the plan's estimate for the smallest clips: at least so much. 0: not known.
    """

    bf16_flags: tuple[str, ...] = ()
    fp8: bool = False
    compiler: bool = False
    gpu_bytes: int = 0
    host_bytes: int = 0


def check_architecture(torch: TorchFacts, gpus: Sequence[Gpu]) -> Finding:
    """The capability of the device that a run takes against the list that torch was compiled for.

    That is the first one; where torch sees none, any of the driver's may be. A second card for the screen may be old.
    """
    devices = [(device.name, device.capability) for device in torch.devices] or [(g.name, g.capability) for g in gpus]
    known = [(name, capability) for name, capability in devices if capability]
    if not torch.archs or not known:
        return skipped("architecture", "no-gpu-build", "this torch was built for no GPU, or there is none")
    fitting = [index for index, (_, capability) in enumerate(known) if holds(torch.archs, capability)]
    if fitting and (fitting[0] == 0 or not torch.devices):
        return ok("architecture", _arch_words(known[fitting[0]][1]))
    name, capability = known[0]
    says = f"{name} is {_arch_words(capability)}; torch {torch.version} holds {', '.join(torch.archs)}"
    fix = _build_for(capability)
    if fitting:
        variable = "HIP_VISIBLE_DEVICES" if torch.hip else "CUDA_VISIBLE_DEVICES"
        fix = f"set {variable}={fitting[0]} to take {known[fitting[0]][0]}; or {fix}"
    return fault("architecture", "architecture-not-in-torch", says, fix)


def holds(archs: Sequence[str], capability: str) -> bool:
    """NVIDIA: code for the same major and no newer minor version, or PTX of the same age or older, runs. AMD: the same.

    ``sm_90a`` runs on 9.0 alone, ``sm_100f`` on its family.
    """
    found = re.fullmatch(r"(\d+)\.(\d+)", capability)
    if not found:
        return capability.split(":")[0] in {arch.split(":")[0] for arch in archs}
    device = (int(found.group(1)), int(found.group(2)))
    for arch in archs:
        parsed = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", arch)
        if not parsed:
            continue
        version = (int(parsed.group(2)), int(parsed.group(3)))
        if parsed.group(4) == "a":
            fits = device == version
        elif parsed.group(1) == "compute" and not parsed.group(4):
            fits = device >= version
        else:
            fits = device[0] == version[0] and device >= version
        if fits:
            return True
    return False


def _arch_words(capability: str) -> str:
    return f"sm_{capability.replace('.', '')}" if re.fullmatch(r"\d+\.\d+", capability) else capability


def _build_for(capability: str) -> str:
    found = re.fullmatch(r"(\d+)\.(\d+)", capability)
    if not found:
        return "take a build of torch that names this architecture; AMD lists those that ROCm supports"
    device = (int(found.group(1)), int(found.group(2)))
    if device >= BLACKWELL:
        return "take torch for CUDA 12.9 or 13.0: make setup TORCH=cu129, or make image-cuda"
    if device < OLDEST_OF_NEW_BUILDS:
        return (
            "take torch for CUDA 12.6, the last for such cards: make setup TORCH=cu126, or make image-cuda TORCH=cu126"
        )
    return "take torch for CUDA 12.9: make setup TORCH=cu129, or make image-cuda"


def check_computing(torch: TorchFacts) -> Finding:
    """Whether a small product comes out right on the device that a run takes."""
    if not torch.devices:
        return skipped("computing", "no-device", "there is no device to try")
    device = torch.devices[0]
    if device.error:
        fix = "look at dmesg on the host; another process may hold the card, or the build does not fit it"
        return fault("computing", "device-cannot-compute", f"{device.name}: {device.error}"[:200], fix)
    return ok("computing", "a small product comes out right")


def check_bf16(torch: TorchFacts, wants: Wants) -> Finding:
    if not torch.devices:
        return skipped("bf16", "no-device", "there is no device to ask")
    device = torch.devices[0]
    if device.bf16 is not False:
        return ok("bf16", "yes")
    if not wants.bf16_flags:
        return ok("bf16", f"{device.name} has none; this run asks for none")
    if torch.macos:
        says, fix = f"macOS {torch.macos} has none", f"update to macOS 14, or give {' '.join(wants.bf16_flags)}"
    else:
        says, fix = f"{device.name} has none, and this run asks for it", f"give {' '.join(wants.bf16_flags)}"
    return fault("bf16", "no-bf16", says, fix)


def check_fp8(torch: TorchFacts, wants: Wants) -> Finding:
    """A note alone, unless it is asked for."""
    if not torch.devices:
        return skipped("fp8", "no-device", "there is no device to ask")
    if torch.devices[0].fp8:
        return ok("fp8", "yes")
    if wants.fp8:
        says = f"{torch.devices[0].name} has none, and this run asks for it"
        return warning("fp8", "no-fp8", says, "give --mixed-precision bf16 and --base-model-precision no_change")
    return ok("fp8", "no; nothing asks for it")


def check_compiler(compiler: str | None, header: bool, needed: bool) -> Finding:
    """Triton and torch.compile build a small C file at first use. Most machines have no headers, and need none."""
    if not needed:
        found = "nothing is compiled in this run"
        return (
            ok("compiler", f"{Path(compiler).name}; {found}") if compiler else skipped("compiler", "not-needed", found)
        )
    says = "torch.compile and Triton need it"
    if compiler is None:
        return fault("compiler", "no-compiler", f"no C compiler is found: {says}", "apt-get install gcc libc6-dev")
    if not header:
        fix = "apt-get install python3-dev (for this Python's own version)"
        return fault("compiler", "no-python-header", f"{Path(compiler).name}, but Python.h is missing: {says}", fix)
    return ok("compiler", f"{Path(compiler).name} and Python.h")


def find_compiler(env: Mapping[str, str]) -> str | None:
    """What Triton would take: CC, else the first compiler on the path."""
    named = env.get("CC", "").split()
    if named:
        return shutil.which(named[0])
    return next((found for name in COMPILERS if (found := shutil.which(name, path=env.get("PATH", os.defpath)))), None)


def has_python_header() -> bool:
    return (Path(sysconfig.get_path("include")) / "Python.h").is_file()


def check_gpu_memory(torch: TorchFacts, machine: Machine, wants: Wants) -> list[Finding]:
    """The first device, which a run takes: enough in total, and not taken by others."""
    if machine.device == "mps":
        return [skipped("GPU memory", "shared-memory-of-host", "Apple's GPU shares the main memory")]
    total = torch.devices[0].total if torch.devices else None
    if total is None:
        return [skipped("GPU memory", "no-device", "there is no device to ask")]
    device, need = torch.devices[0], wants.gpu_bytes
    free = device.free if device.free is not None else total
    least = f"; this run needs {format_bytes(need)} at least, by the plan's estimate" if need else ""
    if total < need:
        says = f"{format_bytes(total)}{least}"
        fix = "take a GPU with more memory; `ltxtrain plan` shows which phase needs the most"
        return [warning("GPU memory", "gpu-memory-small", says, fix)]
    used = total - free
    if free < need or used > max(IN_USE_BYTES, IN_USE_SHARE * total):
        says = f"{format_bytes(free)} free of {format_bytes(total)}{least}: others hold {format_bytes(used)}"
        return [warning("GPU memory", "gpu-memory-in-use", says, _who(device))]
    return [ok("GPU memory", f"{format_bytes(free)} free of {format_bytes(total)}{least}")]


def _who(device: TorchDevice) -> str:
    amd = (device.capability or "").startswith("gfx")
    return f"end what holds it: `{'amd-smi process' if amd else 'nvidia-smi'}` on the host shows the processes"


def check_main_memory(limit: int, physical: int, need: int) -> Finding:
    bound = f" (a limit; the machine has {format_bytes(physical)})" if limit < physical else ""
    if limit < need:
        says = f"{format_bytes(limit)}{bound}; this run needs {format_bytes(need)} at least, by the plan's estimate"
        fix = "raise the container's limit (docker run --memory)" if bound else "take a machine with more memory"
        return warning("main memory", "main-memory-small", says, fix)
    return ok("main memory", f"{format_bytes(limit)}{bound}")


def check_cores(cores: int) -> Finding:
    return ok("cores", str(cores))


def check_mps_limits(torch: TorchFacts, variables: Mapping[str, str]) -> list[Finding]:
    """Apple's two limits belong together: the lower one has to stay below the higher one. 0 means none."""
    if not torch.macos:
        return []
    high, low = (
        _number(variables.get(f"PYTORCH_MPS_{name}_WATERMARK_RATIO"), preset)
        for name, preset in (("HIGH", 1.7), ("LOW", 1.4))
    )
    if high is None or low is None or (high and low > high):
        says = "PYTORCH_MPS_LOW_WATERMARK_RATIO is above PYTORCH_MPS_HIGH_WATERMARK_RATIO, or one is no number"
        fix = "set both, such as HIGH 0.9 and LOW 0.7, or neither"
        return [fault("MPS limits", "mps-watermarks", says, fix)]
    return [ok("MPS limits", f"high {high:g}, low {low:g}")]


def _number(text: str | None, preset: float) -> float | None:
    try:
        return preset if text is None else float(text)
    except ValueError:
        return None
