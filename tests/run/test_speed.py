"""Options that make training faster leave what is trained as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters
from torch.utils._python_dispatch import TorchDispatchMode

from ltxtrain.data.prepared import Prepared
from ltxtrain.events import Event, StepDone
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.records import Plan, Sample
from ltxtrain.train import iter_train
from tests.run.driving import adapter_bytes, cached, drain, trained

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


class Reads(TorchDispatchMode):
    """How often a number was read of a tensor, for which a device is waited for. Not truths: those are of the masks of
    captions, which are looked at in main memory."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default and given[0].dtype != torch.bool
        return function(*given, **(named or {}))


@pytest.mark.parametrize("optimizer", ["bnb-adamw8bit", "adamw_bf16"])
def test_the_device_is_waited_for_once_in_a_step(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """With two batches to the step, and the update with it."""
    lists: list[int] = []
    plain = torch.Tensor.tolist

    def noted(self: torch.Tensor) -> Any:
        lists.append(self.numel())
        return plain(self)

    options = {"optimizer": optimizer, "gradient_accumulation_steps": 2, "train_batch_size": 1, "ltx_i2v_prob": 0}
    plan = plan_for(**BASE | options)
    events = iter_train(plan, cached(plan), StopFlag())
    while not isinstance(next(events), StepDone):
        pass
    monkeypatch.setattr(torch.Tensor, "tolist", noted)
    with Reads() as reads:
        assert isinstance(next(events), StepDone)
    events.close()
    assert lists == [3]  # two losses and the norm
    assert reads.count == 0


@pytest.mark.parametrize(("options", "expected"), [({}, 2), ({"dataloader_prefetch": "true"}, 10)])
def test_so_many_batches_are_read_before_the_first_step(
    plan_for: PlanFor, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], expected: int
) -> None:
    read: list[Sequence[Sample]] = []
    ahead = Prepared.ahead

    def noted(self: Prepared, samples: Sequence[Sample]) -> None:
        read.append(samples)
        ahead(self, samples)

    plan = plan_for(**BASE | {"max_train_steps": 12}, **options)
    prepared = cached(plan)
    monkeypatch.setattr(Prepared, "ahead", noted)
    events = iter_train(plan, prepared, StopFlag())
    while not isinstance(next(events), StepDone):
        pass
    assert len(read) - 1 == expected  # the step itself asks for one more
    events.close()
