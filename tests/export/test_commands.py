"""``ltxtrain export`` and ``ltxtrain sample`` as they are typed, a process each."""

from __future__ import annotations

import re
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from transformers import T5EncoderModel

from ltxtrain.config import load_config
from ltxtrain.errors import OutOfMemoryError
from ltxtrain.learn.signals import StopFlag
from ltxtrain.plan.prompts import ValidationVideo
from ltxtrain.sample import iter_sample
from tests import warm
from tests.export.conftest import MakeRun

PROMPT = "a red square moves to the right"
SMALL = [
    "--pretrained_model_name_or_path=ltxtrain/tiny",
    "--mixed_precision=no",
    "--vae_dtype=fp32",
    "--validation-resolution=64x96",
    "--validation-num-video-frames=9",
    "--validation-num-inference-steps=2",
]


def read_frames(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_run_is_exported_and_its_adapter_renders(make_run: MakeRun, cache: Path, tmp_path: Path) -> None:
    run = make_run(alpha=16.0)
    exported = warm.run(warm.PROGRAM, "export", run.folder, "--dtype", "fp16")
    assert exported.returncode == 0, exported.stderr
    names = [Path(line).relative_to(run.folder / "export").name for line in exported.stdout.splitlines()]
    assert names == [
        "pytorch_lora_weights.safetensors",
        "my-run_comfyui.safetensors",
        "pytorch_lora_weights_fp16.safetensors",
        "my-run_comfyui_fp16.safetensors",
    ]
    assert exported.stderr == ""

    made = tmp_path / "made"
    offload = ("--enable-group-offload", "--group-offload-use-stream")  # which changes no bit
    options = [*SMALL, f"--cache-dir={cache}", "--to", made, "--name", "mine", "--adapter", run.folder, *offload]
    sampled = warm.run(warm.PROGRAM, "sample", PROMPT, *options)
    assert sampled.returncode == 0, sampled.stderr
    assert re.findall(r"note: (\w+) (?:saves nothing|has no effect) on a CPU", sampled.stderr) == [
        "enable_group_offload",
        "group_offload_use_stream",
    ]
    assert sampled.stdout == f"{made}/mine.mp4\n"
    assert sorted(path.name for path in made.iterdir()) == ["mine.mp4", "mine.png"]

    in_process = tmp_path / "in-process"
    for name, adapter in (("adapted", run.folder / "export" / names[0]), ("base", None)):
        render(ValidationVideo(name, PROMPT, width=64, height=96, frames=9, seed=42), adapter, cache, in_process)
    mine, adapted, base = (
        read_frames(path) for path in (made / "mine.mp4", in_process / "adapted.mp4", in_process / "base.mp4")
    )
    assert mine.shape == (9, 96, 64, 3)
    assert np.array_equal(mine, adapted)
    assert not np.array_equal(mine, base)


def render(video: ValidationVideo, adapter: Path | None, cache: Path, folder: Path) -> None:
    loaded = load_config(
        flags={
            "pretrained_model_name_or_path": "ltxtrain/tiny",
            "mixed_precision": "no",
            "vae_dtype": "fp32",
            "validation_num_inference_steps": 2,
            "cache_dir": str(cache),
        }
    )
    for _ in iter_sample(loaded.config, (video,), adapter, folder, StopFlag()):
        pass


@pytest.mark.parametrize("part", [T5EncoderModel, LTXVideoTransformer3DModel, AutoencoderKLLTXVideo])
def test_a_part_that_the_device_has_no_room_for_is_out_of_memory_and_no_defect(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path, part: type
) -> None:
    def to(module: torch.nn.Module, *wanted: object) -> torch.nn.Module:
        if any(isinstance(want, torch.device) for want in wanted):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        return module

    monkeypatch.setattr(part, "to", to)
    with pytest.raises(OutOfMemoryError) as told:
        render(ValidationVideo("video", PROMPT, width=64, height=96, frames=9, seed=42), None, cache, tmp_path)
    assert told.value.exit_code == 6
    assert told.value.hint == "free the GPU of other programs"


def test_a_prompt_is_encoded_with_the_tf32_that_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, cache: Path, tmp_path: Path
) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False  # as torch has it
    found: list[bool] = []

    def looked(*given: object) -> None:
        found.extend((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        raise InterruptedError

    monkeypatch.setattr("ltxtrain.sample.encode_prompt", looked)
    try:
        with pytest.raises(InterruptedError):
            render(ValidationVideo("video", PROMPT, width=64, height=96, frames=9, seed=42), None, cache, tmp_path)
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    assert found == [True, True]


def test_what_is_not_there_is_one_error_and_one_hint(tmp_path: Path) -> None:
    sampled = warm.run(warm.PROGRAM, "sample", PROMPT, "--adapter", tmp_path / "nothing.safetensors", *SMALL)
    assert sampled.returncode == 5
    assert sampled.stderr.splitlines() == [
        f"error: there is no adapter {tmp_path}/nothing.safetensors",
        "hint: name an exported file, or a run's folder",
    ]
    exported = warm.run(warm.PROGRAM, "export", tmp_path / "nowhere")
    assert exported.returncode == 7
    assert exported.stderr.splitlines() == [
        f"error: there is no folder {tmp_path}/nowhere",
        "hint: name a run's folder, such as output/bf16",
    ]
