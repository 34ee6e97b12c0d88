"""What the plan says of checkpointing and offload: counts above the blocks, devices where nothing is saved, advice."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from ltxtrain.errors import ConfigError
from ltxtrain.facts.machine import Gpu
from ltxtrain.learn.identity import told_settings
from ltxtrain.learn.resume import changed_settings
from ltxtrain.plan.advice import memory_warnings
from ltxtrain.plan.memory.activations import Size, step_peak
from ltxtrain.plan.memory.setup import Recompute
from tests.plan.conftest import CUDA, GIB, Planned
from tests.plan.test_memory import MODEL, PUBLISHED, SETUP

CPU = replace(CUDA, device="cpu", gpus=())
APPLE = replace(CUDA, device="mps", gpus=(Gpu("M3", 64 * GIB),))
LARGE = "Lightricks/LTX-Video-0.9.7-dev"


def test_more_blocks_to_swap_than_there_are_are_refused_before_anything_is_loaded(planned: Planned) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(musubi_blocks_to_swap=29)
    assert str(caught.value.faults[0]) == (
        "--musubi-blocks-to-swap: 29 is more than the 28 blocks of the transformer (give 28 at most)"
    )
    assert caught.value.exit_code == 2
    assert planned(musubi_blocks_to_swap=28).config.memory.musubi_blocks_to_swap == 28
    assert planned(musubi_blocks_to_swap=40, pretrained_model_name_or_path=LARGE).memory


@pytest.mark.parametrize(
    "values",
    [
        {"gradient_checkpointing_free_blocks": 29},
        {"gradient_checkpointing_interval": 29},
        {"enable_group_offload": True, "group_offload_blocks_per_group": 29},
    ],
    ids=lambda values: list(values)[-1],
)
def test_counts_above_the_blocks_are_told(planned: Planned, values: dict[str, object]) -> None:
    name = list(values)[-1]
    start = f"{name} is 29, more than the 28 blocks that there are: "
    assert [text for text in planned(**values).notices if text.startswith(start)]
    assert not [text for text in planned(**(values | {name: 28})).notices if "blocks that there are" in text]
    of_large = planned(pretrained_model_name_or_path=LARGE, **values)
    assert not [text for text in of_large.notices if "blocks that there are" in text]


@pytest.mark.parametrize(
    "values",
    [{"enable_group_offload": True}, {"enable_model_cpu_offload": True}, {"musubi_blocks_to_swap": 2}],
    ids=str,
)
def test_offload_on_a_device_without_memory_of_its_own_is_told(planned: Planned, values: dict[str, object]) -> None:
    (name,) = values
    told = f"{name} saves nothing on a CPU, whose memory is the main memory"
    assert told in planned(CPU, **values).notices
    assert told.replace("a CPU", "an Apple GPU") in planned(APPLE, **values).notices
    assert not [text for text in planned(CUDA, **values).notices if "saves nothing" in text]


def test_a_stream_without_cuda_is_told(planned: Planned) -> None:
    values = {"enable_group_offload": True, "group_offload_use_stream": True}
    for machine, told in ((replace(CUDA, device="rocm"), True), (CPU, True), (CUDA, False)):
        found = [text for text in planned(machine, **values).notices if text.startswith("group_offload_use_stream")]
        assert bool(found) == told


def test_a_stream_from_a_disk_is_told_and_takes_no_memory(planned: Planned, tmp_path: Path) -> None:
    disk = {"enable_group_offload": True, "group_offload_to_disk_path": str(tmp_path)}
    plain, streamed = planned(CUDA, **disk), planned(CUDA, **disk, group_offload_use_stream=True)
    told = "group_offload_use_stream has no effect with group_offload_to_disk_path"
    assert [text.startswith(told) for text in streamed.notices if "use_stream" in text] == [True]
    assert not [text for text in plain.notices if "use_stream" in text]
    assert streamed.memory == plain.memory


@pytest.mark.parametrize("preset", ["low-vram", "nf4-stable", "bf16"])
def test_a_warning_names_only_what_is_not_set_already(planned: Planned, preset: str) -> None:
    small = replace(CUDA, gpus=(Gpu("a small card", round(0.5 * GIB), "8.9"),))
    plan = planned(small, presets=(preset,))
    warnings = [text for text in plan.warnings if text.startswith("memory: ")]
    assert len(warnings) == len([phase for phase in plan.memory if phase.device == "cuda"])
    for text in warnings:
        for name, value in re.findall(r"(\w+) to (\w+)", text.partition("; ")[2]):
            section = next(
                getattr(plan.config, each)
                for each in type(plan.config).model_fields
                if hasattr(getattr(plan.config, each), name)
            )
            assert str(getattr(section, name)).lower() != value, text
        assert text.endswith("or let memory_budget_gb choose")
    latents = next(text for text in warnings if "latents" in text)
    assert ("vae_enable_tiling" in latents) is False or preset == "bf16"


def test_a_need_in_main_memory_is_not_helped_by_a_budget(planned: Planned) -> None:
    plan = planned(replace(CUDA, memory_bytes=GIB))
    (text,) = memory_warnings(plan)
    assert text.startswith("memory: loading needs about ") and "memory_budget_gb" not in text


@pytest.mark.parametrize(
    "values",
    [
        {"attention_mechanism": "native-math"},
        {"dynamo_backend": "aot_eager"},
        {"disable_tf32": True},
        {"torch_num_threads": 3},
        {"gradient_checkpointing_backend": "torch-ffn"},
    ],
    ids=str,
)
def test_what_may_change_bits_is_told_when_a_run_goes_on(planned: Planned, values: dict[str, object]) -> None:
    (name,) = values
    before, after = told_settings(planned()), told_settings(planned(**values))
    assert [text.split()[0] for text in changed_settings(before, after)] == [name]


def test_reading_ahead_changes_no_bit_and_is_not_told(planned: Planned) -> None:
    assert changed_settings(told_settings(planned()), told_settings(planned(dataloader_prefetch=True))) == []


@pytest.mark.parametrize(
    ("recompute", "kept"),
    [
        (None, "28 whole blocks"),
        (Recompute(), "1 block being computed again and the others' inputs"),
        (Recompute(free_blocks=1), "1 whole block, one being computed again and the others' inputs"),
        (Recompute(free_blocks=3, interval=4), "3 whole blocks, 4 being computed again and the other pieces' inputs"),
        (Recompute(free_blocks=27), "27 whole blocks and one being computed again"),
        (Recompute(interval=2, moved=True), "2 blocks being computed again"),
    ],
)
def test_what_a_step_keeps_is_told_in_blocks(recompute: Recompute | None, kept: str) -> None:
    setup = replace(SETUP, checkpointing=recompute is not None, recompute=recompute or Recompute())
    assert step_peak(MODEL.transformer, Size(PUBLISHED.tokens, 1), setup, 0).kept == kept
