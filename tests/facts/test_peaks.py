"""Peak speeds by the names that drivers give."""

from __future__ import annotations

import pytest

from ltxtrain.facts.peaks import peak_flops


@pytest.mark.parametrize(
    ("name", "bf16"),
    # As torch and nvidia-smi spell them; figures of the makers' data sheets, without sparsity.
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H100 NVL", 835.5e12),
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H200 NVL", 835.5e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A100 80GB PCIe", 312e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40", 181.05e12),
        ("NVIDIA L40S", 362.05e12),
        ("NVIDIA RTX 6000 Ada Generation", 364.2e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("NVIDIA GeForce RTX 4090 D", 147.1e12),
        ("NVIDIA GeForce RTX 3090", 71.2e12),
        ("AMD Instinct MI300X", 1307.4e12),
    ],
)
def test_a_card_has_its_makers_figure(name: str, bf16: float) -> None:
    assert peak_flops(name, "bf16") == bf16
    assert 0 < (peak_flops(name, "fp32") or 0) < bf16


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H100 80GB HBM3 MIG 3g.40gb",  # a part of a card
        "NVIDIA GeForce RTX 4090 Laptop GPU",  # another chip of the same name
        "NVIDIA GeForce RTX 9090",
        "NVIDIA A1000 Something",
        "Apple M3 Max",
        "",
    ],
)
def test_what_is_not_known_has_none(name: str) -> None:
    assert peak_flops(name, "bf16") is None


def test_arithmetic_that_a_card_has_not_has_none() -> None:
    assert peak_flops("Tesla V100-SXM2-16GB", "bf16") is None
    assert peak_flops("Tesla V100-SXM2-16GB", "fp16") == 125e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "tf32") == 156e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "fp32") == 19.5e12
