"""Which kernels attend: looked up in what torch is really asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch.utils._python_dispatch import TorchDispatchMode

from ltxtrain.config.compute import SpeedConfig
from ltxtrain.model.adapter import AdapterSpec, attach_adapter
from ltxtrain.model.attention import set_attention
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_transformer
from ltxtrain.model.transformer import caption_mask, predict_velocity

FLASH = "aten._scaled_dot_product_flash_attention_for_cpu.default"
SPEC = AdapterSpec(4, 4.0, 0.0, ("to_q", "to_k", "to_v", "to_out.0"))


class Asked(TorchDispatchMode):
    """Counts what torch computes, by operator; ``masked`` of these were given a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.masked = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        self.count[str(function)] += 1
        if str(function) == FLASH and (named or {}).get("attn_mask") is not None:
            self.masked += 1
        return function(*given, **(named or {}))


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def velocity(transformer: LTXVideoTransformer3DModel, mask_BL: torch.Tensor | None) -> torch.Tensor:
    width = transformer.config.caption_channels
    return predict_velocity(
        transformer, draw(2, 128, 3, 2, 4, seed=1), torch.tensor([0.2, 0.7]), draw(2, 16, width, seed=2), mask_BL, 25.0
    )


@pytest.fixture
def load(tiny: ModelFolder) -> Callable[[], LTXVideoTransformer3DModel]:
    return lambda: load_transformer(tiny, Loading(torch.float32))


PADDED_BL = torch.arange(16).expand(2, 16) < torch.tensor([[5], [9]])


def asked(transformer: LTXVideoTransformer3DModel, mask_BL: torch.Tensor | None = PADDED_BL) -> Asked:
    with torch.no_grad(), Asked() as found:
        velocity(transformer, mask_BL)
    return found


def test_plain_products_take_the_place_of_the_kernel(transformer: LTXVideoTransformer3DModel) -> None:
    set_attention(transformer, SpeedConfig(), training=True)
    own = asked(transformer)
    attentions = 2 * len(transformer.transformer_blocks)
    assert (own.count[FLASH], own.masked) == (attentions, attentions // 2)
    set_attention(transformer, SpeedConfig(attention_mechanism="native-math"), training=True)
    assert asked(transformer).count[FLASH] == 0


def test_the_kernel_without_masks_leaves_captions_to_pytorchs_own(transformer: LTXVideoTransformer3DModel) -> None:
    set_attention(transformer, SpeedConfig(attention_mechanism="native-flash"), training=True)
    backends = {
        (block.attn1.processor._attention_backend, block.attn2.processor._attention_backend)
        for block in transformer.transformer_blocks
    }
    assert backends == {(AttentionBackendName._NATIVE_FLASH, AttentionBackendName.NATIVE)}
    set_attention(transformer, SpeedConfig(attention_mechanism="diffusers"), training=True)
    expected = velocity(transformer, PADDED_BL)
    set_attention(transformer, SpeedConfig(attention_mechanism="native-flash"), training=True)
    assert torch.equal(velocity(transformer, PADDED_BL), expected)  # on a CPU it is what PyTorch chooses anyway


@pytest.mark.parametrize("name", ["native-math", "native-flash"])
def test_the_adapter_learns_the_same(load: Callable[[], LTXVideoTransformer3DModel], name: str) -> None:
    found = {}
    for mechanism in ("diffusers", name):
        transformer = load()
        parameters = attach_adapter(transformer, SPEC, 0)
        for index, parameter in enumerate(parameters.values()):
            parameter.data = 0.05 * draw(*parameter.shape, seed=index)
        set_attention(transformer, SpeedConfig(attention_mechanism=mechanism), training=True)
        velocity(transformer, PADDED_BL).square().mean().backward()
        found[mechanism] = {key: parameter.grad for key, parameter in parameters.items()}
    for key, gradient in found["diffusers"].items():
        assert gradient.abs().max() > 0
        torch.testing.assert_close(found[name][key], gradient, rtol=1e-3, atol=1e-8)


def test_what_has_no_backward_pass_is_for_validation_alone(transformer: LTXVideoTransformer3DModel) -> None:
    sage = SpeedConfig(attention_mechanism="sageattention-int8-fp16-cuda")
    attention = transformer.transformer_blocks[0].attn1.processor
    set_attention(transformer, sage, training=True)
    assert attention._attention_backend == AttentionBackendName.NATIVE
    set_attention(transformer, sage, training=False)
    assert attention._attention_backend == AttentionBackendName._SAGE_QK_INT8_PV_FP16_CUDA
    assert transformer.transformer_blocks[0].attn2.processor._attention_backend == AttentionBackendName.NATIVE


def test_no_other_model_is_touched(load: Callable[[], LTXVideoTransformer3DModel]) -> None:
    before = _AttentionBackendRegistry.get_active_backend()
    set_attention(load(), SpeedConfig(attention_mechanism="native-math"), training=True)
    assert _AttentionBackendRegistry.get_active_backend() == before
    assert asked(load()).count[FLASH] > 0


def test_another_programs_default_is_not_taken_over(
    load: Callable[[], LTXVideoTransformer3DModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``DIFFUSERS_ATTN_BACKEND`` sets this where nothing else is said."""
    monkeypatch.setattr(_AttentionBackendRegistry, "_active_backend", AttentionBackendName._NATIVE_MATH)
    transformer = load()
    assert asked(transformer).count[FLASH] == 0
    set_attention(transformer, SpeedConfig(), training=True)
    assert asked(transformer).count[FLASH] > 0


def test_a_caption_without_padding_goes_without_a_mask(transformer: LTXVideoTransformer3DModel) -> None:
    set_attention(transformer, SpeedConfig(), training=True)
    full_BL = torch.ones_like(PADDED_BL)
    assert caption_mask(full_BL) is None
    assert caption_mask(PADDED_BL) is PADDED_BL
    assert asked(transformer, caption_mask(full_BL)).masked == 0
    torch.testing.assert_close(velocity(transformer, None), velocity(transformer, full_BL))
