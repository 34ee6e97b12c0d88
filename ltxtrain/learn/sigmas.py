"""Noise levels: how sigma is drawn and shifted. Logit-normal draws and the shift: Esser et al. 2024, section 3.1."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.learn.draws import Place

BANDS = 4
# Beyond this the logistic function is 0 or 1 in double precision, and exp would overflow.
LARGEST_LOGIT = 700.0


def draw_sigma(place: Place, sample: str, objective: ObjectiveConfig, shift: float, offset: float = 0.0) -> float:
    """One sigma in [0, 1]: logit-normal unless the uniform or the beta schedule is on, then shifted.

    ``offset`` is a data set's own (``timestep_sampling_offset``): it is added to the normal draw.
    """
    scalars = place.scalars("sigma", sample)
    if objective.flow_use_uniform_schedule:
        sigma = float(scalars.random())
    elif objective.flow_use_beta_schedule:
        sigma = float(scalars.beta(objective.flow_beta_schedule_alpha, objective.flow_beta_schedule_beta))
    else:
        logit = objective.flow_sigmoid_scale * (float(scalars.standard_normal()) + offset)
        sigma = 1.0 / (1.0 + math.exp(-max(logit, -LARGEST_LOGIT)))
    return shift_sigma(sigma, shift)


def shift_sigma(sigma: float, shift: float) -> float:
    """``s*sigma / (1 + (s-1)*sigma)``: above 1 the draws move to high noise, below 1 to low noise."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def shift_for(objective: ObjectiveConfig, tokens: int, scheduler: Mapping[str, float]) -> float:
    """The shift in force: the fixed one; without it, for ``flow_schedule_auto_shift``, the one of the sequence length.

    ``tokens`` is the transformer's own sequence length (its patch is 1). The automatic shift is exp(mu), with mu on the
    line through (base_image_seq_len, base_shift) and (max_image_seq_len, max_shift).
    """
    if objective.flow_schedule_shift or not objective.flow_schedule_auto_shift:
        return objective.flow_schedule_shift or 1.0
    return math.exp(automatic_mu(tokens, scheduler))


def automatic_mu(tokens: int, scheduler: Mapping[str, float]) -> float:
    """The logarithm of the shift that the model's own schedule has for a sequence of that length."""
    low, high = scheduler["base_image_seq_len"], scheduler["max_image_seq_len"]
    slope = (scheduler["max_shift"] - scheduler["base_shift"]) / (high - low)
    return scheduler["base_shift"] + slope * (tokens - low)


def band_of(sigma: float) -> str:
    """The quarter of [0, 1] that ``sigma`` lies in, as ``"0.25-0.50"``."""
    index = min(int(sigma * BANDS), BANDS - 1)
    return f"{index / BANDS:.2f}-{(index + 1) / BANDS:.2f}"
