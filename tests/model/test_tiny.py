from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers import LTXPipeline

from ltxtrain.facts.models import KNOWN_MODELS, TINY_MODEL, model_facts
from ltxtrain.model import tiny as tiny_module
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.tiny import TinySpec, build_pipeline, tiny_folder

# The tiny line: build, load, encode a prompt and a clip, render. What the libraries say of it must not reach the user.
TINY_LINE = """
import sys
from pathlib import Path
import numpy as np
import torch
from ltxtrain.config.model import ModelConfig
from ltxtrain.model.adapter import AdapterSpec, attach_adapter
from ltxtrain.model.folder import load_scheduler, locate_model
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import encode_prompt, make_text_pipeline
from ltxtrain.model.vae import encode_clips

model = locate_model(ModelConfig(pretrained_model_name_or_path="ltxtrain/tiny"), Path(sys.argv[1]))
text = make_text_pipeline(*load_text_encoder(model, Loading(torch.float32)))
prompt = encode_prompt(text, "a red square moves to the right " * 20)
vae = load_vae(model, Loading(torch.float32))
encode_clips(vae, [np.zeros((9, 64, 64, 3), np.uint8)], tiled=False)
transformer = load_transformer(model, Loading(torch.float32))
attach_adapter(transformer, AdapterSpec(4, 4.0, 0.0, ("to_q",)), 0)
pipeline = make_render_pipeline(transformer, vae, load_scheduler(model))
render_video(pipeline, prompt, prompt, RenderSettings(64, 64, 9, 25.0, 2, 3.0, 0.0, 0))
print(model.base)
"""


def contents(folder: Path) -> Mapping[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def other_process(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    cache = tmp_path_factory.mktemp("other")
    command = [sys.executable, "-c", TINY_LINE, str(cache)]
    # This process has imported ltxtrain.model, which sets these: the other one shall have to do it by itself.
    quiet = {"DIFFUSERS_VERBOSITY", "TRANSFORMERS_VERBOSITY", "TORCHAO_FORCE_SKIP_LOADING_SO_FILES"}
    env = {name: value for name, value in os.environ.items() if name not in quiet}
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def test_another_process_builds_the_same_bytes(
    tiny: ModelFolder, other_process: subprocess.CompletedProcess[str]
) -> None:
    assert other_process.returncode == 0, other_process.stderr
    theirs = Path(other_process.stdout.strip())
    assert theirs != tiny.base
    assert contents(theirs) == contents(tiny.base)


def test_the_libraries_say_nothing_on_the_screen(other_process: subprocess.CompletedProcess[str]) -> None:
    assert other_process.stderr == ""


def test_another_seed_gives_other_weights(tiny: ModelFolder, tmp_path: Path) -> None:
    other = tiny_folder(tmp_path, TinySpec(seed=1))
    weights = "transformer/diffusion_pytorch_model.safetensors"
    assert (other / weights).read_bytes() != (tiny.base / weights).read_bytes()
    assert other.name != tiny.base.name


def test_it_is_an_ordinary_diffusers_pipeline(whole_pipeline: LTXPipeline) -> None:
    assert type(whole_pipeline) is LTXPipeline
    assert type(whole_pipeline.transformer).__name__ == "LTXVideoTransformer3DModel"
    assert type(whole_pipeline.vae).__name__ == "AutoencoderKLLTXVideo"
    assert type(whole_pipeline.text_encoder).__name__ == "T5EncoderModel"
    assert whole_pipeline.vae.config.timestep_conditioning
    assert (whole_pipeline.vae_spatial_compression_ratio, whole_pipeline.vae_temporal_compression_ratio) == (32, 8)
    assert whole_pipeline.transformer.config.in_channels == 128
    assert whole_pipeline.tokenizer("a red square").input_ids[-1] == whole_pipeline.tokenizer.eos_token_id


def test_the_plan_knows_its_sizes_before_it_is_built(tiny: ModelFolder) -> None:
    known, built = KNOWN_MODELS[TINY_MODEL], model_facts(str(tiny.base))
    assert built is not None
    assert (known.transformer, known.text_params, known.vae) == (built.transformer, built.text_params, built.vae)
    assert known.file_bytes == pytest.approx(built.file_bytes, rel=0.05)


def test_building_leaves_the_random_state_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded_gpus: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_gpus.append)
    before = torch.get_rng_state()
    build_pipeline(TinySpec())
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded_gpus == []


def test_a_second_builder_that_is_faster_does_no_harm(
    tiny: ModelFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(spec: TinySpec) -> LTXPipeline:
        monkeypatch.setattr(tiny_module, "build_pipeline", build_pipeline)
        tiny_folder(tmp_path, spec)
        return build_pipeline(spec)

    monkeypatch.setattr(tiny_module, "build_pipeline", overtaken)
    folder = tiny_folder(tmp_path)
    assert contents(folder) == contents(tiny.base)
    assert [entry.name for entry in tmp_path.iterdir()] == [folder.name]


def test_what_is_built_once_is_not_built_again(tiny: ModelFolder, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_module, "build_pipeline", None)
    assert tiny_folder(cache / "models") == tiny.base
