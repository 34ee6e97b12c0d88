"""Is torch there, is it the build for this machine's GPU, is the driver new enough, and can the device be seen?

Every function takes facts and gives findings. One cause gives one fault: what lies behind it is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ltxtrain.doctor.findings import Finding, fault, ok, skipped, warning
from ltxtrain.doctor.surroundings import AMD, NVIDIA, Surroundings
from ltxtrain.doctor.torch_facts import TorchFacts
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.units import counted, format_bytes

# The oldest driver for each major version of CUDA (minor-version compatibility), and for Blackwell cards.
OLDEST_DRIVER = {12: 525, 13: 580}
BLACKWELL, BLACKWELL_DRIVER = (10, 0), 570
# A graphics processor inside of a CPU has less of its own; it is no card to train on.
CARD_BYTES = 4 * 1024**3
SHOWN = 160
DRIVER_FAULTS = {"driver-too-old", "driver-mismatch", "driver-not-running"}

NVIDIA_RUN = "docker run --gpus all ... (podman: --device nvidia.com/gpu=all); the host needs nvidia-container-toolkit"
AMD_RUN = "docker run --device /dev/kfd --device /dev/dri --group-add video --group-add {group} ..."
AMD_GROUP = '"$(getent group render | cut -d: -f3)"'


@dataclass(frozen=True)
class Seen:
    """All that the checks of the device look at. ``tiny``: the run's model is the tiny one, which needs no GPU."""

    torch: TorchFacts
    machine: Machine
    around: Surroundings
    tiny: bool = False
    image: str | None = None  # the kind of our image: cuda, rocm, cpu


def kind(torch: TorchFacts) -> str:
    """What a run would use, by what torch sees: cuda, rocm, mps or cpu."""
    if not torch.available:
        return "cpu"
    return "cuda" if torch.cuda else "rocm" if torch.hip else "mps"


def check_torch(seen: Seen) -> Finding:
    """Whether torch can be used, and whether it is the build for the cards that are here."""
    torch = seen.torch
    if torch.state != "ok":
        return _unusable(seen)
    build = f"{torch.version} for {_build_words(seen)}"
    cards = [gpu for gpu in seen.machine.gpus if gpu.memory_bytes >= CARD_BYTES]
    nvidia = seen.machine.device == "cuda" or bool(seen.around.nvidia)
    amd = seen.machine.device == "rocm" and bool(cards)
    worse = _worse(seen)
    if not torch.cuda and not torch.hip and nvidia:
        says = f"{build}, but this machine has {_cards(seen)}: the GPU would lie idle"
        return worse("torch", "torch-without-cuda", says, _other_torch(seen, "cuda"))
    if not torch.cuda and not torch.hip and amd:
        says = f"{build}, but this machine has {_cards(seen)}: the GPU would lie idle"
        return worse("torch", "torch-without-rocm", says, _other_torch(seen, "rocm"))
    # Where the kernel's list is closed to this user, /dev/kfd alone tells of a card; small ones have one as well.
    only_amd = NVIDIA not in seen.around.vendors and (amd or (seen.around.kfd and not seen.machine.gpus))
    if torch.cuda and not nvidia and only_amd and not torch.available:
        says = f"{build}, but the GPU is AMD's ({_cards(seen)})"
        return worse("torch", "cuda-torch-on-amd", says, _other_torch(seen, "rocm"))
    if torch.hip and nvidia and not seen.around.kfd and not torch.available:
        says = f"{build}, but the GPU is NVIDIA's ({_cards(seen)})"
        return worse("torch", "rocm-torch-on-nvidia", says, _other_torch(seen, "cuda"))
    return ok("torch", build)


def _unusable(seen: Seen) -> Finding:
    torch = seen.torch
    again = _other_torch(seen, seen.image or _wanted_kind(seen))
    if torch.state == "missing":
        return fault("torch", "torch-missing", "torch is not installed", again)
    if torch.state == "crashed":
        return fault("torch", "torch-crashes", f"its import: {torch.error[:SHOWN]}", f"install it again: {again}")
    if torch.state == "hung":
        fix = "a slow disk: --probe-seconds 300 waits longer; else look for a hanging driver with dmesg"
        return fault("torch", "torch-hangs", f"its import: {torch.error[:SHOWN]}", fix)
    return fault("torch", "torch-broken", f"cannot be imported: {torch.error[:SHOWN]}", f"install it again: {again}")


