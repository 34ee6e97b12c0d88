"""Runs over a base model, and a text encoder, whose weights are kept in a few bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ltxtrain.config.formats import FORMATS, WORKING
from ltxtrain.events import Event, Notice, StepDone
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.precompute import iter_precompute
from ltxtrain.train import iter_train
from tests.run.driving import adapter_bytes, cached, drain, killed_after, trained

PlanFor = Callable[..., Plan]
ON_A_CPU = [name for name in WORKING if "cpu" in FORMATS[name].verdict.on and name != "no_change"]
BASE: dict[str, Any] = {"max_train_steps": 2, "checkpoint_step_interval": 0, "lr_scheduler": "constant"}


def first_loss(events: list[Event]) -> float:
    return next(event.loss for event in events if isinstance(event, StepDone))


def notices(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


def weights(plan: Plan) -> bytes:
    trained(plan)
    return adapter_bytes(plan)


def test_an_adapter_learns_over_the_base_in_each_format(plan_for: PlanFor) -> None:
    """The first loss is that of the base as it was, but for a part of the share that the format loses of it."""
    plain = first_loss(trained(plan_for(output="plain", **BASE)))
    found = set()
    for name in ON_A_CPU:
        plan = plan_for(output=name, **BASE, base_model_precision=name)
        events = trained(plan)
        assert first_loss(events) == pytest.approx(plain, rel=0.2 * FORMATS[name].error)
        assert f"transformer: 20 linear layers in {name}, " in notices(events)
        found.add(adapter_bytes(plan))
    assert len(found) == len(ON_A_CPU) == 7


def test_a_run_over_nf4_that_was_killed_ends_as_if_it_had_not_been(plan_for: PlanFor) -> None:
    options = BASE | {"max_train_steps": 4, "checkpoint_step_interval": 2, "base_model_precision": "nf4-bnb"}
    whole = weights(plan_for(output="whole", **options))
    plan = plan_for(output="killed", **options)
    killed_after(plan, 3)
    drain(iter_train(plan, cached(plan), StopFlag()))
    assert adapter_bytes(plan) == whole


def test_where_layers_are_quantised_changes_nothing(plan_for: PlanFor) -> None:
    options = BASE | {"base_model_precision": "int4-quanto"}
    found = {weights(plan_for(output=via, **options, quantize_via=via)) for via in ("cpu", "accelerator", "pipeline")}
    assert len(found) == 1


def test_captions_are_encoded_anew_in_another_format(plan_for: PlanFor) -> None:
    plain = weights(plan_for(output="plain", **BASE))
    plan = plan_for(output="quantised", **BASE, text_encoder_1_precision="nf4-bnb")
    events: list[Event] = []
    drain(iter_precompute(plan, StopFlag()), events)
    assert "text encoder: 14 linear layers in nf4-bnb, " in notices(events)
    assert weights(plan) != plain
