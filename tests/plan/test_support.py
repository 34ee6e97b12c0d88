"""What a machine cannot compute is told with the nearest that it can."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ltxtrain.config import TrainConfig, load_config
from ltxtrain.errors import MachineError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.plan import support
from ltxtrain.plan.support import check_support, is_installed, support_warnings

GIB = 1024**3
CPU = Machine(os="Linux", cpu="a CPU", cores=2, memory_bytes=64 * GIB, device="cpu")
ADA = replace(CPU, device="cuda", gpus=(Gpu("Ada", 24 * GIB, "8.9"),))
AMPERE = replace(CPU, device="cuda", gpus=(Gpu("Ampere", 24 * GIB, "8.6"),))
MI300 = replace(CPU, device="rocm", gpus=(Gpu("MI300X", 192 * GIB, "gfx942"),))
MI250 = replace(CPU, device="rocm", gpus=(Gpu("MI250", 64 * GIB, "gfx90a"),))
APPLE = replace(CPU, device="mps", gpus=(Gpu("M3", 64 * GIB),))


def config_of(**flags: object) -> TrainConfig:
    return load_config(env={}, flags=flags, set_aside_unbuilt=True).config


def test_the_defaults_work_everywhere() -> None:
    for machine in (CPU, ADA, MI300, MI250, APPLE):
        check_support(config_of(), machine)


@pytest.mark.parametrize("machine", [ADA, MI300])
def test_fp8_products_are_for_cards_that_have_them(machine: Machine) -> None:
    check_support(config_of(base_model_precision="fp8-torchao"), machine)


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        (AMPERE, "needs compute capability 8.9, and Ampere has 8.6"),
        (MI250, "MI250 is older"),
        (CPU, "not work on a CPU"),
    ],
)
def test_others_are_told_why_not_and_what_instead(machine: Machine, why: str) -> None:
    with pytest.raises(MachineError, match=why) as caught:
        check_support(config_of(base_model_precision="fp8-torchao"), machine)
    assert caught.value.hint == "set base_model_precision to fp8wo-torchao"


def test_eight_bit_optimisers_are_not_for_apple() -> None:
    [warning] = support_warnings(config_of(optimizer="bnb-lion8bit"), APPLE)
    assert "optimizer bnb-lion8bit does not work on an Apple GPU; set optimizer to optimi-lion" in warning
    check_support(config_of(optimizer="bnb-lion8bit"), APPLE, training=False)


def test_a_package_that_is_not_there_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"bitsandbytes": False, "torch-optimi": False}
    monkeypatch.setattr(support, "is_installed", lambda needs: found.get(needs, True))
    with pytest.raises(MachineError, match="needs the package bitsandbytes, which is not installed") as caught:
        check_support(config_of(optimizer="bnb-adamw8bit"), ADA)
    # optimi-adamw, the nearest, is not there either, and names the next.
    assert caught.value.hint == "pip install 'bitsandbytes', or set optimizer to torch-adamw"


def test_packages_are_looked_for_by_the_name_that_they_are_imported_by() -> None:
    assert is_installed("torch-optimi") and is_installed("optimum-quanto") and is_installed("bitsandbytes>=0.49")
    assert not is_installed("no-such-package") and not is_installed("nobody.nothing")
