"""Options that make training faster leave what is trained as it is."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from ltxtrain import train as train_module
from ltxtrain.data.prepared import Prepared
from ltxtrain.events import Event, StepDone
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.order import Batch
from ltxtrain.plan.records import Plan, Sample
from ltxtrain.train import iter_train
from ltxtrain.training import step as step_module
from ltxtrain.training.feed import Feed, Ready
from ltxtrain.training.run import Run
from ltxtrain.training.step import Launched
from tests.run.driving import adapter_bytes, cached, drain, trained
from tests.waiting import Waiting

PlanFor = Callable[..., Plan]
BASE: dict[str, Any] = {"max_train_steps": 2, "checkpoint_step_interval": 0}


@pytest.fixture
def compiler() -> Iterator[None]:
    limits = torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit
    counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.config.recompile_limit, torch._dynamo.config.accumulated_recompile_limit = limits


@pytest.mark.usefixtures("compiler")
def test_compiled_blocks_train_the_same_weights(plan_for: PlanFor) -> None:
    # One step and nothing else: each shape takes seconds to be traced.
    short = {
        "max_train_steps": 1,
        "checkpoint_step_interval": 0,
        "validation_disable": "true",
        "train_batch_size": 1,
        "ltx_i2v_prob": 0,
    }
    plain, compiled = plan_for(output="plain", **short), plan_for(output="compiled", dynamo_backend="eager", **short)
    trained(plain)
    assert not counters["stats"]
    trained(compiled)
    assert counters["stats"]["unique_graphs"] > 0
    assert adapter_bytes(compiled) == adapter_bytes(plain)


class Kernels(TorchDispatchMode):
    """Whether the kernel of attention that PyTorch chooses on a CPU was asked for."""

    flash = False

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        self.flash |= "scaled_dot_product_flash_attention_for_cpu" in str(function)
        return function(*given, **(named or {}))


def test_attention_in_plain_products_trains_the_same_but_for_rounding(plan_for: PlanFor) -> None:
    found = {}
    for name, kernel in (("diffusers", True), ("native-math", False)):
        plan = plan_for(output=name, attention_mechanism=name, **BASE)
        prepared = cached(plan)
        events: list[Event] = []
        with Kernels() as asked:
            drain(iter_train(plan, prepared, StopFlag()), events)
        assert asked.flash == kernel
        found[name] = [event.loss for event in events if isinstance(event, StepDone)]
        lines = [json.loads(line) for line in (plan.run_dir / "metrics.jsonl").read_text().splitlines()]
        assert all(line["tflops"] > 0 and line["mfu"] is None for line in lines)
    assert found["native-math"] == pytest.approx(found["diffusers"], rel=1e-4)


EVERYTHING = {
    "gradient_accumulation_steps": 2,
    "train_batch_size": 1,
    "lora_dropout": 0.1,
    "ltx_i2v_prob": 1,
    "max_grad_norm": 0.01,
    "gradient_checkpointing": "true",
}
SLOW_S = 0.5
TWO = {"gradient_accumulation_steps": 2, "train_batch_size": 1}


def test_nothing_waits_for_the_device_while_a_step_is_launched_and_it_is_read_after_the_next_one(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the update only this optimiser's: see tests/learn/test_waits.py for the others."""
    seen: list[tuple[str, int]] = []
    found: list[str] = []
    launch, told, send, to_list = step_module._launch, step_module._told, Ready.sent, torch.Tensor.tolist

    def launched(run: Run, step: int, feed: Feed) -> Any:
        seen.append(("launched", step))
        with Waiting([*run.transformer.parameters(), *run.transformer.buffers()]) as waiting:

            def sent(ready: Ready, device: torch.device) -> Ready:
                there = send(ready, device)
                waiting.know(part for part in vars(there).values() if isinstance(part, torch.Tensor))
                return there

            def listed(tensor: torch.Tensor) -> Any:
                waiting.found.extend(["tolist"] * (threading.current_thread() is threading.main_thread()))
                return to_list(tensor)

            with monkeypatch.context() as patched:
                patched.setattr(Ready, "sent", sent)
                patched.setattr(torch.Tensor, "tolist", listed)
                result = launch(run, step, feed)
        found.extend(waiting.found)
        return result

    def read(run: Run, last: Launched, seconds: float) -> StepDone:
        seen.append(("read", last.step))
        return told(run, last, seconds)

    plan = plan_for(**BASE | EVERYTHING | {"max_train_steps": 3})
    monkeypatch.setattr(step_module, "_launch", launched)
    monkeypatch.setattr(step_module, "_told", read)
    events: list[Event] = []
    drain(iter_train(plan, cached(plan), StopFlag()), events)
    assert seen == [("launched", 1), ("launched", 2), ("read", 1), ("launched", 3), ("read", 2), ("read", 3)]
    assert found == []


@pytest.mark.parametrize("interval", [0, 2])
def test_each_step_has_its_own_seconds_and_those_of_waiting_for_its_data(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch, interval: int
) -> None:
    """Step 2 waits for the first of its two batches. After it comes a checkpoint that is slow as well, or none."""
    take, save = Feed.take, train_module.save_checkpoint

    def taken(feed: Feed, batch: Batch) -> Ready:
        time.sleep(SLOW_S * (batch.index == 2))
        return take(feed, batch)

    def saved(*given: Any) -> Any:
        time.sleep(SLOW_S)
        return save(*given)

    plan = plan_for(**BASE | {"max_train_steps": 3, "checkpoint_step_interval": interval} | TWO)
    monkeypatch.setattr(Feed, "take", taken)
    monkeypatch.setattr(train_module, "save_checkpoint", saved)
    events: list[Event] = []
    drain(iter_train(plan, cached(plan), StopFlag()), events)
    first, second, third = (event for event in events if isinstance(event, StepDone))
    assert second.seconds >= second.data_seconds >= SLOW_S
    assert first.data_seconds < SLOW_S > third.seconds


@pytest.mark.parametrize(("options", "expected"), [({}, 2), ({"dataloader_prefetch": "true"}, 10)])
def test_so_many_batches_are_read_before_the_first_step(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], expected: int
) -> None:
    """The first of them is made ready at once, in the thread that reads the last of them ahead."""
    read: list[Sequence[Sample]] = []
    before: list[int] = []
    ahead, there = Prepared.ahead, Prepared.there

    def noted(self: Prepared, samples: Sequence[Sample]) -> None:
        read.append(samples)
        ahead(self, samples)

    def asked(self: Prepared, samples: Sequence[Sample], texts: Sequence[str]) -> Any:
        before.append(len(read))
        return there(self, samples, texts)

    plan = plan_for(**BASE | {"max_train_steps": 12}, **options)
    prepared = cached(plan)
    monkeypatch.setattr(Prepared, "ahead", noted)
    monkeypatch.setattr(Prepared, "there", asked)
    events = iter_train(plan, prepared, StopFlag())
    while not isinstance(next(events), StepDone):
        pass
    events.close()
    assert before[:2] == [expected, expected + 1]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")], "it ends with the run"
