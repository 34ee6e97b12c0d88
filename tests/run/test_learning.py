"""It learns: the tiny model overfits four clips, and the videos that it renders change."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ltxtrain.data.prepared import Prepared
from ltxtrain.learn.objective import add_noise, levels_of, velocity_loss
from ltxtrain.learn.signals import StopFlag
from ltxtrain.model.adapter import adapter_off, adapter_spec, attach_adapter, load_adapter_weights
from ltxtrain.model.folder import load_scheduler, locate_model
from ltxtrain.model.loading import Loading, load_transformer, load_vae
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import PromptEmbedding
from ltxtrain.model.transformer import predict_velocity
from ltxtrain.plan.records import Plan
from ltxtrain.train import iter_train
from tests.run.driving import adapter_tensors, cached, drain

PlanFor = Callable[..., Plan]
FIXED_SIGMAS = (0.1, 0.3, 0.5, 0.7, 0.9)
# All linear layers: with the attention projections alone so small a frozen model cannot pass the noise through.
TARGETS = '["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out"]'


def loaded(plan: Plan, weights: dict[str, torch.Tensor] | None) -> torch.nn.Module:
    transformer = load_transformer(locate_model(plan.config.model, plan.cache_dir), Loading(torch.float32))
    attach_adapter(transformer, adapter_spec(plan.config.adapter), seed=0)
    if weights:
        load_adapter_weights(transformer, weights)
    return transformer.eval()


def embedding(prepared: Prepared, text: str) -> PromptEmbedding:
    tensors = prepared.prompt(text)
    return PromptEmbedding(tensors["embeds"], tensors["mask"], 0)


@torch.no_grad()
def fixed_loss(transformer: torch.nn.Module, plan: Plan, prepared: Prepared) -> float:
    """Mean loss over all clips at fixed sigmas and fixed noise."""
    total = []
    for sample in plan.samples:
        latents = prepared.latents(sample)[None]
        prompt = embedding(prepared, sample.captions[0])
        for index, sigma in enumerate(FIXED_SIGMAS):
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(index))
            noised = add_noise(latents, noise, *levels_of([sigma], [False], latents.shape[2]))
            velocity = predict_velocity(
                transformer, noised.noisy_BCFHW, noised.sigma, prompt.embeds_LD[None], prompt.mask_L[None], 25
            )
            total.append(float(velocity_loss(velocity, noised)))
    return sum(total) / len(total)


@pytest.mark.slow
def test_the_tiny_model_overfits_four_clips_and_the_video_changes(plan_for: PlanFor) -> None:
    plan = plan_for(
        max_train_steps=450,
        learning_rate=1e-2,
        lr_scheduler="cosine",
        train_batch_size=4,
        lora_rank=32,
        peft_lora_target_modules=TARGETS,
        caption_dropout_probability=0,
        ltx_i2v_prob=0,
        checkpoint_step_interval=0,
        gradient_checkpointing="false",
        validation_disable="false",
        disable_benchmark="true",
    )
    prepared = cached(plan)
    before = fixed_loss(loaded(plan, None), plan, prepared)
    drain(iter_train(plan, prepared, StopFlag()))
    transformer = loaded(plan, adapter_tensors(plan))
    after = fixed_loss(transformer, plan, prepared)
    print(f"loss at fixed sigmas and noise: {before:.3f} -> {after:.3f}")
    assert after <= before / 2

    model = locate_model(plan.config.model, plan.cache_dir)
    settings = RenderSettings(128, 64, 17, 25, 6, 3.0, 0.0, seed=1)
    prompts = embedding(prepared, plan.samples[0].captions[0]), embedding(prepared, "")

    def rendered(model_to_use: torch.nn.Module) -> torch.Tensor:
        pipeline = make_render_pipeline(model_to_use, load_vae(model, Loading(torch.float32)), load_scheduler(model))
        return torch.from_numpy(render_video(pipeline, *prompts, settings))

    untouched = rendered(load_transformer(model, Loading(torch.float32)).eval())
    adapted = rendered(transformer)
    with adapter_off(transformer):
        switched_off = rendered(transformer)
    assert torch.equal(switched_off, untouched), "with the adapter off it is the base model, bit for bit"
    assert (adapted.float() - untouched.float()).abs().mean() > 1, "the adapter is seen in the video"
