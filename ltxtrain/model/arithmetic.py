"""How products of float32 are computed on an NVIDIA or AMD GPU."""

from __future__ import annotations

import torch


def set_tf32(*, disabled: bool) -> None:
    """Let float32 products use TF32, which keeps 10 bits of the fraction and is many times as fast, or forbid it.

    As documented it is on unless ``disable_tf32`` says otherwise; PyTorch itself has it on for convolutions alone. It
    changes nothing where the arithmetic is bf16 or fp16, nor on a CPU.
    """
    torch.backends.cuda.matmul.allow_tf32 = not disabled
    torch.backends.cudnn.allow_tf32 = not disabled


def takes_tf32(device: str, dtype: torch.dtype, *, disabled: bool) -> bool:
    """Whether ``set_tf32`` decides what a model of ``dtype`` computes on a ``device`` of that type.

    True for every CUDA device: one that is too old for TF32 is not told apart, nor is what is left of it on ROCm.
    """
    return device == "cuda" and dtype == torch.float32 and not disabled