def _build_words(seen: Seen) -> str:
    torch = seen.torch
    if torch.cuda:
        return f"CUDA {torch.cuda}"
    if torch.hip:
        return "ROCm " + ".".join(torch.hip.split(".")[:2])
    return "Apple's GPU and the CPU" if seen.machine.device == "mps" else "the CPU"


def _wanted_kind(seen: Seen) -> str:
    kinds = {"cuda": "cuda", "rocm": "rocm", "mps": "mps"}
    return "cuda" if seen.around.nvidia else kinds.get(seen.machine.device, "cpu")


def _other_torch(seen: Seen, kind: str) -> str:
    """How to come to another build of torch: another image, or another installation."""
    if seen.image and kind != "mps":
        return f"use the {kind} image (make image-{kind})"
    return f"make setup TORCH={ {'cuda': 'cu129', 'rocm': 'rocm72'}.get(kind, kind) }"


def _cards(seen: Seen) -> str:
    if seen.machine.gpus:
        return ", ".join(gpu.name for gpu in seen.machine.gpus[:4])
    if seen.around.nvidia:
        return counted(len(seen.around.nvidia), "NVIDIA device")
    return "one that the driver tells nothing of"


def _worse(seen: Seen) -> Callable[[str, str, str, str], Finding]:
    """What keeps a run off the GPU is a fault, but the tiny model runs on the CPU as well."""
    return warning if seen.tiny else fault


def check_driver(seen: Seen) -> Finding:
    """NVIDIA's driver against the CUDA that torch was built for."""
    torch, around = seen.torch, seen.around
    if check_torch(seen).state != "ok":
        return skipped("driver", "torch-at-fault", "not known while torch is at fault")
    if not (torch.cuda or torch.hip):
        return skipped("driver", "no-gpu-build", "this torch uses none")
    if torch.hip:
        version = seen.machine.driver if seen.machine.device == "rocm" else None
        return ok("driver", f"amdgpu {version}" if version else "amdgpu, as the kernel brings it")
    version = seen.machine.driver or around.kernel_driver
    if not version:
        return skipped("driver", "driver-unknown", "nothing here tells its version")
    major = int(re.split(r"\D", version)[0] or 0)
    needed = OLDEST_DRIVER.get(int(torch.cuda.split(".")[0]) if torch.cuda else 0, 0)
    why = f"CUDA {torch.cuda}"
    newest = max(
        ((gpu.name, found) for gpu in seen.machine.gpus if (found := _capability(gpu))),
        default=None,
        key=lambda pair: pair[1],
    )
    if newest and newest[1] >= BLACKWELL and needed < BLACKWELL_DRIVER:
        needed, why = BLACKWELL_DRIVER, newest[0]
    if major >= needed:
        return ok("driver", f"{version}; {why} needs {needed} or newer")
    if torch.available:
        return ok(
            "driver", f"{version}; older than the {needed} that {why} needs, but it works (forward compatibility)"
        )
    fix = f"update the host's driver to {needed} or newer"
    if needed == OLDEST_DRIVER[13] and major >= OLDEST_DRIVER[12]:
        fix += f", or take CUDA 12.9: {_other_torch(seen, 'cuda')}"
    return _worse(seen)("driver", "driver-too-old", f"{version} is older than {needed}, which {why} needs", fix)


def _capability(gpu: Gpu) -> tuple[int, int] | None:
    found = re.fullmatch(r"(\d+)\.(\d+)", gpu.capability or "")
    return (int(found.group(1)), int(found.group(2))) if found else None


