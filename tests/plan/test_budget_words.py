"""What a memory budget says: what gave way, why, and what stands in the way where nothing fits."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from ltxtrain.config import TrainConfig, load_config
from ltxtrain.config.presets import preset_names
from ltxtrain.errors import MachineError
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.plan.budget import Choice, choose, with_values
from ltxtrain.plan.memory import estimate_memory
from ltxtrain.plan.records import Bucket, PhaseMemory
from ltxtrain.plan.setup import training_setup
from ltxtrain.units import format_need

GIB = 1024**3
MODEL = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"]
SHAPE = Bucket(768, 512, 49)
CUDA = Machine("Linux", "a CPU", 8, 256 * GIB, "cuda", (Gpu("a card", 96 * GIB, "8.9"),))
CPU = replace(CUDA, device="cpu", gpus=())


def phases_of(config: TrainConfig, machine: Machine) -> Sequence[PhaseMemory]:
    setup = replace(training_setup(config, machine.device, ()), validation=SHAPE)
    return [phase for phase in estimate_memory(MODEL, [SHAPE], setup) if phase.on_device]


def largest(config: TrainConfig, machine: Machine) -> int:
    return max(phase.total for phase in phases_of(config, machine))


def chosen(budget: float, machine: Machine = CUDA, presets: Sequence[str] = (), **flags: object) -> Choice:
    given = load_config(presets, env={}, flags=flags | {"memory_budget_gb": budget}, set_aside_unbuilt=True)
    estimate = lambda config: phases_of(config, machine)  # noqa: E731
    return choose(given.config, given.sources, machine, MODEL.transformer.layers, estimate)


@pytest.mark.parametrize("machine", [CUDA, CPU], ids=["cuda", "cpu"])
@pytest.mark.parametrize("preset", preset_names())
def test_what_a_preset_fits_in_is_a_budget_that_something_fits(preset: str, machine: Machine) -> None:
    own = load_config([preset], env={}, flags={}, set_aside_unbuilt=True).config
    budget = math.ceil(100 * largest(own, machine) / GIB) / 100
    assert largest(chosen(budget, machine, [preset]).config, machine) <= budget * GIB


@pytest.mark.parametrize("device", ["cpu", "mps"])
@pytest.mark.parametrize(
    "values",
    [
        {"enable_model_cpu_offload": True},
        {"enable_group_offload": True, "group_offload_text_encoder": True, "group_offload_vae": True},
        {"musubi_blocks_to_swap": 20},
    ],
    ids=str,
)
def test_offload_saves_nothing_where_memory_is_the_main_memory(values: dict[str, object], device: str) -> None:
    plain = load_config([], env={}, flags={}).config
    moved = with_values(plain, values)
    assert phases_of(moved, replace(CUDA, device=device)) == phases_of(plain, replace(CUDA, device=device))
    assert phases_of(moved, CUDA) != phases_of(plain, CUDA)


def test_each_value_of_a_preset_that_gives_way_is_named() -> None:
    notice = chosen(80, presets=["low-vram"]).notice
    for words in (
        "base_model_precision no_change (instead of nf4-bnb from preset low-vram)",
        "text_encoder_1_precision no_change (instead of nf4-bnb from preset low-vram)",
        "gradient_checkpointing false (instead of true from preset low-vram)",
        "vae_enable_tiling false (instead of true from preset low-vram)",
    ):
        assert words in notice
    assert "instead of" not in chosen(80).notice and "nothing that saves memory" in chosen(80).notice
    given = chosen(80, presets=["low-vram"], base_model_precision="int8-torchao").notice
    assert "base_model_precision" not in given and "gradient_checkpointing false" in given


@pytest.mark.parametrize(
    ("budget", "names"),
    [(5, ["base_model_precision", "enable_group_offload"]), (8, ["gradient_checkpointing"])],
)
def test_the_reason_names_only_what_bears_on_the_phase_that_it_names(budget: float, names: list[str]) -> None:
    """The choice differs from the faster one in how the VAE works, too, which is nothing to training."""
    notice = chosen(budget).notice
    found = re.search(r"; with (.*), training would need ([\d.]+) GiB$", notice)
    assert found is not None
    assert [words.split()[0] for words in found[1].split(", ")] == names
    assert float(found[2]) > budget


def hint_of(budget: float, machine: Machine = CUDA, **flags: object) -> tuple[str, str]:
    with pytest.raises(MachineError) as caught:
        chosen(budget, machine, **flags)  # type: ignore[arg-type]
    return str(caught.value), str(caught.value.hint)


def test_where_nothing_fits_the_hint_is_about_the_phase_that_is_named() -> None:
    text, hint = hint_of(4, text_encoder_1_precision="no_change", enable_group_offload=False)
    assert "text embeddings needs" in text
    assert hint == "leave out text_encoder_1_precision and enable_group_offload"
    text, hint = hint_of(4, text_encoder_1_precision="no_change", group_offload_text_encoder=False)
    assert hint == "leave out text_encoder_1_precision and group_offload_text_encoder"
    text, hint = hint_of(2, vae_enable_tiling=False, vae_enable_framewise_encoding=False, gradient_checkpointing=True)
    assert "latents needs" in text
    assert hint.startswith("leave out vae_enable_tiling and vae_enable_framewise_encoding, or lower resolution or ")
    text, hint = hint_of(3.5, train_batch_size=16, base_model_precision="nf4-bnb")
    assert "training needs" in text
    assert hint.startswith("lower train_batch_size, resolution, num_frames or lora_rank")
    assert hint_of(0.4)[1] == "more than 500.0 MiB are needed for the device context alone"


@pytest.mark.parametrize(
    ("budget", "name", "value"),
    [
        (8, "gradient_checkpointing_segment_stride", 2),
        (8, "gradient_checkpointing_backend", "torch-ffn"),
        (5, "musubi_blocks_to_swap", 10),
        (5, "group_offload_blocks_per_group", 28),
        (5.5, "base_model_default_dtype", "fp32"),
    ],
)
def test_whatever_is_set_by_hand_and_stands_in_the_way_is_named(budget: float, name: str, value: object) -> None:
    beside: dict[str, object] = {"base_model_precision": "nf4-bnb"} if name == "base_model_default_dtype" else {}
    if name.startswith("group_offload"):
        beside = {"enable_group_offload": True, "base_model_precision": "no_change"}
    text, hint = hint_of(budget, **beside, **{name: value})
    assert name in hint.partition(", or ")[0].removeprefix("leave out ").split(" and "), (text, hint)
    assert largest(chosen(budget).config, CUDA) <= budget * GIB, "and without it something fits"


def test_what_a_preset_says_of_checkpointing_and_of_swapping_gives_way() -> None:
    asked = {"gradient_checkpointing_segment_stride": 2, "musubi_blocks_to_swap": 10, "memory_budget_gb": 8}
    given = load_config([], env={}, flags=asked)
    sources = given.sources | dict.fromkeys(list(asked)[:2], "preset own")
    estimate = lambda config: phases_of(config, CUDA)  # noqa: E731
    choice = choose(given.config, sources, CUDA, MODEL.transformer.layers, estimate)
    assert choice.config == chosen(8).config
    assert "gradient_checkpointing_segment_stride nothing (instead of 2 from preset own)" in choice.notice
    assert "musubi_blocks_to_swap 0 (instead of 10 from preset own)" in choice.notice


def test_a_need_just_above_the_budget_is_not_shown_as_the_same() -> None:
    assert format_need(1.004 * GIB, GIB) == "1.01 GiB"
    assert format_need(1.2 * GIB, GIB) == "1.2 GiB"
    assert format_need(24.04 * GIB, 24.0 * GIB) == "24.04 GiB"


def test_a_choice_for_a_cpu_says_that_it_is_for_no_card() -> None:
    assert chosen(24, CPU).notice.endswith("CPU and its main memory: docs/presets.md has the choices for cards")
    assert "docs/" not in chosen(24).notice
