"""How noise levels are drawn and shifted, against closed forms and documented figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.learn.draws import Place
from ltxtrain.learn.sigmas import band_of, draw_sigma, shift_for, shift_sigma
from ltxtrain.plan.records import Bucket

# The scheduler of Lightricks/LTX-Video: scheduler/scheduler_config.json.
LTX = {"base_image_seq_len": 1024, "base_shift": 0.95, "max_image_seq_len": 4096, "max_shift": 2.05}
DRAWS = 6000


def drawn(shift: float = 1.0, **settings: object) -> np.ndarray:
    objective = ObjectiveConfig(**settings)
    return np.array([draw_sigma(Place(1, step, 0), "a", objective, shift) for step in range(DRAWS)])


def logits(sigmas: np.ndarray) -> np.ndarray:
    return np.log(sigmas / (1 - sigmas))


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_sigma_is_logit_normal_by_default(scale: float) -> None:
    normal = logits(drawn(flow_sigmoid_scale=scale)) / scale
    assert normal.mean() == pytest.approx(0, abs=4 / DRAWS**0.5)
    assert normal.std() == pytest.approx(1, abs=0.04)
    for deviations, below in ((-1, 0.1587), (0, 0.5), (1, 0.8413), (2, 0.9772)):
        assert (normal < deviations).mean() == pytest.approx(below, abs=0.025)


def test_uniform_schedule_draws_evenly() -> None:
    counts, _ = np.histogram(drawn(flow_use_uniform_schedule=True), bins=10, range=(0, 1))
    assert counts.sum() == DRAWS
    assert np.abs(counts - DRAWS / 10).max() < 5 * (DRAWS / 10) ** 0.5


@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 2.0), (1.0, 3.0), (5.0, 2.0)])
def test_beta_schedule_draws_from_the_beta_distribution(alpha: float, beta: float) -> None:
    sigmas = drawn(flow_use_beta_schedule=True, flow_beta_schedule_alpha=alpha, flow_beta_schedule_beta=beta)
    mean = alpha / (alpha + beta)
    assert sigmas.mean() == pytest.approx(mean, abs=0.015)
    assert sigmas.var() == pytest.approx(mean * (1 - mean) / (alpha + beta + 1), rel=0.1)


def test_shift_moves_what_is_drawn() -> None:
    """Shifting by s adds ln(s) to the logit."""
    assert logits(drawn(3.0)) == pytest.approx(logits(drawn(1.0)) + math.log(3))
    assert drawn(3.0, flow_use_uniform_schedule=True).mean() > 0.6


@pytest.mark.parametrize("scale", [1e-6, 1e3, 1e300])
def test_no_scale_breaks_the_draw(scale: float) -> None:
    sigmas = drawn(flow_sigmoid_scale=scale)
    assert ((sigmas >= 0) & (sigmas <= 1)).all()
    assert sigmas.mean() == pytest.approx(0.5, abs=0.03)


def test_each_sample_of_a_batch_has_its_own_sigma() -> None:
    objective = ObjectiveConfig()
    assert len({draw_sigma(Place(1, 1, 0), f"{index}:a", objective, 1.0) for index in range(50)}) == 50


@pytest.mark.parametrize(("shift", "shifted"), [(1, 0.5), (3, 0.75), (0.1, 1 / 11), (4, 0.8)])
def test_documented_shifts_of_one_half(shift: float, shifted: float) -> None:
    assert shift_sigma(0.5, shift) == pytest.approx(shifted, abs=1e-12)


@given(st.floats(0, 1), st.floats(0.01, 100))
def test_shift_keeps_the_ends_and_the_order_and_undoes_itself(sigma: float, shift: float) -> None:
    assert shift_sigma(0.0, shift) == 0
    assert shift_sigma(1.0, shift) == pytest.approx(1)
    assert 0 <= shift_sigma(sigma, shift) <= 1 + 1e-12
    assert shift_sigma(shift_sigma(sigma, shift), 1 / shift) == pytest.approx(sigma, abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "shift"),
    [
        ({}, 1.0),
        ({"flow_schedule_shift": 0}, 1.0),
        ({"flow_schedule_shift": 1}, 1.0),
        ({"flow_schedule_shift": 3.5}, 3.5),
        ({"flow_schedule_shift": 3.5, "flow_schedule_auto_shift": True}, 3.5),
        ({"flow_schedule_shift": 0, "flow_schedule_auto_shift": True}, 7.767901),
        ({"flow_schedule_auto_shift": True}, 7.767901),
    ],
)
def test_fixed_shift_comes_before_the_automatic_one(settings: dict[str, float], shift: float) -> None:
    assert shift_for(ObjectiveConfig(**settings), 4096, LTX) == pytest.approx(shift, rel=1e-6)


@pytest.mark.parametrize(
    ("bucket", "shift"),
    [
        (Bucket(512, 512, 25), 2.585710),  # 1024 tokens: exp(0.95)
        (Bucket(640, 448, 121), 8.912903),  # 4480 tokens: exp(0.95 + 1.1 * 3456 / 3072) = exp(2.1875)
        (Bucket(768, 512, 121), 16.172840),  # 6144 tokens: exp(0.95 + 1.1 * 5120 / 3072)
    ],
)
def test_automatic_shift_is_on_the_line_through_the_schedulers_two_lengths(bucket: Bucket, shift: float) -> None:
    """With the transformer's own patch of 1; a patch of 2 would give a quarter of the tokens."""
    objective = ObjectiveConfig(flow_schedule_auto_shift=True)
    assert shift_for(objective, bucket.tokens, LTX) == pytest.approx(shift, rel=1e-6)


@pytest.mark.parametrize(
    ("sigma", "band"),
    [
        (0, "0.00-0.25"),
        (0.2499, "0.00-0.25"),
        (0.25, "0.25-0.50"),
        (0.5, "0.50-0.75"),
        (0.99, "0.75-1.00"),
        (1, "0.75-1.00"),
    ],
)
def test_band_is_the_quarter_that_sigma_lies_in(sigma: float, band: str) -> None:
    assert band_of(sigma) == band
