"""The rules themselves, on machines that no test can be: old systems, Apple's computers, every kind of card."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig, load_config
from ltxtrain.doctor import wheels
from ltxtrain.doctor.device import Seen, check_device, check_driver, check_nvidia_smi, check_torch
from ltxtrain.doctor.findings import Finding
from ltxtrain.doctor.needs import in_budget, wants_of
from ltxtrain.doctor.software import PACKAGES, check_python, check_system
from ltxtrain.doctor.surroundings import NVIDIA, DeviceFile, Surroundings, parse_kernel_driver
from ltxtrain.doctor.torch_facts import TorchDevice, TorchFacts
from ltxtrain.facts.machine import Gpu, Machine

GIB = 1024**3
GLIBC = ("glibc", "2.36")
APPLE = TorchDevice("Apple GPU", None, 16 * GIB, None, bf16=True, fp8=False)
ADA = TorchDevice("NVIDIA L4", "8.9", 24 * GIB, 23 * GIB, bf16=True, fp8=True)
AMPERE = TorchDevice("NVIDIA A10", "8.6", 24 * GIB, 23 * GIB, bf16=True, fp8=False)
ON_MAC = TorchFacts("ok", "2.13.0", available=True, devices=(APPLE,), macos="15.1")
WANTS = wheels.Wants(bf16_flags=("--mixed-precision no", "--vae-dtype fp32"), fp8=True, compiler=True)
CPU = Machine("Linux 6.1", "a CPU", 8, 32 * GIB, "cpu")


def torch_on(device: TorchDevice) -> TorchFacts:
    return TorchFacts("ok", "2.13.0+cu129", cuda="12.9", available=True, devices=(device,))


PLANTED: tuple[tuple[str, Callable[[], Finding], str, str], ...] = (
    ("Windows", lambda: check_system("Windows", "AMD64", ("", ""), "11"), "windows", "WSL 2"),
    ("Intel Mac", lambda: check_system("Darwin", "x86_64", ("", ""), "23.1"), "intel-mac", "M-series"),
    (
        "Rosetta",
        lambda: check_system("Darwin", "x86_64", ("", ""), "23.1", "Apple M3"),
        "python-for-intel",
        "a Python for arm64",
    ),
    ("RISC-V", lambda: check_system("Linux", "riscv64", GLIBC, "6.1"), "processor-unknown", "ARM"),
    ("Alpine", lambda: check_system("Linux", "x86_64", ("", ""), "6.1"), "no-glibc", "Debian"),
    ("old CentOS", lambda: check_system("Linux", "x86_64", ("glibc", "2.17"), "3.10"), "glibc-old", "Ubuntu 20.04"),
    ("Python 3.10", lambda: check_python((3, 10, 12)), "python-unsupported", "PYTHON=python3.12"),
    ("Python 3.14", lambda: check_python((3, 14, 0)), "python-unsupported", "PYTHON=python3.12"),
    (
        "macOS 13",
        lambda: wheels.check_bf16(replace(ON_MAC, macos="13.6", devices=(replace(APPLE, bf16=False),)), WANTS),
        "no-bf16",
        "macOS 14",
    ),
    ("Ampere and fp8", lambda: wheels.check_fp8(torch_on(AMPERE), WANTS), "no-fp8", "--mixed-precision bf16"),
    ("no compiler", lambda: wheels.check_compiler(None, True, needed=True), "no-compiler", "gcc"),
    ("no header", lambda: wheels.check_compiler("/usr/bin/cc", False, needed=True), "no-python-header", "python3-dev"),
    (
        "MPS limits",
        lambda: wheels.check_mps_limits(ON_MAC, {"PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0.9"})[0],
        "mps-watermarks",
        "LOW 0.7",
    ),
)


@pytest.mark.parametrize(("look", "code", "words"), [entry[1:] for entry in PLANTED], ids=[e[0] for e in PLANTED])
def test_what_cannot_be_planted_here_is_told_as_well(look: Callable[[], Finding], code: str, words: str) -> None:
    found = look()
    assert found.code == code and words in found.fix


@pytest.mark.parametrize(
    "found",
    [
        check_system("Linux", "aarch64", GLIBC, "6.1"),
        check_system("Darwin", "arm64", ("", ""), "24.1"),
        check_python((3, 11, 2)),
        check_python((3, 13, 9)),
        wheels.check_bf16(ON_MAC, WANTS),
        wheels.check_bf16(torch_on(replace(ADA, bf16=False)), wheels.Wants()),
        wheels.check_fp8(torch_on(ADA), WANTS),
        wheels.check_fp8(torch_on(AMPERE), wheels.Wants()),
        *wheels.check_mps_limits(ON_MAC, {}),
        *wheels.check_mps_limits(ON_MAC, {"PYTORCH_MPS_HIGH_WATERMARK_RATIO": "0.0"}),
        *wheels.check_gpu_memory(torch_on(ADA), CPU, wheels.Wants(gpu_bytes=12 * GIB)),
    ],
)
def test_what_is_well_is_told_so(found: Finding) -> None:
    assert found.state == "ok", found


@pytest.mark.parametrize(
    ("archs", "capability", "expected"),
    [
        ("sm_80 sm_86 sm_90", "8.9", True),  # the same major version, an older minor one
        ("sm_80 sm_86 sm_90", "8.0", True),
        ("sm_86 sm_90", "8.0", False),
        ("sm_90", "10.0", False),
        ("sm_90 compute_90", "12.0", True),  # PTX is compiled for what comes later
        ("compute_120", "9.0", False),
        ("sm_90a", "9.0", True),
        ("sm_90a", "9.1", False),
        ("sm_100f", "10.3", True),
        ("sm_100f", "12.0", False),
        ("sm_120", "12.1", True),
        ("gfx90a gfx942", "gfx942", True),
        ("gfx90a gfx942", "gfx1100", False),
        ("nonsense", "8.6", False),
    ],
)
def test_architectures_run_where_cuda_says_they_run(archs: str, capability: str, expected: bool) -> None:
    assert wheels.holds(archs.split(), capability) is expected


@pytest.mark.parametrize(
    ("cuda", "driver", "state"),
    [
        ("12.9", "524.99", "fault"),
        ("12.9", "525.60.13", "ok"),
        ("13.0", "579.10", "fault"),
        ("13.0", "580.65.06", "ok"),
        ("12.6", "610.1", "ok"),
    ],
)
def test_drivers_are_held_to_the_major_version_of_cuda(cuda: str, driver: str, state: str) -> None:
    machine = replace(CPU, device="cuda", driver=driver)
    torch = TorchFacts("ok", "2.13.0", cuda=cuda, error="too old")
    assert check_driver(Seen(torch, machine, Surroundings())).state == state


def test_card_of_a_processor_is_no_card_to_train_on() -> None:
    machine = replace(CPU, device="rocm", gpus=(Gpu("AMD Radeon Graphics", GIB // 2, "gfx1036"),))
    assert check_torch(Seen(TorchFacts("ok", "2.13.0+cpu"), machine, Surroundings())).state == "ok"


NO_DRIVER = TorchFacts("ok", "2.13.0+cu129", cuda="12.9", error="Found no NVIDIA driver on your system.")
RYZEN = Gpu("AMD Radeon Graphics", GIB // 2, "gfx1036")
KFD = DeviceFile("/dev/kfd", True, 992)
CARD = (DeviceFile("/dev/nvidia0", True, 0),)
ON_CUDA = replace(CPU, device="cuda", gpus=(Gpu("NVIDIA L4", 24 * GIB, "8.9"),), driver="570.86.10")


@pytest.mark.parametrize(
    ("machine", "around", "code"),
    [
        # The processor's own small card does not make an NVIDIA card without a driver AMD's.
        (
            replace(CPU, device="rocm", gpus=(RYZEN,)),
            Surroundings(vendors=frozenset({NVIDIA}), kfd=KFD),
            "driver-missing",
        ),
        (CPU, Surroundings(vendors=frozenset({NVIDIA}), kfd=KFD), "driver-missing"),
        (replace(CPU, device="rocm", gpus=(RYZEN,)), Surroundings(kfd=KFD), "no-gpu"),
        (CPU, Surroundings(container=True, nvidia_control=True), "gpu-not-given"),
        (CPU, Surroundings(wsl=True), "no-gpu"),
    ],
)
def test_torch_for_cuda_without_a_card_that_it_can_use(machine: Machine, around: Surroundings, code: str) -> None:
    seen = Seen(NO_DRIVER, machine, around)
    assert check_torch(seen).state == "ok"
    assert check_device(seen).code == code


def test_second_card_is_not_held_against_the_first() -> None:
    old = TorchDevice("NVIDIA GeForce GTX 1050", "6.1", 2 * GIB, None, bf16=False, fp8=False)
    for devices in ((ADA, old), (replace(ADA, free=None), old)):
        torch = replace(torch_on(ADA), archs=("sm_75", "sm_86"), devices=devices)
        found = [wheels.check_architecture(torch, ()), wheels.check_bf16(torch, WANTS), wheels.check_fp8(torch, WANTS)]
        assert [finding.state for finding in found] == ["ok", "ok", "ok"]
    first = replace(torch_on(old), archs=("sm_75", "sm_86"), devices=(old, ADA))
    assert "set CUDA_VISIBLE_DEVICES=1 to take NVIDIA L4" in wheels.check_architecture(first, ()).fix


def test_memory_that_is_shared_with_the_system_is_not_held_by_others() -> None:
    """The probe does not tell what is free of it."""
    spark = TorchDevice("NVIDIA GB10", "12.1", 120 * GIB, None, bf16=True, fp8=True)
    (found,) = wheels.check_gpu_memory(torch_on(spark), ON_CUDA, wheels.Wants(gpu_bytes=12 * GIB))
    assert found.state == "ok"


def test_parts_of_a_card_count_as_cards() -> None:
    """The driver lists one card, torch sees eight devices, and number 3 is one of them."""
    around = Surroundings(kfd=KFD, variables={"HIP_VISIBLE_DEVICES": "3"})
    torch = TorchFacts(
        "ok", "2.13.0+rocm7.2", hip="7.2.1", available=True, devices=(replace(ADA, capability="gfx942"),)
    )
    machine = replace(CPU, device="rocm", gpus=(Gpu("AMD Instinct MI300X", 192 * GIB, "gfx942"),))
    assert check_device(Seen(torch, machine, around)).state == "ok"


def test_tool_that_fails_beside_a_torch_that_works_is_a_warning() -> None:
    around = Surroundings(nvidia=CARD, nvidia_smi="couldn't find libnvidia-ml.so library in your system")
    assert check_nvidia_smi(Seen(torch_on(ADA), ON_CUDA, around)).state == "warning"
    assert check_nvidia_smi(Seen(NO_DRIVER, ON_CUDA, around)).state == "fault"
    assert check_nvidia_smi(Seen(NO_DRIVER, ON_CUDA, around, tiny=True)).state == "warning"


def test_wsl_has_no_file_for_a_card_and_its_tool_in_a_place_of_its_own() -> None:
    assert check_nvidia_smi(Seen(torch_on(ADA), ON_CUDA, Surroundings(wsl=True, nvidia_smi="ok"))).state == "ok"
    missing = check_nvidia_smi(Seen(torch_on(ADA), CPU, Surroundings(wsl=True)))
    assert missing.code == "nvidia-smi-missing" and "/usr/lib/wsl/lib" in missing.fix


def test_driver_of_the_other_card_is_not_amds() -> None:
    torch = TorchFacts(
        "ok", "2.13.0+rocm7.2", hip="7.2.1", available=True, devices=(replace(ADA, capability="gfx942"),)
    )
    assert "570" not in check_driver(Seen(torch, ON_CUDA, Surroundings(kfd=KFD))).says


def test_group_to_join_outside_of_containers_is_the_one_of_the_file() -> None:
    around = Surroundings(
        kfd=DeviceFile("/dev/kfd", False, 992), render=(DeviceFile("/dev/dri/renderD128", True, 992),)
    )
    torch = TorchFacts("ok", "2.13.0+rocm7.2", hip="7.2.1", error="No HIP GPUs are available")
    found = check_device(Seen(torch, replace(CPU, device="rocm"), around))
    assert found.code == "device-denied" and found.fix.startswith("sudo usermod -aG") and "992" in found.fix


def test_version_of_the_loaded_driver_is_read() -> None:
    text = (
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (dvs-builder)\nGCC version:"
    )
    assert parse_kernel_driver(text) == "575.57.08"
    assert parse_kernel_driver("") is None


def test_list_of_packages_is_the_one_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    listed = dict(re.fullmatch(r"([\w-]+)>=([\d.]+)(?:,<\d+)?", line).groups() for line in project["dependencies"])  # type: ignore[union-attr]
    assert {package.name: package.oldest for package in PACKAGES} == listed
    assert project["requires-python"] == ">=3.11,<3.14"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        ({"base_model_precision": "fp8-torchao"}, True),
        ({"text_encoder_1_precision": "fp8-torchao"}, True),
        ({"base_model_precision": "fp8wo-torchao"}, False),
        ({"base_model_precision": "nf4-bnb", "text_encoder_1_precision": "int8-quanto"}, False),
    ],
)
def test_products_in_fp8_are_asked_for_by_the_format_that_rounds_activations(
    flags: dict[str, object], wanted: bool
) -> None:
    config = load_config(["smoke"], env={}, flags=flags).config
    assert wants_of(config, "cuda").fp8 is wanted


def test_memory_is_looked_at_for_what_a_budget_chooses() -> None:
    card = replace(CPU, device="cuda", gpus=(Gpu("a card", 24 * GIB, "8.9"),))

    def loaded(budget: float) -> LoadedConfig:
        return load_config(env={}, flags={"memory_budget_gb": budget, "base_model_precision": "no_change"})

    config, (found,) = in_budget(loaded(8), card)
    assert found.state == "ok"
    assert wants_of(loaded(8).config, "cuda").gpu_bytes > 8 * GIB >= wants_of(config, "cuda").gpu_bytes
    same, (found,) = in_budget(loaded(1), card)
    assert found.code == "budget-too-small" and same == loaded(1).config
    assert in_budget(load_config(env={}, flags={}), card)[1] == []
