from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ltxtrain.model.arithmetic import set_tf32


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
