"""What the makers of accelerators say that these can do at most: dense products, no sparsity, sums in float32.

Sources: NVIDIA's data sheets of A10, A30, A40, A100, L4, L40, L40S, H100, H200 and HGX B200, and its white papers on
Volta, Turing, GA102, Ada and Blackwell, which give GeForce cards by kind of accumulation (with float32 they do half of
what is advertised); AMD's data sheets of the Instinct series.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Arithmetic = Literal["bf16", "fp16", "tf32", "fp32"]


@dataclass(frozen=True)
class Peak:
    """10^12 operations a second, a multiplication and an addition as two; 0 where the device has no such unit.

    ``fp32`` is without tensor cores: what products of float32 get while TF32 is off.
    """

    bf16: float
    fp32: float
    tf32: float
    fp16: float


def _peak(bf16: float, fp32: float, *, tf32: float | None = None, fp16: float | None = None) -> Peak:
    """Most devices do fp16 as fast as bf16, and TF32 at half of that."""
    return Peak(bf16, fp32, bf16 / 2 if tf32 is None else tf32, bf16 if fp16 is None else fp16)


# The first pattern that is found in the name counts, so variants stand before what they are variants of.
_PEAKS: Final[tuple[tuple[str, Peak], ...]] = (
    (r"\bB200\b", _peak(2250, 80)),
    (r"\bH200 NVL\b", _peak(835.5, 60)),
    (r"\bG?H200\b", _peak(989.4, 66.9)),
    (r"\bH100 NVL\b", _peak(835.5, 60)),
    (r"\bH100 PCIe\b", _peak(756, 51.2)),
    (r"\bH[18]00\b", _peak(989.4, 66.9)),
    (r"\bH20\b", _peak(148, 44)),
    (r"\bA[18]00\b", _peak(312, 19.5)),
    (r"\bA40\b", _peak(149.7, 37.4)),
    (r"\bA30\b", _peak(165, 10.3)),
    (r"\bA10G\b", _peak(70, 35)),
    (r"\bA10\b", _peak(125, 31.2)),
    (r"\bL40S\b", _peak(362.05, 91.6)),
    (r"\bL40\b", _peak(181.05, 90.5)),
    (r"\bL4\b", _peak(121, 30.3)),
    (r"\bRTX 6000 Ada\b", _peak(364.2, 91.1)),
    (r"\bRTX A6000\b", _peak(154.8, 38.7)),
    (r"\bRTX A5000\b", _peak(111.1, 27.8)),
    (r"\bRTX 5090\b", _peak(209.5, 104.8)),
    (r"\bRTX 5080\b", _peak(112.6, 56.3)),
    (r"\bRTX 5070 Ti\b", _peak(87.9, 43.9)),
    (r"\bRTX 4090 D\b", _peak(147.1, 73.5)),
    (r"\bRTX 4090\b", _peak(165.2, 82.6)),
    (r"\bRTX 4080 SUPER\b", _peak(104.4, 52.2)),
    (r"\bRTX 4080\b", _peak(97.5, 48.7)),
    (r"\bRTX 4070 Ti SUPER\b", _peak(88.2, 44.1)),
    (r"\bRTX 4070 Ti\b", _peak(80.2, 40.1)),
    (r"\bRTX 4060 Ti\b", _peak(44.1, 22.1)),
    (r"\bRTX 3090 Ti\b", _peak(80, 40)),
    (r"\bRTX 3090\b", _peak(71.2, 35.6)),
    (r"\bRTX 3080 Ti\b", _peak(68.2, 34.1)),
    (r"\bRTX 3060 Ti\b", _peak(32.4, 16.2)),
    (r"\bRTX 3060\b", _peak(25.5, 12.7)),
    (r"\bV100-SXM2\b", _peak(0, 15.7, fp16=125)),
    (r"\bV100-PCIE\b", _peak(0, 14, fp16=112)),
    (r"\bT4\b", _peak(0, 8.1, fp16=65)),
    (r"\bMI3(00|25)X\b", _peak(1307.4, 163.4)),
    (r"\bMI300A\b", _peak(980.6, 122.6)),
    (r"\bMI250X\b", _peak(191.5, 23.9, tf32=0)),  # one of its two dies, which is what counts as a device
    (r"\bMI210\b", _peak(181, 22.6, tf32=0)),
)


def peak_flops(name: str, arithmetic: Arithmetic) -> float | None:
    """Operations a second of the device that its driver calls ``name``; None where that is not known.

    A slice of a card (MIG) has the card's name and not its speed: None as well. So is a laptop's card.
    """
    if re.search(r"\b(MIG|Laptop|Max-Q|Mobile)\b", name):
        return None
    for pattern, peak in _PEAKS:
        if re.search(pattern, name):
            return float(getattr(peak, arithmetic)) * 1e12 or None
    return None