def check_nvidia_smi(seen: Seen) -> Finding:
    """The driver's own tool: without it neither the plan nor this doctor can tell what the card is."""
    around, machine = seen.around, seen.machine
    usable = bool(seen.torch.available and seen.torch.cuda)
    if not around.nvidia and not usable:  # WSL has no file for the card
        return skipped("nvidia-smi", "no-nvidia-device", "there is no NVIDIA device here")
    if around.nvidia_smi == "ok":
        return ok("nvidia-smi", counted(len(machine.gpus) if machine.device == "cuda" else 0, "GPU"))
    if around.nvidia_smi != "missing":
        worse = warning if usable else _worse(seen)
        if "version mismatch" in around.nvidia_smi:
            fix = "restart the machine (the driver was updated while the old one runs), and then the container"
            return worse("nvidia-smi", "driver-mismatch", around.nvidia_smi[:SHOWN], fix)
        fix = "look at `dmesg | grep -i nvrm` on the host; restart the machine, or install its driver again"
        return worse("nvidia-smi", "driver-not-running", around.nvidia_smi[:SHOWN], fix)
    says = "is missing beside an NVIDIA device: the plan cannot tell the GPU's memory"
    capabilities = around.variables.get("NVIDIA_DRIVER_CAPABILITIES")
    if around.container and not _has_capability(capabilities, "utility"):
        says += f" (NVIDIA_DRIVER_CAPABILITIES is {capabilities or 'not set'})"
        return warning("nvidia-smi", "utility-missing", says, "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    fix = "add /usr/lib/wsl/lib to PATH" if around.wsl else "install the driver's utilities on this machine"
    return warning("nvidia-smi", "nvidia-smi-missing", says, fix)


def _has_capability(capabilities: str | None, name: str) -> bool:
    """Not set means the runtime's own default, which is utility and compute."""
    words = {word.strip() for word in (capabilities or "utility,compute").split(",")}
    return bool(words & {name, "all"})


def check_device(seen: Seen) -> Finding:
    """Whether torch sees a device; if not, why not."""
    torch = seen.torch
    if check_torch(seen).state != "ok":
        return skipped("device", "torch-at-fault", "not known while torch is at fault")
    if torch.available:
        return _hidden_devices(seen) or ok("device", _devices(seen))
    if torch.cuda:
        return _no_cuda(seen)
    if torch.hip:
        return _no_rocm(seen)
    return _no_gpu(seen)


def _devices(seen: Seen) -> str:
    words = []
    for device in seen.torch.devices:
        inside = [part for part in (device.capability, device.total and format_bytes(device.total)) if part]
        words.append(f"{device.name} ({', '.join(map(str, inside))})" if inside else device.name)
    return ", ".join(words)


def _no_gpu(seen: Seen) -> Finding:
    if seen.tiny:
        return ok("device", "the CPU, which is enough for the tiny model")
    says = "no GPU is found: this model would train on the CPU for weeks"
    return warning("device", "no-gpu", says, "use a machine with a GPU; --preset smoke is for the CPU")


def _no_cuda(seen: Seen) -> Finding:
    around, error, worse = seen.around, seen.torch.error, _worse(seen)
    if around.wsl and not around.nvidia and around.nvidia_smi == "missing":
        return _no_gpu(seen)  # Windows' driver brings nvidia-smi along
    # A container that was given no card may have the driver's own file.
    if not around.nvidia and not around.wsl and (around.container or not around.nvidia_control):
        return _not_given(seen, NVIDIA, around.container, NVIDIA_RUN)
    if {check_driver(seen).code, check_nvidia_smi(seen).code} & DRIVER_FAULTS:
        return skipped("device", "driver-at-fault", "not known while the driver is at fault")
    blind = [file.path for file in around.nvidia if not file.usable]
    if blind:
        fix = "start with --gpus all and not with --device, or let this user read and write it"
        return worse("device", "device-denied", f"{blind[0]} may not be opened by this user", fix)
    hidden = _hidden_devices(seen)
    if hidden:
        return hidden
    if around.container and not _has_capability(around.variables.get("NVIDIA_DRIVER_CAPABILITIES"), "compute"):
        says = f"NVIDIA_DRIVER_CAPABILITIES is {around.variables['NVIDIA_DRIVER_CAPABILITIES']}: libcuda is not given"
        return worse("device", "compute-missing", says, "-e NVIDIA_DRIVER_CAPABILITIES=compute,utility")
    for number, code, fix in _CUDA_ERRORS:
        if re.search(rf"\b{number}\b", error):
            return worse("device", code, error[:SHOWN], fix)
    fix = "run nvidia-smi on the host; if it works there, restart the container, then the machine"
    return worse("device", "cuda-fails", (error or "torch sees no device, and does not say why")[:SHOWN], fix)


# CUDA's own numbers: system not ready, display driver mismatch, compat not supported on device.
_CUDA_ERRORS = (
    (802, "fabric-manager", "start nvidia-fabricmanager on the host: systemctl start nvidia-fabricmanager"),
    (
        803,
        "libcuda-mismatch",
        "restart the host after its driver's update; take folders with another libcuda out of LD_LIBRARY_PATH",
    ),
    (
        804,
        "forward-compatibility",
        "take .../cuda/compat out of LD_LIBRARY_PATH (it works on data centre cards only), or update the driver",
    ),
)


def _not_given(seen: Seen, vendor: str, container: bool, run: str) -> Finding:
    """No device file: the container was not given the card, its driver is not loaded, or there is no card."""
    worse, whose = _worse(seen), "NVIDIA" if vendor == NVIDIA else "AMD"
    there = vendor in seen.around.vendors
    if container:
        says = f"this container was given no {whose} GPU" + (", but the machine has one" if there else "")
        return worse("device", "gpu-not-given", says, run)
    if there:
        fix = {
            NVIDIA: "install NVIDIA's driver, load it (modprobe nvidia), and see that nvidia-smi works",
            AMD: "install the amdgpu driver, load it (modprobe amdgpu), and see that /dev/kfd is there",
        }[vendor]
        return worse("device", "driver-missing", f"there is an {whose} card, but its driver is not loaded", fix)
    return _no_gpu(seen)


def _no_rocm(seen: Seen) -> Finding:
    around, error, worse = seen.around, seen.torch.error, _worse(seen)
    if around.kfd is None:
        return _not_given(seen, AMD, around.container, AMD_RUN.format(group=AMD_GROUP))
    for file in (around.kfd, *around.render):
        if not file.usable:
            says = f"{file.path} belongs to group {file.group}, and this user may not read and write it"
            fix = f"docker run --group-add {file.group} ..., and keep that group (--keep-groups)"
            if not around.container:
                fix = f'sudo usermod -aG "$(getent group {file.group} | cut -d: -f1)" "$USER", then log in again'
            return worse("device", "device-denied", says, fix)
    if not around.render:
        fix = AMD_RUN.format(group=around.kfd.group) if around.container else "look at `dmesg | grep amdgpu`"
        return worse("device", "render-node-missing", "/dev/kfd is there, but no /dev/dri/renderD*", fix)
    hidden = _hidden_devices(seen)
    if hidden:
        return hidden
    fix = "see that rocminfo works on the host; its driver may be too old for this ROCm"
    return worse("device", "rocm-fails", (error or "torch sees no device, and does not say why")[:SHOWN], fix)


def _hidden_devices(seen: Seen) -> Finding | None:
    """A variable that hides devices: empty, or with numbers that this machine does not have."""
    names = ["CUDA_VISIBLE_DEVICES"]
    if seen.torch.hip:
        names = ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"]
    count = len(seen.machine.gpus) or len(seen.around.nvidia)
    for name in names:
        value = seen.around.variables.get(name)
        if value is None:
            continue
        entries = [entry.strip() for entry in value.split(",")]
        if seen.torch.available and len(seen.torch.devices) >= len(entries):
            continue  # all of them were found: a card in parts counts more than one
        if not seen.torch.available and (entries[0] in ("", "NoDevFiles") or entries[0].startswith("-")):
            says = f"{name} is {value!r}: it hides every GPU"
            return _worse(seen)("device", "devices-hidden", says, f"unset {name}")
        beyond = [entry for entry in entries if entry.isdigit() and int(entry) >= count > 0]
        if beyond:
            says = f"{name} is {value}, but this machine has {counted(count, 'GPU')}, and they count from 0"
            worse = warning if seen.torch.available else _worse(seen)
            return worse("device", "devices-beyond", says, f"unset {name}, or name a GPU from 0 to {count - 1}")
    return None
