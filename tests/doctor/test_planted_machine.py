"""Faults of the machine, planted one at a time: the real command tells each by its name, and no other beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.world import CU126, CU130, GIB, MI300X, RTX_4090, RTX_5090, World

OLD_DRIVER = (
    "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver by downloading"
)
DEVICE_COUNT = "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before? Error "
T4 = {"name": "Tesla T4", "capability": [7, 5], "total": 16 * GIB, "free": 15 * GIB, "bf16": False}
GTX_1080 = {"name": "NVIDIA GeForce GTX 1080", "capability": [6, 1], "total": 8 * GIB, "free": 8 * GIB, "bf16": True}


def torch_missing(world: World) -> None:
    world.nvidia()
    world.without("torch")


def torch_crashes(world: World) -> None:
    world.nvidia(at_import="os.kill(os.getpid(), signal.SIGSEGV)")


def torch_hangs(world: World) -> None:
    world.nvidia(at_import="time.sleep(60)")
    world.words = ["--probe-seconds", "1"]


def torch_broken(world: World) -> None:
    words = "libcudnn.so.9: cannot open shared object file: No such file or directory"
    world.nvidia(at_import=f"raise ImportError({words!r})")
    world.package("accelerate", "import torch")  # cannot be imported either, and is not to blame


def torch_prints_garbage_and_leaves(world: World) -> None:
    world.nvidia(at_import="os.write(1, b'{\\xff garbage\\n'); os._exit(3)")


def torch_without_cuda(world: World) -> None:
    world.nvidia()
    world.torch()


def torch_without_rocm(world: World) -> None:
    world.amd()
    world.torch()


def cuda_torch_on_amd(world: World) -> None:
    world.amd()
    world.cuda_torch(error="Found no NVIDIA driver on your system.", devices=[])


def rocm_torch_on_nvidia(world: World) -> None:
    world.nvidia()
    world.rocm_torch(error="No HIP GPUs are available", devices=[])


def driver_before_cuda_13(world: World) -> None:
    world.nvidia(version="2.13.0+cu130", cuda="13.0", archs=CU130, error=OLD_DRIVER, devices=[])
    world.nvidia_smi(driver="535.129.03")


def driver_before_cuda_12(world: World) -> None:
    world.nvidia(error=OLD_DRIVER, devices=[])
    world.nvidia_smi(driver="470.256.02")


def driver_before_blackwell(world: World) -> None:
    world.nvidia(error="No CUDA GPUs are available", devices=[])
    world.nvidia_smi("NVIDIA GeForce RTX 5090, 32607, 12.0", driver="550.54.15")


def driver_known_to_the_kernel_alone(world: World) -> None:
    world.nvidia(error=OLD_DRIVER, devices=[])
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.256.02  Thu May  2 14:37:44 UTC 2024\n"
    world.file("proc/driver/nvidia/version", line)
    world.tool("nvidia-smi", '[ "$1" = -L ] && exit 0; exit 9')


def driver_mismatch(world: World) -> None:
    world.nvidia(error=DEVICE_COUNT + "803: system has unsupported display driver / cuda driver combination")
    world.tool("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")


def driver_not_running(world: World) -> None:
    world.nvidia(error="Found no NVIDIA driver on your system.", devices=[])
    line = "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."
    world.tool("nvidia-smi", f"echo '{line}'; exit 9")


def utility_missing(world: World) -> None:
    world.nvidia()
    world.container()
    world.env["NVIDIA_DRIVER_CAPABILITIES"] = "compute"
    (world.bin / "nvidia-smi").unlink()


def nvidia_smi_missing(world: World) -> None:
    world.nvidia()
    (world.bin / "nvidia-smi").unlink()


def gpu_not_given(world: World) -> None:
    world.container()
    world.cuda_torch(error="Found no NVIDIA driver on your system.", devices=[])


def amd_gpu_not_given(world: World) -> None:
    world.container()
    world.bus("0x1002", "0x120000")
    world.rocm_torch(error="No HIP GPUs are available", devices=[])


def driver_missing(world: World) -> None:
    world.bus("0x10de", "0x030000")
    world.cuda_torch(error="Found no NVIDIA driver on your system.", devices=[])


def no_gpu(world: World) -> None:
    world.cuda_torch(error="Found no NVIDIA driver on your system.", devices=[])


def devices_hidden(world: World) -> None:
    world.nvidia(error="No CUDA GPUs are available", devices=[])
    world.env["CUDA_VISIBLE_DEVICES"] = ""


def devices_beyond(world: World) -> None:
    world.nvidia(error="No CUDA GPUs are available", devices=[])
    world.env["CUDA_VISIBLE_DEVICES"] = "3"


def some_devices_beyond(world: World) -> None:
    world.nvidia()
    world.env["CUDA_VISIBLE_DEVICES"] = "0,1"


def amd_devices_hidden(world: World) -> None:
    world.amd(error="No HIP GPUs are available", devices=[])
    world.env["HIP_VISIBLE_DEVICES"] = "-1"


def compute_missing(world: World) -> None:
    world.nvidia(error="Found no NVIDIA driver on your system.", devices=[])
    world.container()
    world.env["NVIDIA_DRIVER_CAPABILITIES"] = "utility"


def fabric_manager(world: World) -> None:
    world.nvidia(error=DEVICE_COUNT + "802: system not yet initialized", devices=[])


def libcuda_mismatch(world: World) -> None:
    words = "803: system has unsupported display driver / cuda driver combination"
    world.nvidia(error=DEVICE_COUNT + words, devices=[])


def forward_compatibility(world: World) -> None:
    world.nvidia(error=DEVICE_COUNT + "804: forward compatibility was attempted on non supported HW", devices=[])


def cuda_fails(world: World) -> None:
    world.nvidia(error="CUDA unknown error - this may be due to an incorrectly set up environment", devices=[])


def rocm_fails(world: World) -> None:
    world.amd(error="HIP error: invalid device function", devices=[])


def kfd_denied(world: World) -> None:
    world.amd(error="No HIP GPUs are available", devices=[])
    (world.root / "dev/kfd").chmod(0)
    world.obey_modes()


def render_node_missing(world: World) -> None:
    world.amd(error="No HIP GPUs are available", devices=[])
    (world.root / "dev/dri/renderD128").unlink()


def blackwell_with_cuda_126(world: World) -> None:
    kernel = "raise RuntimeError('CUDA error: no kernel image is available for execution on the device')"
    world.nvidia(version="2.13.0+cu126", cuda="12.6", archs=CU126, devices=[RTX_5090], at_computing=kernel)
    world.nvidia_smi("NVIDIA GeForce RTX 5090, 32607, 12.0")


def pascal_with_cuda_130(world: World) -> None:
    world.nvidia(
        version="2.13.0+cu130", cuda="13.0", archs=CU130, devices=[GTX_1080 | {"total": 24 * GIB, "free": 24 * GIB}]
    )
    world.nvidia_smi("NVIDIA GeForce GTX 1080, 24564, 6.1", driver="580.65.06")


def amd_card_that_the_build_lacks(world: World) -> None:
    world.amd(devices=[MI300X | {"name": "AMD Radeon Pro VII", "gcn": "gfx906:sramecc+:xnack-"}])


def device_that_fails(world: World) -> None:
    world.nvidia(at_computing="raise RuntimeError('CUDA error: uncorrectable ECC error encountered')")


def device_that_crashes(world: World) -> None:
    world.nvidia(at_computing="os.abort()")


def no_bf16(world: World) -> None:
    world.nvidia(devices=[T4])
    world.nvidia_smi("Tesla T4, 15360, 7.5")


def gpu_memory_small(world: World) -> None:
    world.nvidia(devices=[RTX_4090 | {"total": 4 * GIB, "free": 4 * GIB}])
    world.nvidia_smi("NVIDIA GeForce RTX 3050, 4096, 8.6")


def gpu_memory_in_use(world: World) -> None:
    world.nvidia(devices=[RTX_4090 | {"free": 3 * GIB}])


def main_memory_small(world: World) -> None:
    world.nvidia()
    world.file("sys/fs/cgroup/memory.max", f"{2 * GIB}\n")


def budget_too_small(world: World) -> None:
    world.nvidia()
    world.env["LTXTRAIN_MEMORY_BUDGET_GB"] = "1"


def package_missing(world: World) -> None:
    world.nvidia()
    world.without("av")


def package_broken(world: World) -> None:
    world.nvidia()
    world.package("av", "raise ImportError('libavformat.so.62: cannot open shared object file')")


def package_that_crashes(world: World) -> None:
    world.nvidia()
    world.package("sentencepiece", "import os; os.abort()")


def package_old(world: World) -> None:
    world.nvidia()
    world.package("../packages/av-13.0.0.dist-info", "")
    (world.packages / "av-13.0.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: av\nVersion: 13.0.0\n"
    )


def with_clips(world: World) -> None:
    """An image without clips is a fault of its own."""
    world.env["LTX_DATA_DIR"] = str(world.file("data/a.mp4").parent)
    world.file("data/a.txt", "a caption")


def image_changed(world: World) -> None:
    world.nvidia()
    with_clips(world)
    facts = {"kind": "cuda", "version": "0.1.0", "revision": "0" * 40, "torch": "2.13.0+cu130"}
    world.env["LTX_IMAGE"] = str(world.file("opt/ltxtrain/image.json", json.dumps(facts)))


def image_unknown(world: World) -> None:
    world.nvidia()
    with_clips(world)
    world.env["LTX_IMAGE"] = str(world.root / "opt/nothing.json")


# What is planted, what must be told, and the exit code.
PLANTED: tuple[tuple[Callable[[World], None], str, str, int], ...] = (
    (torch_missing, "torch", "torch-missing", 4),
    (torch_crashes, "torch", "torch-crashes", 4),
    (torch_hangs, "torch", "torch-hangs", 4),
    (torch_broken, "torch", "torch-broken", 4),
    (torch_prints_garbage_and_leaves, "torch", "torch-broken", 4),
    (torch_without_cuda, "torch", "torch-without-cuda", 4),
    (torch_without_rocm, "torch", "torch-without-rocm", 4),
    (cuda_torch_on_amd, "torch", "cuda-torch-on-amd", 4),
    (rocm_torch_on_nvidia, "torch", "rocm-torch-on-nvidia", 4),
    (driver_before_cuda_13, "driver", "driver-too-old", 4),
    (driver_before_cuda_12, "driver", "driver-too-old", 4),
    (driver_before_blackwell, "driver", "driver-too-old", 4),
    (driver_known_to_the_kernel_alone, "driver", "driver-too-old", 4),
    (driver_mismatch, "nvidia-smi", "driver-mismatch", 4),
    (driver_not_running, "nvidia-smi", "driver-not-running", 4),
    (utility_missing, "nvidia-smi", "utility-missing", 0),
    (nvidia_smi_missing, "nvidia-smi", "nvidia-smi-missing", 0),
    (gpu_not_given, "device", "gpu-not-given", 4),
    (amd_gpu_not_given, "device", "gpu-not-given", 4),
    (driver_missing, "device", "driver-missing", 4),
    (no_gpu, "device", "no-gpu", 0),
    (devices_hidden, "device", "devices-hidden", 4),
    (devices_beyond, "device", "devices-beyond", 4),
    (some_devices_beyond, "device", "devices-beyond", 0),
    (amd_devices_hidden, "device", "devices-hidden", 4),
    (compute_missing, "device", "compute-missing", 4),
    (fabric_manager, "device", "fabric-manager", 4),
    (libcuda_mismatch, "device", "libcuda-mismatch", 4),
    (forward_compatibility, "device", "forward-compatibility", 4),
    (cuda_fails, "device", "cuda-fails", 4),
    (rocm_fails, "device", "rocm-fails", 4),
    (kfd_denied, "device", "device-denied", 4),
    (render_node_missing, "device", "render-node-missing", 4),
    (blackwell_with_cuda_126, "architecture", "architecture-not-in-torch", 4),
    (pascal_with_cuda_130, "architecture", "architecture-not-in-torch", 4),
    (amd_card_that_the_build_lacks, "architecture", "architecture-not-in-torch", 4),
    (device_that_fails, "computing", "device-cannot-compute", 4),
    (device_that_crashes, "computing", "device-cannot-compute", 4),
    (no_bf16, "bf16", "no-bf16", 4),
    (gpu_memory_small, "GPU memory", "gpu-memory-small", 0),
    (gpu_memory_in_use, "GPU memory", "gpu-memory-in-use", 0),
    (main_memory_small, "main memory", "main-memory-small", 0),
    (budget_too_small, "memory budget", "budget-too-small", 4),
    (package_missing, "packages", "package-missing", 4),
    (package_broken, "packages", "package-broken", 4),
    (package_that_crashes, "packages", "package-broken", 4),
    (package_old, "packages", "package-old", 0),
    (image_changed, "image", "image-changed", 0),
    (image_unknown, "image", "image-unknown", 0),
)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """What the same machine without a planted fault is told: the folders' mounts, say."""
    world = World(tmp_path_factory.mktemp("healthy"))
    world.nvidia()
    answer = world.examine("--preset", "bf16")
    told = {check for check, _ in answer.bad}
    ours = {finding["check"] for finding in answer.found["findings"] if finding["group"] in ("System", "Device")}
    assert answer.exit_code == 0 and not told & ours, answer.bad
    return answer.bad


