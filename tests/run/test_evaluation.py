"""The loss on clips that are held out: when it is measured, that it is stable, and that it disturbs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.errors import Interrupted, LtxtrainError
from ltxtrain.events import POOLED, EvalLoss, Event, Notice, StageProgress, StepDone
from ltxtrain.learn.evaluation import evaluation_sets
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.train import iter_train
from tests.run.driving import adapter_bytes, cached, killed_after, losses, trained

PlanFor = Callable[..., Plan]
ListFor = Callable[..., Path]
HELD = {"clips": {}, "held": {"dataset_type": "eval"}}
QUICK: dict[str, Any] = {"eval_timesteps": 3, "num_eval_images": 2, "max_train_steps": 6, "lora_dropout": 0.2}


def measured(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.step, event.dataset) for event in events if isinstance(event, EvalLoss)]


def written(plan: Plan) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (plan.run_dir / "evaluations.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_measuring_leaves_training_bit_for_bit_as_it_is(plan_for: PlanFor, list_for: ListFor) -> None:
    listed = list_for(**HELD)
    off = plan_for(output="off", data_backend_config=listed, eval_loss_disable="true", **QUICK)
    on = plan_for(output="on", data_backend_config=listed, eval_steps_interval=1, **QUICK)
    without, events = trained(off), trained(on)
    assert not measured(without) and not (off.run_dir / "evaluations.jsonl").exists()
    assert measured(events) == [(step, "held") for step in range(7)]
    assert losses(events) == losses(without)
    assert adapter_bytes(on) == adapter_bytes(off)
    assert written(on) == [
        {"step": event.step, "dataset": event.dataset, "loss": event.loss, "by_sigma": event.by_sigma}
        for event in events
        if isinstance(event, EvalLoss)
    ]


def test_the_same_weights_measure_the_same_again(plan_for: PlanFor, list_for: ListFor) -> None:
    """No dropout is at work in it, and nothing that happened before matters."""
    plan = plan_for(data_backend_config=list_for(**HELD), **QUICK | {"lora_dropout": 0.5})
    once = [event for event in trained(plan) if isinstance(event, EvalLoss)][-1]
    (plan.run_dir / "evaluations.jsonl").unlink()
    again = [event for event in trained(plan) if isinstance(event, EvalLoss)]
    assert [(event.step, event.loss, event.by_sigma) for event in again] == [(6, once.loss, once.by_sigma)]


def test_the_untouched_model_measures_the_same_whatever_the_seed_and_dropout(
    plan_for: PlanFor, list_for: ListFor
) -> None:
    listed, found = list_for(**HELD), []
    for seed in (1, 2):
        options = QUICK | {"seed": seed, "max_train_steps": 1, "lora_dropout": 0.4 * (seed - 1)}
        events = trained(plan_for(output=f"seed{seed}", data_backend_config=listed, **options))
        found.append([(event.loss, event.by_sigma) for event in events if isinstance(event, EvalLoss)])
    assert found[0][0] == found[1][0], "step 0: the adapter changes nothing yet"
    assert found[0][1] != found[1][1]
    loss, by_sigma = found[0][0]
    assert len(by_sigma) == 3 and loss == pytest.approx(sum(by_sigma.values()) / 3)
    assert max(map(float, by_sigma)) == 1.0


def test_intervals_in_epochs_the_chosen_set_and_the_pooled_figure(plan_for: PlanFor, list_for: ListFor) -> None:
    """Three clips in batches of two: an epoch is two steps."""
    two = list_for(clips={}, held={"dataset_type": "eval"}, late={"dataset_type": "eval"})
    options = QUICK | {"max_train_steps": 5, "eval_epoch_interval": 1, "num_eval_images": 1, "eval_timesteps": 1}
    every = trained(plan_for(output="every", data_backend_config=two, eval_dataset_pooling="true", **options))
    names = ("held", "late", POOLED)
    assert measured(every) == [(step, name) for step in (0, 2, 4, 5) for name in names]
    first = {event.dataset: event.loss for event in every if isinstance(event, EvalLoss) and event.step == 0}
    assert first[POOLED] == pytest.approx((first["held"] + first["late"]) / 2)
    one = trained(plan_for(output="one", data_backend_config=two, eval_dataset_id="late", **options))
    assert measured(one) == [(step, "late") for step in (0, 2, 4, 5)]


def test_a_run_that_is_killed_measures_the_same_and_writes_no_line_twice(plan_for: PlanFor, list_for: ListFor) -> None:
    listed = list_for(**HELD)
    options = QUICK | {"eval_steps_interval": 2, "checkpoint_step_interval": 2}
    straight = plan_for(output="straight", data_backend_config=listed, **options)
    trained(straight)
    broken = plan_for(output="broken", data_backend_config=listed, **options)
    for event in iter_train(broken, cached(broken), StopFlag()):
        if isinstance(event, EvalLoss) and event.step == 2:
            break  # right after an evaluation
    killed_after(broken, 4)  # right before the next one, with its checkpoint not saved
    killed_after(broken, 5)
    trained(broken)
    assert written(broken) == written(straight)
    assert [line["step"] for line in written(broken)] == [0, 2, 4, 6]


def test_a_stop_in_an_evaluation_saves_the_step_and_the_next_start_makes_it_up(
    plan_for: PlanFor, list_for: ListFor
) -> None:
    options = QUICK | {"eval_steps_interval": 3, "checkpoint_step_interval": 0}
    plan = plan_for(data_backend_config=list_for(**HELD), **options)
    stop, seen = StopFlag(), []
    with pytest.raises(Interrupted):
        for event in iter_train(plan, cached(plan), stop):
            seen.append(event)
            trains = any(isinstance(each, StepDone) for each in seen)
            if trains and isinstance(event, StageProgress) and event.stage == "evaluation":
                stop.request(15)
    assert measured(seen) == [(0, "held")]
    assert measured(trained(plan)) == [(3, "held"), (6, "held")]
    assert [line["step"] for line in written(plan)] == [0, 3, 6]


def test_a_set_that_is_added_at_a_later_start_is_measured_and_the_others_not_again(
    plan_for: PlanFor, list_for: ListFor
) -> None:
    options = QUICK | {"max_train_steps": 2, "eval_timesteps": 1, "eval_dataset_pooling": "true"}
    trained(plan_for(data_backend_config=list_for(clips={}, held={"dataset_type": "eval"}), **options))
    more = list_for(clips={}, held={"dataset_type": "eval"}, late={"dataset_type": "eval"})
    plan = plan_for(data_backend_config=more, **options)
    assert measured(trained(plan)) == [(2, "late")]
    lines = [(line["step"], line["dataset"]) for line in written(plan)]
    assert lines == [(0, "held"), (0, POOLED), (2, "held"), (2, POOLED), (2, "late")]
    assert measured(trained(plan)) == []


def test_a_loss_that_is_not_finite_is_refused_and_no_line_of_it_is_written(
    plan_for: PlanFor, list_for: ListFor
) -> None:
    plan = plan_for(data_backend_config=list_for(**HELD), **QUICK | {"eval_steps_interval": 2})
    training = iter_train(plan, cached(plan), StopFlag())
    with pytest.raises(LtxtrainError, match=r"evaluation loss of held after step 2 is (nan|inf)") as caught:
        for event in training:
            if isinstance(event, StepDone) and event.step == 2:
                transformer = training.gi_frame.f_locals["run"].transformer  # type: ignore[attr-defined]
                transformer.proj_out.bias.data.fill_(float("inf"))
    assert "held/" in caught.value.message and caught.value.hint
    assert [line["step"] for line in written(plan)] == [0]


def test_what_the_last_measurement_met_is_told(plan_for: PlanFor, list_for: ListFor, tmp_path: Path) -> None:
    options = QUICK | {"max_train_steps": 1, "num_eval_images": 1}
    plan = plan_for(data_backend_config=list_for(**HELD), cache_dir=tmp_path / "cache", **options)
    trained(plan)
    (plan.run_dir / "evaluations.jsonl").unlink()
    prepared = cached(plan)
    for path in (tmp_path / "cache" / "latents").rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-9] ^= 1
        path.write_bytes(content)
    events = list(iter_train(plan, prepared, StopFlag()))
    told = [event.message for event in events if isinstance(event, Notice) and event.level == "warning"]
    assert measured(events) == [(1, "held")]
    assert told and all(line.startswith("the cache entry of held/") for line in told)


def test_batches_of_a_held_out_set_are_as_large_as_its_entry_or_the_budget_of_tokens_says(
    plan_for: PlanFor, list_for: ListFor
) -> None:
    def counts(held: dict[str, Any], **options: Any) -> list[int]:
        plan = plan_for(data_backend_config=list_for(clips={}, held={"dataset_type": "eval", **held}), **options)
        return [len(batch.samples) for batch in evaluation_sets(plan)["held"]]

    assert counts({}) == [2, 2, 1]
    assert counts({"train_batch_size": 4}) == [4, 1]
    tokens = plan_for().samples[0].bucket.tokens
    assert counts({}, train_batch_tokens=3 * tokens) == [3, 2]
    assert counts({"train_batch_size": 1}, train_batch_tokens=3 * tokens) == [1] * 4, "num_eval_images"
