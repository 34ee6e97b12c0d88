"""Driving the recipes in this process: to the end, up to a kill, and what to compare afterwards."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import torch
from safetensors.torch import load_file

from ltxtrain.data.prepared import Prepared
from ltxtrain.events import Event, StepDone
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan
from ltxtrain.precompute import iter_precompute
from ltxtrain.train import iter_train

torch.set_num_threads(1)


def drain(events: Generator[Event, None, Any], seen: list[Event] | None = None) -> Any:
    while True:
        try:
            event = next(events)
        except StopIteration as finished:
            return finished.value
        if seen is not None:
            seen.append(event)


def cached(plan: Plan) -> Prepared:
    prepared: Prepared = drain(iter_precompute(plan, StopFlag()))
    return prepared


def trained(plan: Plan) -> list[Event]:
    """Cache and train to the end; all events of training."""
    events: list[Event] = []
    drain(iter_train(plan, cached(plan), StopFlag()), events)
    return events


def killed_after(plan: Plan, step: int) -> None:
    """Train and drop everything right after ``step``, as a kill would: nothing gets a chance to save."""
    for event in iter_train(plan, cached(plan), StopFlag()):
        if isinstance(event, StepDone) and event.step == step:
            return
    raise AssertionError(f"step {step} was never done")


def losses(events: list[Event]) -> list[str]:
    return [event.loss.hex() for event in events if isinstance(event, StepDone)]


def adapter_bytes(plan: Plan, step: int | None = None) -> bytes:
    step = plan.steps if step is None else step
    return (plan.run_dir / "checkpoints" / f"step-{step:08d}" / "adapter.safetensors").read_bytes()


def adapter_tensors(plan: Plan) -> dict[str, torch.Tensor]:
    return load_file(plan.run_dir / "checkpoints" / f"step-{plan.steps:08d}" / "adapter.safetensors")