@pytest.mark.parametrize(("plant", "check", "code", "exit_code"), PLANTED, ids=[entry[0].__name__ for entry in PLANTED])
def test_planted_fault_is_told_and_no_other(
    tmp_path: Path,
    healthy: set[tuple[str, str]],
    plant: Callable[[World], None],
    check: str,
    code: str,
    exit_code: int,
) -> None:
    world = World(tmp_path)
    plant(world)
    answer = world.examine("--preset", "bf16")
    assert answer.bad - healthy == {(check, code)}
    assert answer.exit_code == exit_code
    assert answer.finding(code)["fix"]


def test_healthy_amd_machine_is_told_nothing(world: World, healthy: set[tuple[str, str]]) -> None:
    world.amd()
    answer = world.examine("--preset", "bf16")
    assert (answer.exit_code, answer.bad - healthy) == (0, set())
    assert answer.found["machine"]["gpus"] == [
        {"name": "AMD Instinct MI300X", "memory_bytes": 196592 * 1024**2, "capability": "gfx942"}
    ]


def test_datacentre_card_with_forward_compatibility_is_no_fault(world: World, healthy: set[tuple[str, str]]) -> None:
    world.nvidia(version="2.13.0+cu130", cuda="13.0", archs=CU130)
    world.nvidia_smi(driver="550.54.15")
    answer = world.examine("--preset", "bf16")
    assert answer.bad - healthy == set()


def test_tiny_model_needs_no_gpu(world: World, healthy: set[tuple[str, str]]) -> None:
    answer = world.examine("--preset", "smoke")
    assert (answer.exit_code, answer.bad - healthy) == (0, set())


def test_group_of_the_device_is_named_to_the_last_digit(world: World) -> None:
    kfd_denied(world)
    world.container()
    group = (world.root / "dev/kfd").stat().st_gid
    assert f"--group-add {group} " in world.examine("--preset", "bf16").finding("device-denied")["fix"]
