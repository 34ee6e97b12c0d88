from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import LTXPipeline

from ltxtrain.config.data import CacheConfig
from ltxtrain.config.validation import ValidationConfig
from ltxtrain.model.folder import ModelFolder, load_scheduler
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import PromptEmbedding, encode_prompt, make_text_pipeline
from ltxtrain.plan.prompts import ValidationVideo

SETTINGS = RenderSettings(
    width=96, height=64, frames=9, framerate=25.0, inference_steps=3, guidance=3.0, guidance_rescale=0.0, seed=5
)
PROMPT, NEGATIVE = "a red square moves to the right", "worst quality, blurry"
Prompts = tuple[PromptEmbedding, PromptEmbedding]


@pytest.fixture(scope="module")
def prompts(tiny: ModelFolder) -> Prompts:
    text = make_text_pipeline(*load_text_encoder(tiny, Loading(torch.float32)))
    return encode_prompt(text, PROMPT), encode_prompt(text, NEGATIVE)


@pytest.fixture
def pipeline(tiny: ModelFolder) -> LTXPipeline:
    transformer, vae = load_transformer(tiny, Loading(torch.float32)), load_vae(tiny, Loading(torch.float32))
    return make_render_pipeline(transformer, vae, load_scheduler(tiny))


def render(pipeline: LTXPipeline, prompts: Prompts, settings: RenderSettings = SETTINGS) -> np.ndarray:
    frames_FHWC = render_video(pipeline, *prompts, settings)
    assert frames_FHWC is not None
    return frames_FHWC


def test_frames_are_those_of_the_whole_pipeline(
    pipeline: LTXPipeline, prompts: Prompts, whole_pipeline: LTXPipeline
) -> None:
    video = whole_pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        width=96,
        height=64,
        num_frames=9,
        frame_rate=25,
        num_inference_steps=3,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(5),
        output_type="pil",
    ).frames[0]
    assert np.array_equal(render(pipeline, prompts), np.stack([np.asarray(frame) for frame in video]))


def test_the_same_settings_give_the_same_frames_and_others_give_others(pipeline: LTXPipeline, prompts: Prompts) -> None:
    first = render(pipeline, prompts)
    assert first.shape == (9, 64, 96, 3)
    assert first.dtype == np.uint8
    assert np.array_equal(render(pipeline, prompts), first)
    for change in ({"seed": 6}, {"inference_steps": 4}, {"guidance": 1.0}, {"framerate": 8.0}):
        assert not np.array_equal(render(pipeline, prompts, replace(SETTINGS, **change)), first), change
    rescaled = replace(SETTINGS, guidance=20.0), replace(SETTINGS, guidance=20.0, guidance_rescale=0.7)
    assert not np.array_equal(*(render(pipeline, prompts, settings) for settings in rescaled))
    other_way_round = render(pipeline, (prompts[1], prompts[0]))
    assert not np.array_equal(other_way_round, first)


def test_the_random_state_of_the_caller_is_untouched(pipeline: LTXPipeline, prompts: Prompts) -> None:
    before = torch.get_rng_state()
    render(pipeline, prompts)
    assert torch.equal(torch.get_rng_state(), before)


def test_it_stops_between_two_steps_when_told(pipeline: LTXPipeline, prompts: Prompts) -> None:
    calls: list[int] = []
    pipeline.transformer.register_forward_pre_hook(lambda *_: calls.append(len(calls)))
    assert render_video(pipeline, *prompts, SETTINGS, lambda: len(calls) == 2) is None
    assert len(calls) == 2


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("stopped", [True, False])
def test_the_transformer_renders_in_evaluation_mode_and_is_left_as_it_was(
    pipeline: LTXPipeline, prompts: Prompts, training: bool, stopped: bool
) -> None:
    modes: list[bool] = []
    pipeline.transformer.train(training)
    pipeline.transformer.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    render_video(pipeline, *prompts, SETTINGS, lambda: stopped)
    assert set(modes) == {False}
    assert pipeline.transformer.training is training


@pytest.mark.parametrize("frames", [1, 9, 17])
def test_there_are_as_many_frames_as_asked_for(pipeline: LTXPipeline, prompts: Prompts, frames: int) -> None:
    assert len(render(pipeline, prompts, replace(SETTINGS, frames=frames, inference_steps=2))) == frames


def test_a_number_of_frames_that_would_be_floored_is_refused(pipeline: LTXPipeline, prompts: Prompts) -> None:
    with pytest.raises(ValueError, match=r"8k\+1"):
        render(pipeline, prompts, replace(SETTINGS, frames=10))


def test_each_part_works_in_the_dtype_that_it_was_loaded_in(tiny: ModelFolder, prompts: Prompts) -> None:
    transformer, vae = load_transformer(tiny, Loading(torch.bfloat16)), load_vae(tiny, Loading(torch.float32))
    pipeline = make_render_pipeline(transformer, vae, load_scheduler(tiny))
    dtypes: set[torch.dtype] = set()
    vae.decoder.conv_in.conv.register_forward_hook(lambda _, given, result: dtypes.add(result.dtype))
    render(pipeline, prompts)
    assert dtypes == {torch.float32}


def test_settings_come_from_the_video_and_the_validation_options() -> None:
    video = ValidationVideo("validation", PROMPT, width=96, height=64, frames=9, seed=5)
    section = ValidationConfig(
        validation_num_inference_steps=3, validation_guidance=3.0, validation_guidance_rescale=0.0
    )
    assert RenderSettings.of(video, section, 25.0, CacheConfig()) == SETTINGS
    in_pieces = CacheConfig(vae_enable_tiling=True, vae_enable_framewise_encoding=True)
    assert RenderSettings.of(video, section, 25.0, in_pieces) == replace(SETTINGS, tiled=True)
    longer = RenderSettings.of(replace(video, frames=25), section, 25.0, in_pieces)
    assert longer == replace(SETTINGS, frames=25, tiled=True, framewise=True)


def test_long_videos_are_decoded_in_groups_of_frames_when_asked_for(pipeline: LTXPipeline, prompts: Prompts) -> None:
    lengths: list[int] = []
    hook = pipeline.vae.decoder.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[2]))
    longer = replace(SETTINGS, frames=25)
    whole = render(pipeline, prompts, longer)
    assert lengths == [4]
    in_groups = render(pipeline, prompts, replace(longer, framewise=True))
    hook.remove()
    assert lengths[1:] == [3, 3, 2, 1] and in_groups.shape == whole.shape
    assert not np.array_equal(in_groups, whole)
    assert np.array_equal(render(pipeline, prompts, longer), whole)
