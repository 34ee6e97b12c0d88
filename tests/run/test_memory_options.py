"""What saves memory is the same training bit for bit; what changes the arithmetic changes what is learned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ltxtrain.events import Event, StepDone
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model import offload_group
from ltxtrain.plan.records import Plan
from ltxtrain.train import iter_train
from tests.run.driving import adapter_bytes, cached, killed_after, losses, trained

PlanFor = Callable[..., Plan]
BASE: dict[str, Any] = {
    "max_train_steps": 2,
    "checkpoint_step_interval": 0,
    "lora_dropout": 0.2,  # recomputed pieces have to draw the same again
    "gradient_checkpointing": "true",
}
SAVING: list[dict[str, Any]] = [
    {"gradient_checkpointing": "false"},
    {"gradient_checkpointing_interval": 2},
    {"gradient_checkpointing_free_blocks": 1},
    {"gradient_checkpointing_segment_stride": 2},
    {"gradient_checkpointing_backend": "torch-ffn"},
    {"gradient_checkpointing_backend": "unsloth", "gradient_checkpointing_offload_prefetch": "true"},
    {"gradient_checkpointing_backend": "unsloth-ffn"},
    {"enable_group_offload": "true"},
    {"enable_group_offload": "true", "group_offload_blocks_per_group": 2},
    {"enable_group_offload": "true", "group_offload_type": "leaf_level"},
    {"enable_group_offload": "true", "base_model_precision": "nf4-bnb"},
    {"musubi_blocks_to_swap": 1},
    {"enable_model_cpu_offload": "true"},
    {"dataloader_prefetch": "true"},
    {"attention_mechanism": "native-math"},
    {"disable_tf32": "true"},
]


@pytest.fixture(scope="module")
def learned() -> dict[str, bytes]:
    return {}


@pytest.mark.parametrize("options", SAVING, ids=lambda options: "-".join(map(str, options)))
def test_what_saves_memory_or_time_is_the_same_training(
    plan_for: PlanFor, learned: dict[str, bytes], options: dict[str, Any]
) -> None:
    precision = options.get("base_model_precision", "no_change")
    if precision not in learned:
        plain = plan_for(output="plain", base_model_precision=precision, **BASE)
        trained(plain)
        learned[precision] = adapter_bytes(plain)
    plan = plan_for(**BASE | options)
    trained(plan)
    if options == {"attention_mechanism": "native-math"}:  # other kernels, which round otherwise
        assert adapter_bytes(plan) != learned[precision]
    else:
        assert adapter_bytes(plan) == learned[precision]


def test_weights_in_a_folder_train_the_same_and_leave_nothing_there(
    plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    plan = plan_for(**BASE | {"enable_group_offload": "true", "group_offload_to_disk_path": str(folder)})
    sizes: list[int] = []
    real = offload_group.save_file

    def noted(tensors: dict[str, torch.Tensor], file: Path) -> None:
        sizes.append(sum(tensor.nbytes for tensor in tensors.values()))
        real(tensors, file)

    monkeypatch.setattr(offload_group, "save_file", noted)
    trained(plan)
    assert dict(plan.disk)["offloaded weights"] == pytest.approx(sum(sizes), rel=0.05)
    plain = plan_for(output="plain", **BASE)
    trained(plain)
    assert adapter_bytes(plan) == adapter_bytes(plain)
    assert list(folder.rglob("*")) == []


def test_a_base_that_stays_in_float32_beside_its_quantised_layers(plan_for: PlanFor) -> None:
    """The option does something, and only something small: what is computed beside those layers is in float32."""
    options = BASE | {"base_model_precision": "int8-quanto", "mixed_precision": "bf16", "vae_dtype": "fp32"}
    plain, other = plan_for(output="plain", **options), plan_for(base_model_default_dtype="fp32", **options)
    first, second = (steps(trained(plan)) for plan in (plain, other))
    assert first != second
    assert [one.loss for one in second] == pytest.approx([one.loss for one in first], rel=0.02)


def steps(events: list[Event]) -> list[StepDone]:
    return [event for event in events if isinstance(event, StepDone)]


def test_half_precision_trains_near_single_precision(plan_for: PlanFor) -> None:
    half, single = plan_for(mixed_precision="fp16"), plan_for(output="single")
    first, second = steps(trained(half)), steps(trained(single))
    assert [one.loss for one in first] == pytest.approx([one.loss for one in second], rel=0.02)
    assert losses(list(first)) != losses(list(second))
    assert [one.grad_norm for one in first] == pytest.approx([one.grad_norm for one in second], rel=0.1)


def test_an_overflow_in_half_precision_is_computed_again_with_a_lower_scale(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltxtrain.learn import loss_scale

    plain = plan_for(output="plain", mixed_precision="fp16", max_train_steps=2)
    trained(plain)
    monkeypatch.setattr(loss_scale.LossScale, "__init__", start_at(2.0**30))
    plan = plan_for(mixed_precision="fp16", max_train_steps=2, checkpoint_step_interval=1)
    events = steps(trained(plan))
    assert len(events) == 2 and all(torch.isfinite(torch.tensor(one.grad_norm)) for one in events)
    state = (plan.run_dir / "checkpoints" / "step-00000001" / "state.json").read_text()
    assert '"loss_scale"' in state and str(2.0**30) not in state, "it was lowered, and stands in the checkpoint"


def start_at(value: float) -> Callable[..., None]:
    def start(self: Any, value: float = value, good: int = 0) -> None:
        self.value, self.good = value, good

    return start


def test_half_precision_goes_on_with_the_scale_that_it_had(plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch) -> None:
    from ltxtrain.learn import loss_scale

    monkeypatch.setattr(loss_scale, "GROWS_AFTER", 3)
    straight, killed = (plan_for(output=name, mixed_precision="fp16") for name in ("straight", "killed"))
    trained(straight)
    killed_after(killed, 3)  # its last checkpoint is of step 2
    run = iter_train(killed, cached(killed), StopFlag())
    events = list(run)
    assert len(steps(events)) == 2
    assert adapter_bytes(killed) == adapter_bytes(straight)
    ends = [(plan.run_dir / "checkpoints" / "step-00000004" / "state.json").read_text() for plan in (straight, killed)]
    assert all('"good": 1' in state and f'"value": {2.0**17}' in state for state in ends)


@pytest.mark.slow
def test_compiled_blocks_train_as_they_do_uncompiled(plan_for: PlanFor) -> None:
    """With the back end that builds nothing, so that no compiler is needed."""
    options = {"dynamo_backend": "aot_eager", "max_train_steps": 2, "dynamo_use_regional_compilation": "true"}
    plain, compiled = plan_for(output="plain", max_train_steps=2), plan_for(**options)
    first, second = (steps(trained(plan)) for plan in (plain, compiled))
    assert [one.loss for one in second] == pytest.approx([one.loss for one in first], rel=1e-4)
