"""How fast training is: TFLOP/s of useful work, and the share of the device's peak that this is (MFU)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import torch

from ltxtrain.config.compute import PrecisionConfig
from ltxtrain.config.formats import in_float32
from ltxtrain.facts.models import TransformerFacts
from ltxtrain.facts.peaks import Arithmetic, peak_flops
from ltxtrain.plan.flops import Flops, Trained, sample_flops
from ltxtrain.plan.order import Batch

REGULARISED = 1  # more forward passes of a sample that is compared with the untouched model


@dataclass(frozen=True)
class Gauge:
    """``peak`` is in operations a second; None where the device's is not known."""

    model: TransformerFacts
    trained: Trained
    peak: float | None

    def told(self, batches: Iterable[tuple[Batch, bool]], seconds: float) -> dict[str, float | None]:
        """``{"tflops": ..., "mfu": ...}`` of a step that took ``seconds``.

        Each batch comes with whether its data set is regularisation, which takes one more forward pass. What
        checkpointing computes again and dequantising are not counted: they are the price of memory, no work.
        """
        done = sum(len(batch.samples) * self._useful(batch, regularised) for batch, regularised in batches)
        return {"tflops": done / seconds / 1e12, "mfu": done / seconds / self.peak if self.peak else None}

    def _useful(self, batch: Batch, regularised: bool) -> float:
        flops = _flops(self.model, batch.samples[0].bucket.tokens, self.trained)
        return flops.useful + REGULARISED * regularised * flops.forward


@cache
def _flops(model: TransformerFacts, tokens: int, trained: Trained) -> Flops:
    return sample_flops(model, tokens, trained)


def make_gauge(model: TransformerFacts, trained: Trained, device: torch.device, section: PrecisionConfig) -> Gauge:
    """A gauge for training on ``device``. MFU is known for GPUs whose maker's figure stands in ``facts/peaks.py``."""
    if device.type != "cuda":  # ROCm's devices are called cuda as well
        return Gauge(model, trained, None)
    return Gauge(model, trained, peak_flops(torch.cuda.get_device_name(device), arithmetic_of(section)))


def arithmetic_of(section: PrecisionConfig) -> Arithmetic:
    """What most products are computed in. fp8 counts against bf16's peak, which the backward pass still runs in."""
    if section.mixed_precision == "no" or in_float32(section.base_model_precision, section.base_model_default_dtype):
        return "fp32" if section.disable_tf32 else "tf32"
    return "fp16" if section.mixed_precision == "fp16" else "bf16"
