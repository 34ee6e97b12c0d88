"""Optimisers in the real recipe: stopped and resumed, with a rate that changes, and each on a tiny transformer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.config.optim import OptimizerConfig, OptimizerName
from ltxtrain.config.optimizers import OPTIMIZERS, adapter_dtype
from ltxtrain.errors import LtxtrainError
from ltxtrain.learn.checkpoint import load_checkpoint
from ltxtrain.learn.optimizers import evaluating, make_optimizer
from ltxtrain.model.adapter import AdapterSpec, adapter_weights, attach_adapter
from ltxtrain.model.render import render_video
from ltxtrain.model.transformer import predict_velocity
from ltxtrain.plan.records import Plan
from ltxtrain.plan.text import render_plan
from ltxtrain.training.step import compare
from tests.run.driving import adapter_bytes, adapter_tensors, killed_after, trained
from tests.small import draw, small_transformer

PlanFor = Callable[..., Plan]
WORKING = [name for name in get_args(OptimizerName) if "cpu" in OPTIMIZERS[name].verdict.on]
OF_EACH_KIND: list[dict[str, Any]] = [
    {"optimizer": "adamw_bf16"},
    {"optimizer": "bnb-lion8bit-paged", "optimizer_config": "min_8bit_size=64"},
    {"optimizer": "adamw_schedulefree"},
]


@pytest.mark.parametrize("options", OF_EACH_KIND, ids=lambda options: options["optimizer"])
def test_a_run_that_is_killed_and_goes_on_ends_with_the_same_bytes(plan_for: PlanFor, options: dict[str, Any]) -> None:
    straight = plan_for(output="straight", **options)
    trained(straight)
    killed = plan_for(output="killed", **options)
    killed_after(killed, 3)  # its last checkpoint is of step 2
    trained(killed)
    assert adapter_bytes(killed) == adapter_bytes(straight)
    assert (killed.run_dir / "checkpoints" / "step-00000004" / "optimizer.safetensors").read_bytes() == (
        straight.run_dir / "checkpoints" / "step-00000004" / "optimizer.safetensors"
    ).read_bytes()
    # So that what is exported can be rendered as the run's own validation renders it.
    about = load_checkpoint(killed.run_dir / "checkpoints" / "step-00000004").state["about"]
    assert about["adapter_dtype"] == adapter_dtype(options["optimizer"])


def test_where_and_when_the_update_is_computed_changes_no_byte_of_a_run(plan_for: PlanFor) -> None:
    """Blocks are recomputed while others have been updated already."""
    options = {"max_grad_norm": 0, "gradient_checkpointing": "true"}
    straight = plan_for(output="straight", **options)
    trained(straight)
    moved = {"optimizer_cpu_offload_method": "torchao", "optimizer_offload_gradients": "true"}
    killed = plan_for(output="killed", **options, **moved)
    assert "optimizer_cpu_offload_method saves nothing on a CPU, whose memory is the main memory" in killed.notices
    killed_after(killed, 3)
    killed = plan_for(output="killed", **options, optimizer_release_gradients="true")
    trained(killed)
    assert adapter_bytes(killed) == adapter_bytes(straight)
    told, its = (
        [json.loads(line) for line in (plan.run_dir / "metrics.jsonl").read_text().splitlines()]
        for plan in (straight, killed)
    )
    assert [line["grad_norm"] for line in its] == [line["grad_norm"] for line in told]


def test_a_saved_adapter_is_the_mean_that_schedule_free_training_stands_for(plan_for: PlanFor) -> None:
    plain, free = (
        plan_for(output=name, optimizer=name, max_train_steps=1, checkpoint_step_interval=1)
        for name in ("torch-adamw", "adamw_schedulefree")
    )
    trained(plain)
    trained(free)
    # After one step the mean is the one point that there is, which the step of AdamW reaches, too.
    for name, weight in adapter_tensors(free).items():
        assert torch.allclose(weight, adapter_tensors(plain)[name], atol=1e-5), name


def test_validation_shows_the_adapter_that_is_saved(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which schedule-free training does not train itself."""
    shown: list[dict[str, torch.Tensor]] = []

    def noted(pipeline: Any, *rest: Any) -> Any:
        shown.append(adapter_weights(pipeline.transformer))
        return render_video(pipeline, *rest)

    monkeypatch.setattr("ltxtrain.training.validation.render_video", noted)
    options = {"validation_disable": "false", "validation_step_interval": 2, "validation_num_inference_steps": 2}
    plan = plan_for(optimizer="adamw_schedulefree", max_train_steps=2, **options)
    trained(plan)
    saved = adapter_tensors(plan)
    assert shown and all(torch.equal(shown[-1][name], saved[name]) for name in saved)


