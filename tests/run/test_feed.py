"""Batches that a thread makes ready, and steps that are read one step late: the same run, and nothing is lost by it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ltxtrain.caching.encoders import Encoders
from ltxtrain.data.prepared import Prepared
from ltxtrain.errors import LtxtrainError, OutOfMemoryError
from ltxtrain.events import CheckpointSaved, EvalLoss, Event, Notice, StepDone
from ltxtrain.learn.optimizers import clip_gradients
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.order import order_of
from ltxtrain.plan.records import Plan
from ltxtrain.train import iter_train
from ltxtrain.training import step as step_module
from tests.run.driving import cached, drain, losses

PlanFor = Callable[..., Plan]
QUICK: dict[str, Any] = {"max_train_steps": 4, "checkpoint_step_interval": 0}


def steps_written(plan: Plan) -> list[int]:
    return [json.loads(line)["step"] for line in (plan.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_what_has_to_be_encoded_is_encoded_in_the_main_thread_and_the_losses_are_the_same(
    plan_for: PlanFor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[threading.Thread] = set()
    alone: list[bool] = []
    load, there = Encoders.load_vae, Prepared.there

    def loaded(self: Encoders) -> None:
        threads.add(threading.current_thread())
        load(self)

    def asked(self: Prepared, *what: Any) -> Any:
        found = there(self, *what)
        alone.append(found is not None)
        return found

    monkeypatch.setattr(Encoders, "load_vae", loaded)
    monkeypatch.setattr(Prepared, "there", asked)
    options = QUICK | {"gradient_accumulation_steps": 2, "train_batch_size": 1, "cache_dir": tmp_path / "cache"}
    seen: dict[str, list[Event]] = {"whole": [], "broken": []}
    for name, events in seen.items():
        plan = plan_for(output=name, **options)
        prepared = cached(plan)
        alone.clear()
        if name == "broken":
            first, second, *_ = sorted((tmp_path / "cache" / "latents").rglob("*.safetensors"))
            first.unlink()
            second.write_bytes(second.read_bytes()[:-1])
        drain(iter_train(plan, prepared, StopFlag()), events)
        assert len(alone) == 8 and all(alone) == (name == "whole")
    assert threads == {threading.main_thread()}
    assert losses(seen["broken"]) == losses(seen["whole"])
    told = [event.message for event in seen["broken"] if isinstance(event, Notice) and event.level == "warning"]
    assert sorted(message.rsplit(" ", 5)[1] for message in told) == ["damaged", "gone"]


def test_what_goes_wrong_in_the_thread_ends_the_run_at_that_step(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Sequence[Any]] = []
    there = Prepared.there

    def full(self: Prepared, *what: Any) -> Any:
        calls.append(what)
        if len(calls) == 3:
            raise MemoryError
        return there(self, *what)

    plan = plan_for(**QUICK)
    prepared = cached(plan)
    monkeypatch.setattr(Prepared, "there", full)
    with pytest.raises(OutOfMemoryError, match="machine ran out of memory while training on 2 x"):
        drain(iter_train(plan, prepared, StopFlag()))
    assert steps_written(plan) == [1, 2], "the second, too, though the third was begun before it was read"
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


DUE: dict[str, dict[str, Any]] = {
    "nothing": {},
    "a checkpoint": {"checkpoint_step_interval": 2},
    "an evaluation": {"eval_steps_interval": 2, "eval_timesteps": 1},
}


@pytest.mark.parametrize("due", DUE)
def test_what_is_not_finite_is_told_of_its_own_step_and_never_saved(
    plan_for: PlanFor, list_for: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, due: str
) -> None:
    launched: list[int] = []
    launch = step_module._launch

    def noted(run: Any, step: int, feed: Any) -> Any:
        launched.append(step)
        if step == 2:
            run.transformer.proj_out.bias.data.fill_(float("inf"))
        return launch(run, step, feed)

    monkeypatch.setattr(step_module, "_launch", noted)
    sets: dict[str, Any] = {"clips": {}, "held": {"dataset_type": "eval"}} if due == "an evaluation" else {"clips": {}}
    plan = plan_for(data_backend_config=list_for(**sets), **QUICK | DUE[due])
    events: list[Event] = []
    with pytest.raises(LtxtrainError, match=r"^the loss of step 2 is (nan|inf): .* nothing of this") as told:
        drain(iter_train(plan, cached(plan), StopFlag()), events)
    assert order_of(plan)[1].names in told.value.message and "optimizer_config" in (told.value.hint or "")
    assert launched == ([1, 2, 3] if due == "nothing" else [1, 2]), "then the next one was begun"
    assert not any(isinstance(event, CheckpointSaved) for event in events)
    assert [event.step for event in events if isinstance(event, EvalLoss)] == [0] * (due == "an evaluation")
    assert steps_written(plan) == [event.step for event in events if isinstance(event, StepDone)] == [1]


def test_a_gradient_that_is_not_finite_is_told_with_the_clips_of_all_that_were_accumulated(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def infinite(optimizer: Any, section: Any) -> torch.Tensor:
        return clip_gradients(optimizer, section) / 0

    monkeypatch.setattr(step_module, "clip_gradients", infinite)
    plan = plan_for(**QUICK | {"gradient_accumulation_steps": 2, "train_batch_size": 1})
    first, second = (order_of(plan)[number].names for number in range(2))
    assert first != second
    with pytest.raises(LtxtrainError, match=r"^the gradient of step 1 is inf") as told:
        drain(iter_train(plan, cached(plan), StopFlag()))
    assert f"(clips: {', '.join(sorted((first, second)))})" in told.value.message
    monkeypatch.setattr(step_module, "NAMED", 1)
    assert step_module._names([order_of(plan)[number] for number in range(2)]) == f"{min(first, second)} and 1 more"
