from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ltxtrain.model.arithmetic import set_tf32, takes_tf32


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize("disabled", [True, False])
def test_products_and_convolutions_take_tf32_unless_it_is_disabled(disabled: bool) -> None:
    one, other = torch.randn(2, 64, 64, generator=torch.Generator().manual_seed(0))
    product = one @ other
    set_tf32(disabled=disabled)
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (not disabled, not disabled)
    assert torch.equal(one @ other, product)  # a CPU computes as before


@pytest.mark.parametrize(
    ("device", "dtype", "disabled", "takes"),
    [
        ("cuda", torch.float32, False, True),
        ("cuda", torch.float32, True, False),
        ("cuda", torch.bfloat16, False, False),
        ("cpu", torch.float32, False, False),
        ("mps", torch.float32, False, False),
    ],
)
def test_only_float32_on_a_cuda_device_takes_tf32(device: str, dtype: torch.dtype, disabled: bool, takes: bool) -> None:
    assert takes_tf32(device, dtype, disabled=disabled) is takes
