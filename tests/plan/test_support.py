"""What a machine cannot compute is told with the nearest that it can."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ltxtrain.config import TrainConfig, load_config
from ltxtrain.errors import MachineError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.facts.packages import package_lacking
from ltxtrain.plan import support
from ltxtrain.plan.support import check_support, support_warnings

GIB = 1024**3
CPU = Machine(os="Linux", cpu="a CPU", cores=2, memory_bytes=64 * GIB, device="cpu")
ADA = replace(CPU, device="cuda", gpus=(Gpu("Ada", 24 * GIB, "8.9"),))
HOPPER = replace(CPU, device="cuda", gpus=(Gpu("H100", 80 * GIB, "9.0"),))
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
    refused = "a run here would be refused: optimizer bnb-lion8bit does not work on an Apple GPU; "
    assert warning == refused + "set optimizer to optimi-lion"
    check_support(config_of(optimizer="bnb-lion8bit"), APPLE, training=False)


def test_fused_steps_are_told_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    triton, compiled = (config_of(optimizer=name, fuse_optimizer=True) for name in ("optimi-lion", "ao-adamw8bit"))
    for machine in (CPU, APPLE):
        check_support(config_of(optimizer="torch-adamw", fuse_optimizer=True), machine)
        with pytest.raises(MachineError, match="fuse_optimizer with optimizer optimi-lion does not work on") as caught:
            check_support(triton, machine)
        assert caught.value.hint == "set fuse_optimizer to false"
        check_support(triton, machine, training=False)
    for machine in (ADA, MI300):
        check_support(triton, machine)
    check_support(compiled, CPU)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MachineError, match="optimizer ao-adamw8bit needs a C\\+\\+ compiler, and none is found"):
        check_support(compiled, CPU)


def test_a_package_that_is_not_there_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = ("bitsandbytes", "torch-optimi")
    monkeypatch.setattr(support, "package_lacking", lambda needs: f"{needs} is missing" if needs in lacking else "")
    with pytest.raises(MachineError, match="bnb-adamw8bit needs another package: bitsandbytes is missing") as caught:
        check_support(config_of(optimizer="bnb-adamw8bit"), ADA)
    # optimi-adamw, the nearest, is not there either, and names the next.
    assert caught.value.hint == "pip install 'bitsandbytes', or set optimizer to torch-adamw"


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("xformers", "pip install 'xformers>=0.0.29'"),
        ("flash-attn", "pip install --no-build-isolation 'flash-attn>=2.6.3', which compiles it"),
        (
            "flash-attn-3",
            "clone the repository Dao-AILab/flash-attention and "
            "pip install --no-build-isolation ./flash-attention/hopper",
        ),
        (
            "sageattention",
            "clone the repository thu-ml/SageAttention and pip install --no-build-isolation ./SageAttention",
        ),
    ],
)
def test_what_no_index_has_is_built_from_its_source(name: str, install: str) -> None:
    config = config_of(attention_mechanism=name, mixed_precision="bf16")
    with pytest.raises(MachineError, match=f"attention_mechanism {name} needs another package: ") as caught:
        check_support(config, HOPPER)
    assert caught.value.hint and caught.value.hint.startswith(f"{install}, or set attention_mechanism to ")


def test_packages_are_looked_for_by_their_names_on_the_index() -> None:
    assert not any(map(package_lacking, ("", "torch-optimi", "optimum-quanto", "bitsandbytes>=0.49")))
    assert all(map(package_lacking, ("no-such-package", "nobody.nothing")))
