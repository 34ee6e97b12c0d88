from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from ltxtrain.facts.machine import (
    Gpu,
    ask_tool,
    memory_limit_bytes,
    parse_nvidia_smi,
    parse_rocm_smi,
    physical_memory_bytes,
    probe_machine,
)


def test_this_machine_has_cores_and_memory() -> None:
    machine = probe_machine()
    assert machine.cores >= 1
    assert machine.memory_bytes > 100 * 1024**2
    assert machine.device in ("cpu", "cuda", "rocm", "mps")
    assert bool(machine.gpus) == (machine.device != "cpu")


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("", {"memory.max": "max"}, None),
        ("", {"memory.max": "2147483648"}, 2 * 1024**3),
        ("0::/", {"memory.max": "2147483648"}, 2 * 1024**3),
        ("0::/slurm/job_7/step_0", {"slurm/job_7/memory.max": "1073741824", "slurm/memory.max": "max"}, 1024**3),
        ("4:memory:/docker/ab", {"memory/memory.limit_in_bytes": "1073741824"}, 1024**3),
        ("4:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": "9223372036854771712"}, None),
    ],
)
def test_memory_is_limited_by_each_control_group_above(
    tmp_path: Path, groups: str, limits: dict[str, str], expected: int | None
) -> None:
    for name, text in {
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{name}": limits[name] for name in limits},
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n" if text else "")
    assert memory_limit_bytes(tmp_path) == (expected or physical_memory_bytes())


def test_nvidia_driver_is_read_line_by_line() -> None:
    text = "NVIDIA GeForce RTX 4090, 24564, 8.9, 570.86.10\nNVIDIA H200, 143771, [N/A], 570.86.10\n"
    gpus, driver = parse_nvidia_smi(text)
    assert gpus == (Gpu("NVIDIA GeForce RTX 4090", 24564 * 1024**2, "8.9"), Gpu("NVIDIA H200", 143771 * 1024**2))
    assert driver == "570.86.10"


@pytest.mark.parametrize(
    "text", ["", "No devices were found", "Failed to initialize NVML: Driver/library version mismatch"]
)
def test_driver_without_devices_gives_none(text: str) -> None:
    assert parse_nvidia_smi(text) == ((), None)


def test_card_without_memory_of_its_own_shares_the_machines() -> None:
    text = "NVIDIA GB10, [N/A], 12.1, 580.126.09\n"
    assert parse_nvidia_smi(text, 120 * 1024**3) == ((Gpu("NVIDIA GB10", 120 * 1024**3, "12.1"),), "580.126.09")


def test_part_of_a_card_has_the_memory_that_its_name_tells() -> None:
    text = "NVIDIA A100-SXM4-80GB, [Insufficient Permissions], 8.0, 535.161.08\n"
    listing = "GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-1)\n  MIG 3g.40gb     Device  0: (UUID: MIG-2)\n"
    (gpu,), driver = parse_nvidia_smi(text, 10, listing)
    assert (gpu.name, gpu.capability, driver) == ("NVIDIA A100-SXM4-80GB MIG 3g.40gb", "8.0", "535.161.08")
    assert 35 * 1024**3 < gpu.memory_bytes < 40 * 1024**3
    assert parse_nvidia_smi(text, 10) == ((), "535.161.08")


def test_tool_that_does_not_end_is_not_waited_for(tmp_path: Path) -> None:
    tool = tmp_path / "hangs"
    tool.write_text("#!/bin/sh\nsleep 15 & sleep 15\n")
    tool.chmod(0o755)
    started = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        ask_tool([str(tool)], seconds=0.2)
    assert time.monotonic() - started < 10


def test_rocm_cards_are_read_from_json() -> None:
    text = """{"card0": {"VRAM Total Memory (B)": "206141652992", "Card Series": "AMD Instinct MI300X",
               "GFX Version": "gfx942"}, "system": {"Driver version": "6.10.5"}}"""
    assert parse_rocm_smi(text) == ((Gpu("AMD Instinct MI300X", 206141652992, "gfx942"),), "6.10.5")


@pytest.mark.parametrize("text", ["", "[]", "not json", '{"card0": {"VRAM Total Memory (B)": "unknown"}}'])
def test_rocm_without_cards_gives_none(text: str) -> None:
    assert parse_rocm_smi(text)[0] == ()


def test_tool_on_the_path_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Test GPU, 8192, 7.5, 555.1'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    machine = probe_machine()
    assert machine.device == "cuda"
    assert machine.gpus == (Gpu("Test GPU", 8 * 1024**3, "7.5"),)


def test_tool_that_fails_means_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'Test GPU, 8192, 7.5, 555.1'\nexit 9\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")
    assert probe_machine().device != "cuda"
