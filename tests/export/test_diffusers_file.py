"""The file for diffusers, loaded by diffusers' own loader into a pipeline that knows nothing of ours."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, LTXPipeline
from diffusers.utils import logging as diffusers_logging
from peft import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ltxtrain.errors import ModelError
from ltxtrain.export import iter_export
from ltxtrain.model.adapter import load_exported
from ltxtrain.model.folder import ModelFolder
from tests.export.conftest import ALL_TARGETS, DEFAULT_TARGETS, MakeRun

NAME = "pytorch_lora_weights.safetensors"


@pytest.fixture
def pipeline(tiny: ModelFolder) -> LTXPipeline:
    pipeline = DiffusionPipeline.from_pretrained(str(tiny.base))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@contextmanager
def everything_told() -> Iterator[None]:
    """Inside, diffusers speaks as it does by default and more, and pytest hears it."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_info()
    diffusers_logging.enable_propagation()
    try:
        yield
    finally:
        diffusers_logging.set_verbosity(verbosity)
        diffusers_logging.disable_propagation()


def render(pipeline: LTXPipeline) -> np.ndarray:
    video = pipeline(
        prompt="a red square moves to the right",
        width=64,
        height=64,
        num_frames=9,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    )
    return np.asarray(video.frames[0])


@pytest.mark.parametrize(
    ("targets", "rank", "alpha"),
    [
        (DEFAULT_TARGETS, 4, 4.0),
        (DEFAULT_TARGETS, 4, 16.0),
        (("to_q", "ff.net.0.proj", "ff.net.2", "proj_in"), 2, 1.0),
        (ALL_TARGETS, 3, 5.5),
    ],
)
def test_it_loads_whole_and_renders_the_very_frames_of_the_adapter_in_memory(
    make_run: MakeRun,
    pipeline: LTXPipeline,
    caplog: pytest.LogCaptureFixture,
    targets: tuple[str, ...],
    rank: int,
    alpha: float,
) -> None:
    run = make_run(targets, rank=rank, alpha=alpha)
    list(iter_export(run.folder))
    base = render(pipeline)

    with everything_told(), caplog.at_level(logging.INFO):
        pipeline.load_lora_weights(str(run.folder / "export"), weight_name=NAME)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == []
    assert any("Loading transformer" in record.getMessage() for record in caplog.records)  # it would have been heard

    active = pipeline.transformer.active_adapters()
    state = get_peft_model_state_dict(pipeline.transformer, adapter_name=active[0])
    file = load_file(run.folder / "export" / NAME)
    assert {f"transformer.{name}" for name in state} == set(file)
    assert all(torch.equal(state[name.removeprefix("transformer.")], file[name]) for name in file)

    loaded = render(pipeline)
    pipeline.transformer = run.transformer
    in_memory = render(pipeline)
    assert np.array_equal(loaded, in_memory)
    assert not np.allclose(loaded, base, atol=1e-3)


def test_metadata_tell_a_loader_rank_alpha_and_targets(make_run: MakeRun) -> None:
    run = make_run(rank=4, alpha=16.0)
    list(iter_export(run.folder))
    with safe_open(run.folder / "export" / NAME, "pt") as file:
        told = json.loads(file.metadata()["lora_adapter_metadata"])
    assert told == {
        "transformer.r": 4,
        "transformer.lora_alpha": 16.0,
        "transformer.target_modules": ["to_k", "to_q", "to_v", "to_out.0"],
        "transformer.lora_dropout": 0.0,
    }


def test_our_own_loading_gives_the_same(make_run: MakeRun, pipeline: LTXPipeline) -> None:
    run = make_run(alpha=8.0)
    list(iter_export(run.folder))
    load_exported(pipeline, run.folder / "export" / NAME)
    loaded = render(pipeline)
    pipeline.transformer = run.transformer
    assert np.array_equal(loaded, render(pipeline))


@pytest.mark.parametrize("trained", [torch.float32, torch.bfloat16])
def test_over_a_bfloat16_base_the_adapter_keeps_its_dtype_as_in_the_runs_own_validation(
    make_run: MakeRun, tiny: ModelFolder, trained: torch.dtype
) -> None:
    run = make_run(dtype=torch.bfloat16, trained=trained)
    list(iter_export(run.folder))
    pipeline = DiffusionPipeline.from_pretrained(str(tiny.base), dtype=torch.bfloat16)
    pipeline.set_progress_bar_config(disable=True)
    load_exported(pipeline, run.folder / "export" / NAME)
    loaded = render(pipeline)
    pipeline.transformer = run.transformer
    assert np.array_equal(loaded, render(pipeline))


def comfyui_names(path: Path) -> str:
    save_file({f"diffusion_model.{name}": tensor for name, tensor in load_file(path).items()}, path)
    return "is not an adapter in diffusers' layout"


def too_many_blocks(path: Path) -> str:
    tensors = load_file(path)
    extra = {name.replace("blocks.1.", "blocks.2."): t.clone() for name, t in tensors.items() if "blocks.1." in name}
    save_file(tensors | extra, path)
    return "there is no place for transformer_blocks.2."


def too_few_blocks(path: Path) -> str:
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    save_file({name: tensor for name, tensor in tensors.items() if "blocks.1." not in name}, path, metadata)
    return "it has 16 weights and this model has room for 32"


def another_width(path: Path) -> str:
    save_file({name: tensor[:, :32].contiguous() for name, tensor in load_file(path).items()}, path)
    return "is made for 32 channels and the module has"


def no_tensors(path: Path) -> str:
    path.write_bytes(b"nothing")
    return "cannot be read"


@pytest.mark.parametrize("change", [comfyui_names, too_many_blocks, too_few_blocks, another_width, no_tensors])
def test_a_file_that_does_not_fit_is_refused_in_one_line(
    make_run: MakeRun, pipeline: LTXPipeline, capfd: pytest.CaptureFixture[str], change: Callable[[Path], str]
) -> None:
    run = make_run()
    list(iter_export(run.folder))
    path = run.folder / "export" / NAME
    reason = change(path)
    capfd.readouterr()
    with pytest.raises(ModelError) as refused:
        load_exported(pipeline, path)
    assert reason in refused.value.message
    assert str(path) in refused.value.message
    assert "\n" not in refused.value.message
    assert not any("lora" in name for name, _ in pipeline.transformer.named_parameters())
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_refused(pipeline: LTXPipeline, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_exported(pipeline, tmp_path / NAME)
