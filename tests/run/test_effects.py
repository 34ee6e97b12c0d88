"""Every option that shapes training does something: changed alone, it changes the weights. What must not, does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ltxtrain.errors import LtxtrainError
from ltxtrain.events import StepDone
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.train import iter_train
from tests.run.driving import adapter_bytes, adapter_tensors, cached, drain, trained

PlanFor = Callable[..., Plan]
BASE: dict[str, Any] = {
    "max_train_steps": 3,
    "checkpoint_step_interval": 0,
    "lr_scheduler": "constant",
    "lr_warmup_steps": 0,
}

# (option, value) on top of BASE and of the options that it needs
EFFECTS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"seed": 7}, {}),
    ({"learning_rate": 1e-3}, {}),
    ({"lora_alpha": 2}, {}),
    ({"lora_dropout": 0.3}, {}),
    ({"lora_init_type": "gaussian"}, {}),
    ({"train_batch_size": 1}, {}),
    ({"gradient_accumulation_steps": 2}, {}),
    ({"caption_dropout_probability": 1.0}, {}),
    ({"framerate": 12}, {}),
    ({"ltx_i2v_prob": 1.0}, {}),
    ({"ltx_train_mode": "t2v"}, {"ltx_i2v_prob": 1.0}),
    ({"flow_schedule_shift": 4.0}, {}),
    ({"flow_schedule_auto_shift": "true"}, {}),
    ({"flow_sigmoid_scale": 0.3}, {}),
    ({"flow_use_uniform_schedule": "true"}, {}),
    ({"flow_use_beta_schedule": "true"}, {}),
    ({"flow_beta_schedule_alpha": 5.0}, {"flow_use_beta_schedule": "true"}),
    ({"flow_beta_schedule_beta": 5.0}, {"flow_use_beta_schedule": "true"}),
    ({"max_grad_norm": 1e-4}, {"grad_clip_method": "norm", "optimizer_config": "eps=0.001"}),
    ({"grad_clip_method": "value"}, {"max_grad_norm": 1e-3, "optimizer_config": "eps=0.001"}),
    ({"optimizer_beta1": 0.5, "optimizer_beta2": 0.9}, {}),
    ({"optimizer_config": "weight_decay=5"}, {}),
    ({"optimizer": "bnb-lion8bit"}, {}),
    ({"optimizer": "adamw_bf16"}, {}),
    ({"lr_scale": "true"}, {}),
    ({"lr_scale_sqrt": "true"}, {"lr_scale": "true"}),
    ({"lr_scheduler": "cosine"}, {}),
    ({"lr_scheduler": "linear"}, {}),
    ({"lr_scheduler": "sine"}, {"lr_warmup_steps": 3}),
    ({"lr_scheduler": "cosine_half_period"}, {"lr_warmup_steps": 3}),
    ({"lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 2}, {}),
    ({"lr_end": 1e-3}, {"lr_scheduler": "cosine"}),
    ({"lr_power": 3.0}, {"lr_scheduler": "polynomial"}),
    ({"lr_num_cycles": 3}, {"lr_scheduler": "cosine_with_restarts"}),
    ({"mixed_precision": "bf16"}, {}),
    ({"vae_dtype": "bf16"}, {}),
    ({"num_frames": 9}, {}),
    ({"resolution": 64}, {}),
]


@pytest.fixture(scope="module")
def remembered() -> dict[str, bytes]:
    return {}


@pytest.fixture
def trained_with(plan_for: PlanFor, remembered: dict[str, bytes]) -> Callable[..., bytes]:
    """The adapter that options give; each set of options is trained once."""

    def weights(**options: Any) -> bytes:
        key = repr(sorted(options.items()))
        if key not in remembered:
            plan = plan_for(output="before", **options)
            trained(plan)
            remembered[key] = adapter_bytes(plan)
        return remembered[key]

    return weights


@pytest.mark.parametrize(("changed", "needed"), EFFECTS, ids=lambda options: "-".join(options) or "base")
def test_the_option_changes_what_is_learned(
    plan_for: PlanFor, trained_with: Callable[..., bytes], changed: dict[str, Any], needed: dict[str, Any]
) -> None:
    after = plan_for(**BASE | needed | changed)
    trained(after)
    assert adapter_bytes(after) != trained_with(**BASE | needed)


@pytest.mark.parametrize(
    "neutral",
    [
        {"gradient_checkpointing": "false"},
        {"gradient_checkpointing_backend": "unsloth", "gradient_checkpointing_free_blocks": 1},
        {"enable_group_offload": "true"},
        {"enable_model_cpu_offload": "true"},
        {"checkpoint_step_interval": 1},
        {"compress_disk_cache": "true"},
        {"run_name": "other"},
        {"lr_end": 1e-5},  # a constant rate has no end
        {"ltx_train_mode": "i2v"},
    ],
    ids=lambda neutral: next(iter(neutral)),
)
def test_what_should_not_matter_does_not(
    plan_for: PlanFor, trained_with: Callable[..., bytes], neutral: dict[str, Any], tmp_path: Path
) -> None:
    after = plan_for(**BASE | {"cache_dir": str(tmp_path / "cache")} | neutral)
    trained(after)
    assert adapter_bytes(after) == trained_with(**BASE)


def test_gradient_checkpointing_is_really_on(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = torch.utils.checkpoint.checkpoint
    monkeypatch.setattr(torch.utils.checkpoint, "checkpoint", lambda *a, **k: calls.append(1) or real(*a, **k))
    trained(plan_for(output="off", gradient_checkpointing="false"))
    off = len(calls)
    trained(plan_for(output="on", gradient_checkpointing="true"))
    assert off == 0 and len(calls) > 0


def test_rank_and_targets_shape_the_adapter(plan_for: PlanFor) -> None:
    plan = plan_for(lora_rank=3, peft_lora_target_modules='["ff.net.2"]')
    trained(plan)
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter_tensors(plan).items()}
    assert set(shapes) == {
        f"transformer_blocks.{block}.ff.net.2.lora_{side}.weight" for block in (0, 1) for side in ("A", "B")
    }
    assert shapes["transformer_blocks.0.ff.net.2.lora_A.weight"][0] == 3


def test_weights_are_trained_in_float32_over_a_bf16_base(plan_for: PlanFor) -> None:
    plan = plan_for(mixed_precision="bf16", vae_dtype="bf16")
    trained(plan)
    assert {tensor.dtype for tensor in adapter_tensors(plan).values()} == {torch.float32}


def test_accumulated_micro_batches_show_every_clip(plan_for: PlanFor) -> None:
    """Two batches of two are one step over four clips: the mean of the losses is that of one batch of four."""
    options = BASE | {"caption_dropout_probability": 0, "ltx_i2v_prob": 0, "max_train_steps": 1}
    plan = plan_for(gradient_accumulation_steps=2, **options)
    step = next(event for event in trained(plan) if isinstance(event, StepDone))
    assert plan.accumulation == 2 and plan.steps_per_epoch == 1
    assert step.samples_per_second == pytest.approx(4 / step.seconds)


def test_a_loss_that_is_not_finite_is_refused_and_the_next_start_goes_on_before_it(plan_for: PlanFor) -> None:
    plan = plan_for(max_train_steps=4, checkpoint_step_interval=2)
    prepared = cached(plan)
    run = iter_train(plan, prepared, StopFlag())
    with pytest.raises(LtxtrainError) as refused:
        for event in run:
            if isinstance(event, StepDone) and event.step == 2:
                saved = adapter_bytes_after_save(run, plan)
                poison(run)
    assert refused.value.exit_code == 1
    assert "step 3" in refused.value.message and "nothing of this step is saved" in refused.value.message
    assert any(sample.id in refused.value.message for sample in plan.samples), "the clips are named"
    assert sorted(path.name for path in (plan.run_dir / "checkpoints").iterdir()) == ["step-00000002"]
    assert adapter_bytes(plan, 2) == saved
    trained(plan)  # and the next start goes on from there


def adapter_bytes_after_save(run: Any, plan: Plan) -> bytes:
    next(run)  # the checkpoint of this step
    return adapter_bytes(plan, 2)


def poison(run: Any) -> None:
    """Put infinity into the frozen base model, as broken memory or a broken kernel would."""
    transformer = run.gi_frame.f_locals["run"].transformer
    with torch.no_grad():
        transformer.proj_out.bias.fill_(float("inf"))


def test_no_global_random_state_is_used_or_left_changed(plan_for: PlanFor) -> None:
    import random

    import numpy as np

    first = plan_for(output="first", lora_dropout=0.2)
    trained(first)
    second = plan_for(output="second", lora_dropout=0.2)
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    drain(iter_train(second, cached(second), StopFlag()))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    assert before[2] == np.random.get_state()[1].tolist()
    assert adapter_bytes(first) == adapter_bytes(second)
