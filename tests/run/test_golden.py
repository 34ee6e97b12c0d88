"""Golden losses: a change that should not change numbers leaves them bit-identical.

They hold for one torch release and one kind of processor; elsewhere the test is skipped. After a change that
is meant to change numbers: ``GOLDEN_WRITE=1 pytest tests/run/test_golden.py``, and say in the changelog why.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ltxtrain.facts.machine import probe_machine
from ltxtrain.plan.records import Plan
from tests.run.driving import losses, trained

GOLDEN = Path(__file__).parent / "golden_losses.json"
CASES = {
    "smoke": {},
    "bf16": {"mixed_precision": "bf16", "vae_dtype": "bf16"},
    "everything": {
        "gradient_accumulation_steps": 2,
        "lora_dropout": 0.1,
        "ltx_i2v_prob": 0.5,
        "caption_dropout_probability": 0.5,
        "flow_schedule_auto_shift": "true",
        "lr_scheduler": "cosine",
        "grad_clip_method": "value",
        "max_grad_norm": 0.01,
    },
}


def place() -> str:
    release = torch.__version__.split("+")[0]
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"torch {release}, {kind}, {probe_machine().cpu}"  # the same instructions add up otherwise elsewhere


@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_that_were_written_down(plan_for: Callable[..., Plan], case: str) -> None:
    found = losses(trained(plan_for(max_train_steps=6, checkpoint_step_interval=0, **CASES[case])))
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("GOLDEN_WRITE"):
        golden.setdefault(place(), {})[case] = found
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
    if place() not in golden:
        pytest.skip(f"no golden losses for {place()}")
    assert found == golden[place()][case]
