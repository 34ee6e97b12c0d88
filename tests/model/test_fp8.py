"""Numbers of eight bits with an exponent: how they are rounded and multiplied, and on which cards."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ltxtrain.model import fp8
from ltxtrain.model.fp8 import fp8_product, fp8_rows, read_fp8_rows


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens", [1, 17])
def test_products_in_fp8_are_those_of_the_rounded_numbers(monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    """torch multiplies fp8 on a CPU too, slowly: the call is the one that a GPU gets."""
    input_TC, weight_RC = draw(tokens, 64, seed=1).to(torch.bfloat16), draw(32, 64, seed=2).to(torch.bfloat16)
    bias_R = draw(32, seed=3).to(torch.bfloat16)
    codes_RC, scale_R1 = fp8_rows(weight_RC)
    monkeypatch.setattr(fp8, "multiplies_fp8", lambda device: True)
    product_TR = fp8_product(input_TC, codes_RC, scale_R1, bias_R)
    rounded_TC, scale_T1 = fp8_rows(input_TC)
    rows = [codes.view(torch.float8_e4m3fn).double() for codes in (rounded_TC, codes_RC)]
    expected_TR = (rows[0] @ rows[1].T) * (scale_T1.double() * scale_R1.double().T) + bias_R.double()
    assert product_TR.dtype == torch.bfloat16
    torch.testing.assert_close(product_TR.double(), expected_TR, rtol=1e-2, atol=5e-2)
    loose_TR = input_TC.double() @ weight_RC.double().T + bias_R.double()
    assert (loose_TR - expected_TR).norm() > 3 * (product_TR.double() - expected_TR).norm()


def test_products_of_sides_that_no_gpu_multiplies_are_computed_the_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    long: dict[tuple[int, int], torch.Tensor] = {}
    for multiplies in (False, True):
        monkeypatch.setattr(fp8, "multiplies_fp8", lambda device, able=multiplies: able)
        if multiplies:
            monkeypatch.setattr(torch, "_scaled_mm", None)
        for rows, columns in ((24, 64), (32, 40)):
            weight = fp8_rows(draw(rows, columns, seed=2).to(torch.bfloat16))
            product_TR = fp8_product(draw(3, columns, seed=1).to(torch.bfloat16), *weight, None)
            assert torch.equal(long.setdefault((rows, columns), product_TR), product_TR)


@pytest.mark.parametrize(
    ("amd", "capability", "multiplies", "kind"),
    [
        ("", (8, 6), False, torch.float8_e4m3fn),
        ("", (8, 9), True, torch.float8_e4m3fn),
        ("gfx90a", (9, 0), False, torch.float8_e4m3fn),
        ("gfx942:sramecc+:xnack-", (9, 4), True, torch.float8_e4m3fnuz),
        ("gfx950", (9, 5), True, torch.float8_e4m3fn),
        ("gfx1100", (11, 0), False, torch.float8_e4m3fn),
        ("gfx1201", (12, 0), True, torch.float8_e4m3fn),
    ],
)
def test_cards_that_multiply_fp8_and_the_fp8_that_they_have(
    monkeypatch: pytest.MonkeyPatch, amd: str, capability: tuple[int, int], multiplies: bool, kind: torch.dtype
) -> None:
    monkeypatch.setattr(torch.version, "hip", "6.4" if amd else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(gcnArchName=amd))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fp8._multiplies.__wrapped__(torch.device("cuda")) is multiplies  # what it remembers is of this machine
    assert not fp8._multiplies.__wrapped__(torch.device("cpu"))
    assert fp8._e4m3.__wrapped__() is kind


def test_rounding_to_fp8_keeps_the_greatest_of_each_row_and_rows_of_zeros() -> None:
    values_RC = torch.tensor([[1.0, -3.0, 0.01, 0.0], [0.0, 0.0, 0.0, 0.0], [448.0, 1.0, -448.0, 0.5]])
    read_RC = read_fp8_rows(*fp8_rows(values_RC)).float()
    assert read_RC[:, 1].tolist() == [-3.0, 0.0, 1.0] and read_RC[2].tolist() == values_RC[2].tolist()
    assert not read_RC[1].any()
    torch.testing.assert_close(read_RC, values_RC, rtol=0.07, atol=0.0)
