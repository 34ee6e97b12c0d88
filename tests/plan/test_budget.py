"""``memory_budget_gb``: the fastest that fits, and nothing that was set by hand is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig, load_config
from ltxtrain.errors import ConfigError, MachineError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.plan.budget import NAME, Choice, choose
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.memory import estimate_memory
from ltxtrain.plan.records import Bucket, PhaseMemory
from ltxtrain.plan.setup import training_setup

GIB = 1024**3
MODEL = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"]
LARGE = KNOWN_MODELS["Lightricks/LTX-Video-0.9.7-dev"]
SHAPE = Bucket(768, 512, 49)
CUDA = Machine("Linux", "a CPU", 8, 64 * GIB, "cuda", (Gpu("a card", 96 * GIB, "8.9"),))
APPLE = replace(CUDA, device="mps", gpus=(Gpu("M3", 64 * GIB),))


def loaded(budget: float, preset: str = "", **flags: object) -> LoadedConfig:
    basis: dict[str, object] = {"memory_budget_gb": budget, "train_batch_size": 1}
    return load_config([preset] if preset else [], env={}, flags=basis | flags, set_aside_unbuilt=True)


def phases_of(found: LoadedConfig | Choice, machine: Machine = CUDA, model: object = MODEL) -> list[PhaseMemory]:
    setup = replace(training_setup(found.config, machine.device, ()), validation=SHAPE)
    return list(estimate_memory(model, [SHAPE], setup))  # type: ignore[arg-type]


def largest(found: LoadedConfig | Choice, machine: Machine = CUDA) -> int:
    return max(phase.total for phase in phases_of(found, machine) if phase.on_device)


def chosen(budget: float, machine: Machine = CUDA, model: object = MODEL, **flags: object) -> Choice:
    given = loaded(budget, **flags)  # type: ignore[arg-type]

    def estimate(config: object) -> list[PhaseMemory]:
        return phases_of(replace(given, config=config), machine, model)  # type: ignore[type-var]

    layers = model.transformer.layers  # type: ignore[attr-defined]
    return choose(given.config, given.sources, machine, layers, estimate)


@pytest.mark.parametrize("budget", [4, 6, 8, 12, 16, 24, 80])
def test_every_phase_fits_the_budget(budget: float) -> None:
    choice = chosen(budget)
    assert largest(choice) <= budget * GIB
    assert choice.config.memory.memory_budget_gb is None  # config.toml leads to the same run without it
    assert choice.sources["gradient_checkpointing"] == f"memory_budget_gb {budget}"


def test_models_take_turns_where_that_is_enough_and_a_stream_is_for_nvidia_and_main_memory_alone() -> None:
    turns = chosen(6).config
    assert turns.memory.enable_model_cpu_offload is True
    assert turns.precision.base_model_precision == "no_change", "what waits in main memory is not of the budget"
    found = [chosen(3.5, machine).config.memory for machine in (CUDA, replace(CUDA, device="rocm"))]
    assert [memory.enable_group_offload for memory in found] == [True, True]
    assert [memory.group_offload_use_stream for memory in found] == [True, False]
    assert chosen(3.5, group_offload_to_disk_path="/disk").config.memory.group_offload_use_stream is False


@pytest.mark.parametrize("interval", [1, 2])
def test_pieces_that_are_set_by_hand_leave_all_the_rest_to_be_chosen(interval: int) -> None:
    choice = chosen(9.5, gradient_checkpointing_interval=interval)
    assert largest(choice) <= 9.5 * GIB
    assert choice.config.memory.gradient_checkpointing_interval == interval
    assert choice.config.memory.gradient_checkpointing is True
    assert choice.config.precision.text_encoder_1_precision == "int8-torchao"
    assert choice.config.memory.enable_group_offload is False


def test_a_budget_above_what_the_device_has_is_taken_as_that_and_told() -> None:
    card = replace(CUDA, gpus=(Gpu("a card", 80 * GIB, "8.9"), Gpu("another", 8 * GIB, "8.9")))
    choice = chosen(40, card)
    assert choice.config == chosen(8, card).config and largest(choice, card) <= 8 * GIB
    assert choice.notice.startswith("memory_budget_gb 40 (taken as the 8.0 GiB that there are) chooses ")
    assert choice.sources["enable_model_cpu_offload"] == "memory_budget_gb 40"
    assert "taken" not in chosen(8, card).notice and "taken" not in chosen(7, card).notice
    with pytest.raises(
        MachineError, match=r"^nothing fits memory_budget_gb 40 \(taken as the 2\.0 GiB that there are\)"
    ):
        chosen(40, replace(CUDA, gpus=(Gpu("a card", 2 * GIB, "8.9"),)))


def test_more_memory_is_never_slower() -> None:
    """Faster: nothing quantised, then more blocks that keep their activations, then nothing moved."""

    def speed(choice: Choice) -> tuple[bool, bool, int]:
        memory = choice.config.memory
        kept = memory.gradient_checkpointing_free_blocks if memory.gradient_checkpointing else 28
        return not memory.enable_group_offload, choice.config.precision.base_model_precision == "no_change", kept

    speeds = [speed(chosen(budget)) for budget in (3.5, 4, 6, 8, 12, 16, 24)]
    assert speeds == sorted(speeds) and speeds[0][0] is False and speeds[-1] == (True, True, 28)


def test_one_block_more_would_not_fit() -> None:
    choice = chosen(12)
    free = choice.config.memory.gradient_checkpointing_free_blocks
    assert 0 < free < 27
    more = choice.config.memory.model_copy(update={"gradient_checkpointing_free_blocks": free + 1})
    beyond = replace(choice, config=choice.config.model_copy(update={"memory": more}))
    assert largest(beyond) > 12 * GIB


def test_what_is_set_by_hand_stays_and_a_preset_gives_way() -> None:
    assert chosen(80, preset="low-vram").config.precision.base_model_precision == "no_change"
    choice = chosen(80, base_model_precision="int8-quanto", gradient_checkpointing=True)
    assert choice.config.precision.base_model_precision == "int8-quanto"
    assert choice.config.memory.gradient_checkpointing is True
    assert choice.config.memory.gradient_checkpointing_free_blocks == 27
    assert "base_model_precision" not in choice.sources


def test_the_larger_model_is_quantised_on_the_same_card_and_the_reason_is_told() -> None:
    choice = chosen(24, model=LARGE)
    assert choice.config.precision.base_model_precision == "int8-torchao"
    assert choice.notice.startswith("memory_budget_gb 24 chooses base_model_precision int8-torchao, ")
    assert "would need" in choice.notice


def test_nothing_that_does_not_work_together_is_chosen() -> None:
    choice = chosen(6, model=LARGE, dynamo_backend="inductor", dynamo_use_regional_compilation=True)
    assert "nf4" not in choice.config.precision.base_model_precision


def test_nothing_moves_off_a_device_that_shares_main_memory() -> None:
    choice = chosen(8, APPLE)
    assert not choice.config.memory.enable_group_offload and not choice.config.memory.enable_model_cpu_offload
    assert largest(choice, APPLE) <= 8 * GIB


def test_a_budget_that_nothing_fits_is_refused_with_the_smallest_need() -> None:
    with pytest.raises(MachineError, match=r"nothing fits memory_budget_gb 1\.5: .* needs [23]\.\d GiB on cuda"):
        chosen(1.5)
    with pytest.raises(MachineError) as caught:
        chosen(4, base_model_precision="no_change", enable_group_offload=False, train_batch_size=4)
    assert str(caught.value.hint).startswith("leave out base_model_precision and enable_group_offload, or lower ")


def test_the_plan_holds_the_choice_and_says_why(
    load: Callable[..., LoadedConfig], add_clip: Callable[..., Path]
) -> None:
    for name in ("a.mp4", "b.mp4", "c.mp4", "d.mp4"):
        add_clip(name)
    name = "Lightricks/LTX-Video-0.9.5"
    plan = make_plan(load(pretrained_model_name_or_path=name, memory_budget_gb=12), CUDA)
    assert plan.config.memory.memory_budget_gb is None
    assert plan.sources["base_model_precision"] == "memory_budget_gb 12" and plan.sources[NAME] == "default"
    assert any(notice.startswith("memory_budget_gb 12 chooses ") for notice in plan.notices)
    assert all(phase.total <= 12 * GIB for phase in plan.memory if phase.device == "cuda")
    without = make_plan(load(pretrained_model_name_or_path=name), CUDA)
    assert not any(NAME in notice for notice in without.notices)
    with pytest.raises(ConfigError, match=r"^--memory-budget-gb: the sizes of some/thing are not known here"):
        make_plan(load(pretrained_model_name_or_path="some/thing", memory_budget_gb=12), CUDA)
