"""The estimate of a training step against what is allocated: every tensor of real steps is counted.

The tiny model and one of 100 M parameters are computed for real; larger ones are counted with tensors that have sizes
and no values, which the first test compares with real ones.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from torch._subclasses import FakeTensorMode

from ltxtrain.config import TrainConfig, load_config
from ltxtrain.config.optimizers import adapter_dtype
from ltxtrain.facts.models import KNOWN_MODELS, TextFacts
from ltxtrain.learn.objective import add_noise, levels_of, velocity_loss
from ltxtrain.learn.optimizers import make_optimizer
from ltxtrain.model.adapter import adapter_spec, attach_adapter
from ltxtrain.model.checkpointing import set_checkpointing
from ltxtrain.model.transformer import facts_of, predict_velocity
from ltxtrain.plan.memory.activations import adapter_saved
from ltxtrain.plan.memory.phases import training_lines
from ltxtrain.plan.records import Bucket
from ltxtrain.plan.setup import training_setup
from tests.allocations import Allocations
from tests.quantised import quantise

DTYPES = {"bf16": torch.bfloat16, "no": torch.float32}
TINY = {"heads": 4, "head_dim": 32, "layers": 2, "text": 32}
MIDDLE = {"heads": 16, "head_dim": 64, "layers": 6, "text": 512}  # 109 M parameters
LTX_2B = {"heads": 32, "head_dim": 64, "layers": 28, "text": 4096}
BUCKET = Bucket(256, 192, 17)  # 144 tokens


def config_of(**flags: object) -> TrainConfig:
    basis: dict[str, object] = {"ltx_train_mode": "t2v", "mixed_precision": "no", "gradient_checkpointing": False}
    return load_config(env={}, flags=basis | flags).config


def make_transformer(sizes: dict[str, int], dtype: torch.dtype) -> LTXVideoTransformer3DModel:
    width = sizes["heads"] * sizes["head_dim"]
    torch.set_default_dtype(dtype)
    try:
        return LTXVideoTransformer3DModel(
            num_attention_heads=sizes["heads"],
            attention_head_dim=sizes["head_dim"],
            cross_attention_dim=width,
            num_layers=sizes["layers"],
            caption_channels=sizes["text"],
        )
    finally:
        torch.set_default_dtype(torch.float32)


def without_values(model: torch.nn.Module) -> None:
    """Give a model of the meta device tensors of the fake mode that is on, which say that they are on the CPU."""
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                empty = torch.empty(old.shape, dtype=old.dtype, device="cpu")
                module._parameters[name] = torch.nn.Parameter(empty, requires_grad=old.requires_grad)


def counted_step(config: TrainConfig, sizes: dict[str, int], bucket: Bucket = BUCKET, *, fake: bool = False) -> int:
    """The most bytes that live at a time in the second of two steps, in tensors."""
    dtype = DTYPES[config.precision.mixed_precision]
    clips, frames = config.data.train_batch_size, bucket.latent_frames
    mode: AbstractContextManager[Any] = FakeTensorMode(allow_non_fake_inputs=True) if fake else nullcontext()
    with torch.device("meta" if fake else "cpu"):
        transformer = make_transformer(sizes, dtype)
        if config.precision.base_model_precision != "no_change":
            quantise(transformer, "transformer", config.precision.base_model_precision, dtype)
        trained = getattr(torch, adapter_dtype(config.optimizer.optimizer))
        attach_adapter(transformer, adapter_spec(config.adapter), 0, trained)
    set_checkpointing(transformer, config.memory)
    with mode:
        if fake:
            without_values(transformer)
        transformer.train()
        parameters = {name: each for name, each in transformer.named_parameters() if each.requires_grad}
        optimizer = make_optimizer(parameters, config.optimizer, 0)
        with Allocations(transformer) as counted:
            for _step in range(2):
                counted.reset_peak()
                for _ in range(config.optimizer.gradient_accumulation_steps):
                    latents, noise = (
                        torch.zeros(clips, 128, frames, bucket.latent_height, bucket.latent_width) for _ in range(2)
                    )
                    embeds = torch.zeros(clips, 128, sizes["text"], dtype=dtype)
                    timed = config.objective.ltx_train_mode == "i2v"
                    noised = add_noise(latents, noise, *levels_of([0.5] * clips, [timed] * clips, latents.shape[2]))
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype != torch.float32):
                        noisy = noised.noisy_BCFHW.to(dtype)
                        velocity = predict_velocity(transformer, noisy, noised.sigma, embeds, None, 25.0)
                    velocity_loss(velocity, noised).mean().backward()
                    del velocity, noised, noisy, latents, noise, embeds
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return counted.peak


def estimated(config: TrainConfig, sizes: dict[str, int], bucket: Bucket = BUCKET) -> int:
    with torch.device("meta"):
        facts = facts_of(make_transformer(sizes, torch.float32))
    model = replace(KNOWN_MODELS["Lightricks/LTX-Video-0.9.5"], transformer=facts, text=TextFacts())
    return sum(size for _, size in training_lines(model, bucket, training_setup(config, "cpu", ())))


def within_a_tenth(config: TrainConfig, sizes: dict[str, int], bucket: Bucket = BUCKET, *, fake: bool = False) -> None:
    counted, told = counted_step(config, sizes, bucket, fake=fake), estimated(config, sizes, bucket)
    assert told == pytest.approx(counted, rel=0.1), f"{told / counted:.3f} of what is allocated"


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"gradient_checkpointing": True, "gradient_checkpointing_backend": "torch-ffn", "lora_dropout": 0.1},
        {"gradient_checkpointing": True, "gradient_checkpointing_free_blocks": 1, "ltx_train_mode": "i2v"},
        {"base_model_precision": "int8-torchao", "mixed_precision": "bf16", "train_batch_size": 2, "lora_dropout": 0.1},
        {"base_model_precision": "nf4-bnb", "mixed_precision": "bf16", "gradient_checkpointing": True},
        {"optimizer": "bnb-lion8bit", "lora_rank": 64, "gradient_accumulation_steps": 2},
    ],
    ids=str,
)
def test_a_step_of_the_tiny_model_takes_what_was_said(flags: dict[str, object]) -> None:
    within_a_tenth(config_of(**flags), TINY)


def test_what_dropout_keeps_is_a_copy_for_each_layer_and_a_mask_of_bytes_on_a_gpu() -> None:
    """Four layers of attention to the clip itself, and the two of attention to captions that the clip goes through."""
    setup = training_setup(config_of(mixed_precision="bf16", lora_rank=4), "cuda", ())
    with torch.device("meta"):
        facts = facts_of(make_transformer(TINY, torch.float32))
    plain, dropped = (adapter_saved(facts, replace(setup, dropout=dropout))[0] for dropout in (False, True))
    width, small = 128, 6 * 4 * 2
    assert plain == 2 * width * 2 + small
    assert dropped == 6 * width * (2 + 1) + small


def test_a_step_of_a_model_of_100_million_parameters_takes_what_was_said() -> None:
    config = config_of(gradient_checkpointing=True, gradient_checkpointing_interval=2, train_batch_size=1)
    small = Bucket(128, 96, 17)
    counted, told = counted_step(config, MIDDLE, small), estimated(config, MIDDLE, small)
    assert told == pytest.approx(counted, rel=0.1)
    assert counted_step(config, MIDDLE, small, fake=True) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize(
    "flags",
    [
        {"mixed_precision": "bf16", "lora_rank": 64},
        {"mixed_precision": "bf16", "optimizer": "adamw_bf16", "ltx_train_mode": "i2v"},
        {"gradient_checkpointing": True, "gradient_checkpointing_free_blocks": 3, "mixed_precision": "bf16"},
    ],
    ids=str,
)
def test_a_larger_batch_of_it_takes_what_was_said(flags: dict[str, object]) -> None:
    within_a_tenth(config_of(**flags), MIDDLE, Bucket(480, 480, 49), fake=True)
