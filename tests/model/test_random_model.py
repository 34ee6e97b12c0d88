from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel

from ltxtrain.facts.models import BUILT_IN, KNOWN_MODELS, RANDOM_2B, RANDOM_13B
from ltxtrain.model import random_model
from ltxtrain.model.folder import COMPONENTS, ModelFolder, load_scheduler
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.random_model import RandomSpec, random_folder
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import encode_prompt, make_text_pipeline
from ltxtrain.model.tokens import token_counter
from ltxtrain.model.vae import encode_clips

Locate = Callable[..., ModelFolder]
FLOAT32 = Loading(torch.float32)
SMALL = RandomSpec(
    layers=3,
    heads=2,
    text_layers=2,
    text_heads=2,
    text_width=128,
    text_feed_forward=256,
    vocabulary=300,
    encoder_channels=(8, 16, 32, 64, 64),
    encoder_layers=(1, 1, 1, 1, 1),
    decoder_channels=(8, 16, 32),
    decoder_layers=(1, 1, 1, 1),
)


@pytest.fixture
def small(locate: Locate, tmp_path: Path) -> ModelFolder:
    return locate(pretrained_model_name_or_path=str(random_folder(tmp_path, SMALL)))


def values(model: ModelFolder, loading: Loading = FLOAT32) -> dict[str, torch.Tensor]:
    transformer, vae = load_transformer(model, loading), load_vae(model, loading)
    text = load_text_encoder(model, loading)[0]
    return transformer.state_dict() | vae.state_dict() | text.state_dict()


@pytest.mark.parametrize("name", [RANDOM_2B, RANDOM_13B])
def test_the_built_in_random_models_have_the_real_sizes_and_no_weights_on_disk(locate: Locate, name: str) -> None:
    model, facts = locate(pretrained_model_name_or_path=name), KNOWN_MODELS[name]
    assert name in BUILT_IN
    assert facts.local
    written = sum(file.stat().st_size for file in model.base.rglob("*") if file.is_file())
    assert written == pytest.approx(facts.file_bytes, rel=0.1)
    with torch.device("meta"):
        transformer, vae = (
            kind.from_config(kind.load_config(str(model.base / part)))
            for kind, part in ((LTXVideoTransformer3DModel, "transformer"), (AutoencoderKLLTXVideo, "vae"))
        )
        text = T5EncoderModel(T5Config.from_pretrained(str(model.base / "text_encoder")))
    counted = [sum(weight.numel() for weight in part.parameters()) for part in (transformer, text, vae)]
    assert counted == [facts.transformer.params, facts.text_params, facts.vae.params]
    released = KNOWN_MODELS["Lightricks/LTX-Video-0.9.5" if name == RANDOM_2B else "Lightricks/LTX-Video-0.9.7-dev"]
    assert (facts.transformer, facts.text_params, facts.vae) == (
        released.transformer,
        released.text_params,
        released.vae,
    )


def test_values_come_from_the_seed_and_the_name_whatever_the_dtype(
    small: ModelFolder, locate: Locate, tmp_path: Path
) -> None:
    first = values(small)
    torch.manual_seed(7)
    for name, tensor in values(small, Loading(torch.bfloat16)).items():
        assert torch.equal(tensor, first[name].to(torch.bfloat16)), name
    other = values(locate(pretrained_model_name_or_path=str(random_folder(tmp_path, replace(SMALL, seed=1)))))
    drawn = [name for name in first if first[name].ndim > 1]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    assert len({tuple(first[name].flatten()[:2].tolist()) for name in drawn}) == len(drawn) - 1  # T5's table has two


def test_activations_keep_their_scale_and_the_whole_line_runs(small: ModelFolder) -> None:
    text = make_text_pipeline(*load_text_encoder(small, FLOAT32))
    prompt = encode_prompt(text, "a red square moves to the right")
    vae = load_vae(small, FLOAT32)
    frames_FHWC = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
    latents_CFHW = encode_clips(vae, [frames_FHWC], tiled=False)[0]
    transformer = load_transformer(small, FLOAT32)
    velocity_BSC = transformer(
        hidden_states=torch.randn(1, 8, 128, generator=torch.Generator().manual_seed(0)),
        encoder_hidden_states=prompt.embeds_LD[None],
        encoder_attention_mask=torch.ones(1, 128),
        timestep=torch.tensor([500.0]),
        num_frames=2,
        height=2,
        width=2,
    )[0]
    for tensor in (prompt.embeds_LD, latents_CFHW, velocity_BSC):
        assert 0.01 < tensor.float().std() < 100
    settings = RenderSettings(64, 64, 9, 25.0, 2, 3.0, 0.0, 0)
    pipeline = make_render_pipeline(transformer, vae, load_scheduler(small))
    assert render_video(pipeline, prompt, prompt, settings) is not None


def test_what_is_cached_with_one_drawing_is_not_taken_for_another(
    small: ModelFolder, locate: Locate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = {part: small.digest(part) for part in COMPONENTS}
    other = locate(pretrained_model_name_or_path=str(random_folder(tmp_path, replace(SMALL, seed=1))))
    monkeypatch.setattr(random_model, "DRAWING", random_model.DRAWING + 1)
    later = locate(pretrained_model_name_or_path=str(random_folder(tmp_path, SMALL)))
    for part in ("transformer", "vae", "text_encoder"):
        assert len({digests[part], other.digest(part), later.digest(part)}) == 3
    again = random_folder(tmp_path, SMALL)
    assert again == later.base != small.base


def test_captions_are_counted_for_a_random_model(locate: Locate, tmp_path: Path) -> None:
    from ltxtrain.config.model import ModelConfig
    from ltxtrain.model.folder import locate_model

    section = ModelConfig(pretrained_model_name_or_path=RANDOM_2B)
    assert token_counter(section, tmp_path) is None
    locate_model(section, tmp_path)
    counter = token_counter(section, tmp_path)
    assert counter is not None
    assert counter("a red square") >= 3
