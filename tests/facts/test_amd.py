"""AMD's cards: by amd-smi, by rocm-smi, and by what the kernel tells without any tool."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ltxtrain.facts.machine import Gpu, gfx_name, kfd_gpus, parse_amd_smi, parse_rocm_smi, probe_machine

MI300X = Gpu("AMD Instinct MI300X", 206141652992, "gfx942")
CARD = {
    "gpu": 0,
    "asic": {"market_name": "AMD Instinct MI300X", "target_graphics_version": "gfx942"},
    "driver": {"name": "amdgpu", "version": "6.12.12"},
    "vram": {"type": "HBM3", "size": {"value": 196592, "unit": "MB"}},
}
PROPERTIES = "cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\nvendor_id 4098\ndrm_render_minor 128\n"
BANK = "heap_type 1\nsize_in_bytes 206141652992\nflags 0\nwidth 8192\n"


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([CARD]),  # before ROCm 7
        json.dumps({"gpu_data": [CARD]}),  # since ROCm 7
        json.dumps(CARD),
        "WARNING: user is not in [render]\n" + json.dumps({"gpu_data": [CARD]}, indent=4) + "\n\n",
        json.dumps([CARD | {"vram": {"vram_size": "196592 MB"}, "driver": {"driver_version": "6.12.12"}}]),
    ],
)
def test_amd_smi_is_read_in_every_form(text: str) -> None:
    assert parse_amd_smi(text) == ((MI300X,), "6.12.12")


def test_what_amd_smi_does_not_know_is_left_open() -> None:
    card = CARD | {"asic": {"market_name": "N/A", "target_graphics_version": "N/A"}, "driver": {"version": "N/A"}}
    assert parse_amd_smi(json.dumps([card])) == ((Gpu("AMD GPU", 206141652992, None),), None)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "ERROR: no devices", '[{"gpu": 0}]', '{"gpu_data": "none"}', "[1, 2]"]
)
def test_amd_smi_without_cards_gives_none(text: str) -> None:
    assert parse_amd_smi(text)[0] == ()


def test_rocm_smi_may_warn_before_its_json() -> None:
    card = '{"card0": {"VRAM Total Memory (B)": "1", "Card Series": "N/A"}}'
    text = f"WARNING: AMD GPU device(s) is/are in a low-power state\n{card}"
    assert parse_rocm_smi(text)[0] == (Gpu("AMD GPU", 1, None),)


@pytest.mark.parametrize(
    ("version", "name"),
    [("90402", "gfx942"), ("90010", "gfx90a"), ("100300", "gfx1030"), ("110501", "gfx1151"), ("120001", "gfx1201")],
)
def test_architecture_is_read_from_the_kernels_number(version: str, name: str) -> None:
    assert gfx_name(version) == name
    assert gfx_name("0") is gfx_name("") is gfx_name("gfx942") is None


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """/sys of a machine with a processor, an MI300X, and a card that the container may not look at."""
    nodes = tmp_path / "sys/class/kfd/kfd/topology/nodes"
    for node, properties in (("0", "cpu_cores_count 96\nsimd_count 0\ngfx_target_version 0\n"), ("1", PROPERTIES)):
        (nodes / node / "mem_banks/0").mkdir(parents=True)
        (nodes / node / "properties").write_text(properties)
        (nodes / node / "mem_banks/0/properties").write_text(BANK if node == "1" else "heap_type 0\nsize_in_bytes 9\n")
    (nodes / "2").mkdir()
    (tmp_path / "sys/module/amdgpu").mkdir(parents=True)
    (tmp_path / "sys/module/amdgpu/version").write_text("6.12.12\n")
    return tmp_path


def test_kernel_tells_the_card_without_any_tool(kernel: Path) -> None:
    assert kfd_gpus(kernel) == ((Gpu("AMD gfx942", 206141652992, "gfx942"),), "6.12.12")
    product = kernel / "sys/class/drm/renderD128/device/product_name"
    product.parent.mkdir(parents=True)
    product.write_text("AMD Instinct MI300X OAM\n")
    assert kfd_gpus(kernel)[0][0].name == "AMD Instinct MI300X OAM"


def test_card_that_a_container_was_not_given_is_none_of_its_own(kernel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(kernel))
    assert probe_machine(kernel).device != "rocm"
    (kernel / "dev").mkdir()
    (kernel / "dev/kfd").touch()
    machine = probe_machine(kernel)
    assert (machine.device, machine.driver) == ("rocm", "6.12.12")


def test_older_tool_is_asked_when_the_newer_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"VRAM Total Memory (B)": "206141652992", "Card Series": "AMD Instinct MI300X", "GFX Version": "gfx942"}
    card = json.dumps({"card0": told})
    for name, script in (("amd-smi", "echo '[]'"), ("rocm-smi", f"echo '{card}'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = probe_machine(tmp_path)
    assert (machine.device, machine.gpus) == ("rocm", (MI300X,))


def test_limit_of_a_container_is_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("104857600\n")
    assert probe_machine(tmp_path).memory_bytes == 100 * 1024**2
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("max\n")
    assert probe_machine(tmp_path).memory_bytes > 100 * 1024**2
