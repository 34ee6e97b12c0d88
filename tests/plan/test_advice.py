"""Where memory runs out, the two options that would help most are those that save most by the estimate."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.plan.advice import help_most
from ltxtrain.plan.memory import estimate_memory
from ltxtrain.plan.records import Bucket, Plan
from ltxtrain.plan.setup import base_facts, training_setup
from ltxtrain.units import format_bytes
from tests.plan.conftest import CUDA, GIB, Planned


@pytest.fixture
def planned(planned: Planned) -> Planned:
    """A plan on small clips, with buckets of a real size in the place of theirs."""

    def plan(machine: Machine = CUDA, **flags: object) -> Plan:
        made = planned(machine, **flags)
        large = Bucket(768, 512, 49)
        samples = tuple(replace(sample, bucket=large) for sample in made.samples)
        return replace(made, samples=samples, buckets=tuple(replace(each, bucket=large) for each in made.buckets))

    return plan


def test_checkpointing_and_smaller_batches_help_a_training_without_either(planned: Planned) -> None:
    first, second = help_most(planned(gradient_checkpointing=False, train_batch_size=4), "training")
    assert first.startswith("set gradient_checkpointing to true (saves about ")
    assert second.startswith("lower train_batch_size to 2 (saves about ")


def test_fewer_bits_help_where_weights_are_the_most(planned: Planned) -> None:
    plan = planned()
    assert help_most(plan, "text embeddings")[0].startswith("set enable_group_offload to true and group_offload_text")
    told = help_most(plan, "training")
    assert [re.match(r"set (\w+)", words)[1] for words in told] == ["enable_group_offload", "base_model_precision"]  # type: ignore[index]


def test_nothing_is_advised_that_is_done_already_or_does_not_work_together(planned: Planned) -> None:
    small = {"base_model_precision": "nf4-bnb", "enable_group_offload": True}
    for words in help_most(planned(**small), "training"):
        assert not re.search("enable_|precision|gradient_checkpointing to true|train_batch_size", words)
    compiled = {"dynamo_backend": "inductor", "gradient_checkpointing": False}
    assert not any("nf4" in words for words in help_most(planned(**compiled), "training"))


def test_a_device_that_shares_main_memory_is_told_nothing_of_offload(planned: Planned) -> None:
    apple = replace(CUDA, device="mps", gpus=(Gpu("M3", 64 * GIB),))
    for phase in ("text embeddings", "training", "validation"):
        assert not any("offload" in words for words in help_most(planned(apple), phase))


def test_one_clip_that_is_held_out_is_a_batch_of_one(planned: Planned) -> None:
    def told(size: int) -> tuple[str, ...]:
        plan = planned(train_batch_size=size, enable_group_offload=True, base_model_precision="nf4-bnb")
        return help_most(replace(plan, eval_samples=plan.samples[:1]), "evaluation")

    assert told(4) == told(1) != ()


def test_what_is_saved_is_the_difference_of_two_estimates(planned: Planned) -> None:
    before, after = (planned(gradient_checkpointing=on, enable_group_offload=True) for on in (False, True))
    model = base_facts(before.config)
    assert model is not None
    totals = []
    for plan in (before, after):
        setup = training_setup(plan.config, "cuda", ())
        totals += [phase.total for phase in estimate_memory(model, [Bucket(768, 512, 49)], setup)[2:3]]
    told = f"set gradient_checkpointing to true (saves about {format_bytes(totals[0] - totals[1])})"
    assert told in help_most(before, "training")


def test_a_large_adapter_is_told_where_its_states_and_gradients_can_go(planned: Planned) -> None:
    large = {"lora_rank": 256, "enable_group_offload": True, "base_model_precision": "nf4-bnb"}
    assert help_most(planned(**large), "training")[0].startswith(
        "set optimizer_cpu_offload_method to torchao and optimizer_offload_gradients to true (saves about "
    )
    paged = planned(**large, optimizer="bnb-lion8bit-paged", max_grad_norm=0)  # which cannot be moved as well
    assert help_most(paged, "training")[1].startswith("set optimizer_release_gradients to true (saves about ")


def test_where_sizes_are_not_known_nothing_is_said(planned: Planned) -> None:
    assert help_most(planned(pretrained_model_name_or_path="some/thing"), "training") == ()
    assert help_most(planned(), "no such phase") == ()
