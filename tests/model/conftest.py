from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, LTXPipeline, LTXVideoTransformer3DModel

from ltxtrain.config.model import ModelConfig
from ltxtrain.model.folder import ModelFolder, locate_model
from ltxtrain.model.loading import Loading, load_transformer

Locate = Callable[..., ModelFolder]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def locate(cache: Path) -> Locate:
    """``locate(pretrained_..._path=...)``: the built-in tiny model with some of its options set otherwise."""

    def find(**options: object) -> ModelFolder:
        return locate_model(ModelConfig(**{"pretrained_model_name_or_path": "ltxtrain/tiny"} | options), cache)

    return find


@pytest.fixture(scope="session")
def tiny(locate: Locate) -> ModelFolder:
    return locate()


@pytest.fixture(scope="session")
def whole_pipeline(tiny: ModelFolder) -> LTXPipeline:
    """The pipeline as any other program loads it. Nothing is ever changed in it."""
    pipeline = DiffusionPipeline.from_pretrained(str(tiny.base))
    # The library's weights lie where they do in the file, at odd addresses, and there the CPU adds up in another order.
    for weight in pipeline.vae.parameters():
        weight.data = weight.data.clone()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def transformer(tiny: ModelFolder) -> LTXVideoTransformer3DModel:
    return load_transformer(tiny, Loading(torch.float32))
