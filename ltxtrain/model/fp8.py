"""Numbers of eight bits with an exponent (e4m3), one scale to each row, and the product of two matrices of them."""

from __future__ import annotations

import functools

import torch


def fp8_rows(values_RC: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Each row on its own scale in fp8: the codes as int8 [R, C], and the scales in float32 [R, 1].

    The greatest magnitude of a row becomes the greatest of the format, 448 (OCP 8-bit floating point, 2023).
    """
    kind = _fp8_dtype()
    most = torch.finfo(kind).max
    scale_R1 = values_RC.abs().amax(1, keepdim=True).float().clamp(min=1e-12) / most
    codes = (values_RC / scale_R1).clamp_(-most, most).to(kind)
    return codes.view(torch.int8), scale_R1


def read_fp8_rows(codes_RC: torch.Tensor, scale_R1: torch.Tensor) -> torch.Tensor:
    """The values of ``fp8_rows`` in bf16, which holds every fp8 number: only the product with the scale is rounded."""
    return codes_RC.view(_fp8_dtype()).to(torch.bfloat16).mul_(scale_R1)


def fp8_product(
    input_TC: torch.Tensor, codes_RC: torch.Tensor, scale_R1: torch.Tensor, bias_R: torch.Tensor | None
) -> torch.Tensor:
    """``input @ weight.T + bias``, [T, R], of an input that is rounded to fp8 row by row, in the input's dtype.

    Where the device multiplies fp8, it does; elsewhere the same rounded numbers are multiplied in the input's dtype.
    """
    rounded_TC, scale_T1 = fp8_rows(input_TC)
    if not multiplies_fp8(input_TC.device) or any(size % 16 for size in codes_RC.shape):
        read_TC, weight_RC = read_fp8_rows(rounded_TC, scale_T1), read_fp8_rows(codes_RC, scale_R1)
        return torch.nn.functional.linear(read_TC.to(input_TC.dtype), weight_RC.to(input_TC.dtype), bias_R)
    kind = _fp8_dtype()
    product_TR = torch._scaled_mm(
        rounded_TC.view(kind),
        codes_RC.view(kind).t(),
        scale_a=scale_T1,
        scale_b=scale_R1.t(),
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    ).to(input_TC.dtype)
    return product_TR if bias_R is None else product_TR + bias_R


@torch.compiler.assume_constant_result
def multiplies_fp8(device: torch.device) -> bool:
    """Whether the device multiplies fp8: NVIDIA from compute capability 8.9, AMD from MI300."""
    return _multiplies(device)


@functools.cache
def _multiplies(device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    if torch.version.hip:
        return torch.cuda.get_device_properties(device).gcnArchName.startswith(("gfx94", "gfx95", "gfx12"))
    return torch.cuda.get_device_capability(device) >= (8, 9)


@torch.compiler.assume_constant_result
def _fp8_dtype() -> torch.dtype:
    """The e4m3 of this machine: MI300 has one of its own, without a negative zero."""
    return _e4m3()


@functools.cache
def _e4m3() -> torch.dtype:
    if not torch.version.hip or not torch.cuda.is_available():
        return torch.float8_e4m3fn
    ours = torch.cuda.get_device_properties(0).gcnArchName.startswith("gfx94")
    return torch.float8_e4m3fnuz if ours else torch.float8_e4m3fn
