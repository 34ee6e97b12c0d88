from __future__ import annotations

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.model.tiny import TinySpec
from ltxtrain.model.transformer import predict_velocity

BATCH, FRAMES, HEIGHT, WIDTH = 2, 3, 2, 4
TEXT_WIDTH = TinySpec().text_dim


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


NOISY_BCFHW = draw(BATCH, 128, FRAMES, HEIGHT, WIDTH, seed=1)
EMBEDS_BLD = draw(BATCH, 128, TEXT_WIDTH, seed=2)
MASK_BL = torch.arange(128).expand(BATCH, 128) < 9
SIGMA_B = torch.tensor([0.25, 0.8])


@torch.no_grad()
def test_it_is_the_models_own_forward_on_tokens_in_frame_row_column_order(
    transformer: LTXVideoTransformer3DModel,
) -> None:
    tokens_BSC = torch.zeros(BATCH, FRAMES * HEIGHT * WIDTH, 128)
    places = [(f, h, w) for f in range(FRAMES) for h in range(HEIGHT) for w in range(WIDTH)]
    for token, (f, h, w) in enumerate(places):
        tokens_BSC[:, token] = NOISY_BCFHW[:, :, f, h, w]
    velocity_BSC = transformer(
        hidden_states=tokens_BSC,
        encoder_hidden_states=EMBEDS_BLD,
        timestep=torch.tensor([250.0, 800.0]),
        encoder_attention_mask=MASK_BL,
        num_frames=FRAMES,
        height=HEIGHT,
        width=WIDTH,
        rope_interpolation_scale=(8 / 25, 32, 32),
    ).sample
    mine_BCFHW = predict_velocity(transformer, NOISY_BCFHW, SIGMA_B, EMBEDS_BLD, MASK_BL, 25.0)
    assert mine_BCFHW.shape == NOISY_BCFHW.shape
    for token, (f, h, w) in enumerate(places):
        assert torch.equal(mine_BCFHW[:, :, f, h, w], velocity_BSC[:, token])


@pytest.mark.parametrize(("framerate", "expected"), [(25.0, (0.32, 32, 32)), (24.0, (1 / 3, 32, 32)), (8, (1, 32, 32))])
def test_the_time_axis_is_in_seconds(
    transformer: LTXVideoTransformer3DModel, framerate: float, expected: tuple[float, ...]
) -> None:
    scales: list[tuple[float, ...]] = []
    transformer.rope.register_forward_pre_hook(lambda _, given: scales.append(given[4]))
    with torch.no_grad():
        predict_velocity(transformer, NOISY_BCFHW, SIGMA_B, EMBEDS_BLD, MASK_BL, framerate)
    assert scales == [pytest.approx(expected)]


@torch.no_grad()
def test_a_sigma_for_each_token_is_the_same_where_all_are_equal(transformer: LTXVideoTransformer3DModel) -> None:
    tokens = FRAMES * HEIGHT * WIDTH
    whole = predict_velocity(transformer, NOISY_BCFHW, SIGMA_B, EMBEDS_BLD, MASK_BL, 25.0)
    sigma_BS = SIGMA_B[:, None].expand(BATCH, tokens).clone()
    each = predict_velocity(transformer, NOISY_BCFHW, sigma_BS, EMBEDS_BLD, MASK_BL, 25.0)
    torch.testing.assert_close(each, whole)
    sigma_BS[:, : HEIGHT * WIDTH] = 0.0
    first_frame_clean = predict_velocity(transformer, NOISY_BCFHW, sigma_BS, EMBEDS_BLD, MASK_BL, 25.0)
    changed = (first_frame_clean - whole).abs()
    # The first frame's own modulation has changed; the others see it only through attention.
    assert changed[:, :, 0].mean() > 10 * changed[:, :, 1:].mean() > 0


@torch.no_grad()
def test_masked_text_tokens_have_no_say(transformer: LTXVideoTransformer3DModel) -> None:
    other_BLD = torch.where(MASK_BL[..., None], EMBEDS_BLD, draw(BATCH, 128, TEXT_WIDTH, seed=3))
    mine = predict_velocity(transformer, NOISY_BCFHW, SIGMA_B, EMBEDS_BLD, MASK_BL, 25.0)
    assert torch.equal(mine, predict_velocity(transformer, NOISY_BCFHW, SIGMA_B, other_BLD, MASK_BL, 25.0))
    unmasked = predict_velocity(transformer, NOISY_BCFHW, SIGMA_B, other_BLD, torch.ones_like(MASK_BL), 25.0)
    assert not torch.allclose(mine, unmasked)
