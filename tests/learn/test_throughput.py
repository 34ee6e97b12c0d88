"""TFLOP/s and MFU, against arithmetic by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ltxtrain.config.compute import PrecisionConfig
from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.learn.throughput import Gauge, arithmetic_of, make_gauge
from ltxtrain.plan.flops import Trained
from ltxtrain.plan.order import Batch
from ltxtrain.plan.records import Bucket
from ltxtrain.plan.targets import DEFAULT_TARGETS

LTX_2B = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"].transformer
LORA = Trained(16, DEFAULT_TARGETS)


def batch_of(count: int, bucket: Bucket) -> Batch:
    return Batch(0, 0, (SimpleNamespace(bucket=bucket),) * count, "clips")  # type: ignore[arg-type]


def test_a_step_of_58_milliseconds_is_two_fifths_of_an_h100() -> None:
    """The published anchor: 23.07 TFLOP for one clip of 768x512x49, at 40 % of 989 TFLOP/s."""
    told = Gauge(LTX_2B, LORA, 989.4e12).told([(batch_of(1, Bucket(768, 512, 49)), False)], 0.0583)
    assert told["mfu"] == pytest.approx(0.40, abs=0.001)
    assert told["tflops"] == pytest.approx(23.07 / 0.0583, rel=1e-3)


def test_samples_batches_and_passes_of_the_untouched_model_add_up() -> None:
    gauge = Gauge(LTX_2B, LORA, None)
    small, large = Bucket(480, 480, 49), Bucket(768, 512, 121)
    told = gauge.told([(batch_of(3, small), False), (batch_of(2, large), True)], 2.0)
    assert told["tflops"] == pytest.approx((3 * 12.34 + 2 * (67.25 + 29.25)) / 2, rel=1e-3)
    assert told["mfu"] is None


def test_a_cpu_has_no_peak() -> None:
    assert make_gauge(LTX_2B, LORA, torch.device("cpu"), PrecisionConfig()).peak is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"mixed_precision": "bf16"}, "bf16"),
        ({"mixed_precision": "fp16"}, "fp16"),
        ({"mixed_precision": "fp8", "base_model_precision": "fp8-torchao"}, "bf16"),
        ({"mixed_precision": "no"}, "tf32"),
        ({"mixed_precision": "no", "disable_tf32": True}, "fp32"),
        ({"mixed_precision": "bf16", "disable_tf32": True}, "bf16"),
        ({"base_model_precision": "nf4-bnb", "base_model_default_dtype": "fp32"}, "tf32"),
        ({"base_model_default_dtype": "fp32"}, "bf16"),
    ],
)
def test_it_counts_against_the_peak_of_the_arithmetic_in_use(options: dict[str, object], expected: str) -> None:
    assert arithmetic_of(PrecisionConfig(**options)) == expected