@pytest.mark.parametrize(
    ("options", "bias", "told"),
    [
        ({"optimizer_config": "weight_decay=1e30"}, 0.0, r"a trial update of torch-radam made .*weight_decay=1e30\)"),
        (
            {"optimizer": "torch-sgd", "optimizer_config": "weight_decay=3e38", "learning_rate": 10},
            0.0,
            "of torch-sgd made",
        ),
        ({"optimizer": "soap"}, math.inf, r"the loss of a trial batch is (nan|inf) "),
        ({"mixed_precision": "fp16"}, math.inf, r"the loss of a trial batch is (nan|inf) \(mixed_precision fp16"),
    ],
)
def test_what_is_not_finite_in_the_trial_is_told_before_the_first_step(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], bias: float, told: str
) -> None:
    def poisoned(run: Any, *rest: Any) -> Any:
        run.transformer.proj_out.bias.data += bias
        return compare(run, *rest)

    monkeypatch.setattr("ltxtrain.training.trial.compare", poisoned)
    plan = plan_for(**{"optimizer": "torch-radam"} | options)
    with pytest.raises(LtxtrainError, match=told) as caught:
        trained(plan)
    assert caught.value.hint and not (plan.run_dir / "metrics.jsonl").exists()


def test_gradients_that_overflow_in_the_trial_are_left_to_the_loss_scale(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales = iter((1e9, 1.0))
    monkeypatch.setattr("ltxtrain.training.trial.compare", lambda *given: compare(*given) * next(scales))
    plan = plan_for(mixed_precision="fp16", max_train_steps=1, gradient_accumulation_steps=1)
    trained(plan)
    assert len((plan.run_dir / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_rate_changed_at_a_resume_is_used(plan_for: PlanFor) -> None:
    changed = plan_for(output="changed", optimizer="prodigy", learning_rate=1)
    killed_after(changed, 3)
    trained(plan_for(output="changed", optimizer="prodigy", learning_rate=0.5))
    straight = plan_for(output="straight", optimizer="prodigy", learning_rate=1)
    trained(straight)
    assert adapter_bytes(changed) != adapter_bytes(straight)
    assert adapter_bytes(changed, 2) == adapter_bytes(straight, 2)


def test_the_plan_tells_the_rate_that_lr_scale_makes(plan_for: PlanFor) -> None:
    options = {"learning_rate": 1e-4, "train_batch_size": 2, "gradient_accumulation_steps": 2}
    assert "peak 0.0001\n" in render_plan(plan_for(**options))
    assert "peak 0.0004\n" in render_plan(plan_for(**options, lr_scale="true"))
    assert "peak 0.0002\n" in render_plan(plan_for(**options, lr_scale="true", lr_scale_sqrt="true"))


NOISY, SIGMA = draw(2, 128, 3, 2, 4, seed=1), torch.tensor([0.25, 0.8])
TEXT, MASK, TARGET = draw(2, 16, 32, seed=2), torch.ones(2, 16, dtype=torch.bool), draw(2, 128, 3, 2, 4, seed=3)


def loss_of(transformer: LTXVideoTransformer3DModel) -> torch.Tensor:
    return (predict_velocity(transformer, NOISY, SIGMA, TEXT, MASK, 25.0) - TARGET).square().mean()


@pytest.mark.parametrize("name", WORKING)
def test_each_name_trains_a_tiny_transformer(name: str) -> None:
    transformer = small_transformer(2, 32, 32)
    dtype = getattr(torch, adapter_dtype(name))
    parameters = attach_adapter(transformer, AdapterSpec(64, 64.0, 0.0, ("to_q", "to_v")), 3, dtype)
    assert all(parameter.numel() >= 4096 for parameter in parameters.values())  # so that 8-bit states are
    rate = {"prodigy": 1.0, "torch-adadelta": 1.0, "torch-sgd": 0.1, "torch-asgd": 0.1, "optimi-sgd": 0.1}
    section = OptimizerConfig(optimizer=name, learning_rate=rate.get(name, 3e-3))  # type: ignore[arg-type]
    optimizer = make_optimizer(parameters, section, 1)
    before = loss_of(transformer).item()
    for _ in range(4):
        loss_of(transformer).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    with evaluating(optimizer):
        assert loss_of(transformer).item() < before
