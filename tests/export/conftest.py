from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel

from ltxtrain.config.model import ModelConfig
from ltxtrain.learn.checkpoint import Checkpoint, save_checkpoint
from ltxtrain.model.adapter import AdapterSpec, adapter_weights, attach_adapter
from ltxtrain.model.folder import ModelFolder, locate_model
from ltxtrain.model.loading import Loading, load_transformer

# Every linear module of the transformer, by the ends of diffusers' names.
ALL_TARGETS = (
    *("to_q", "to_k", "to_v", "to_out.0", "proj", "net.2"),
    *("proj_in", "proj_out", "linear_1", "linear_2", "linear"),
)
DEFAULT_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")


@dataclass(frozen=True)
class FinishedRun:
    """A run's folder with a checkpoint, and the transformer with that very adapter in memory."""

    folder: Path
    transformer: LTXVideoTransformer3DModel
    checkpoint: Path


MakeRun = Callable[..., FinishedRun]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(cache: Path) -> ModelFolder:
    return locate_model(ModelConfig(pretrained_model_name_or_path="ltxtrain/tiny"), cache)


@pytest.fixture
def make_run(tiny: ModelFolder, tmp_path: Path) -> MakeRun:
    """``make_run(targets, rank=, alpha=, dtype=the base's, trained=the adapter's)``: an adapter with weights that
    matter, as if trained."""

    def make(
        targets: tuple[str, ...] = DEFAULT_TARGETS,
        *,
        rank: int = 4,
        alpha: float = 4.0,
        step: int = 7,
        dtype: torch.dtype = torch.float32,
        trained: torch.dtype = torch.float32,
    ) -> FinishedRun:
        transformer = load_transformer(tiny, Loading(dtype))
        spec = AdapterSpec(rank, alpha, 0.1, targets)
        generator = torch.Generator().manual_seed(step)
        for parameter in attach_adapter(transformer, spec, 0, trained).values():
            parameter.data.normal_(0.0, 0.1, generator=generator)
        about = {
            "run": "my-run",
            "base_model": "ltxtrain/tiny",
            "base_model_revision": None,
            "base_model_sha256": "ab" * 32,
            "rank": rank,
            "alpha": alpha,
            "peft_config": spec.peft_config(),
            "adapter_dtype": str(trained).removeprefix("torch."),
            "config_sha256": "cd" * 32,
            "resolutions": ["64x64x9", "96x64x9"],
        }
        folder = tmp_path / "my-run"
        checkpoint = Checkpoint(step, adapter_weights(transformer), {}, {"about": about})
        path, _ = save_checkpoint(folder / "checkpoints", checkpoint)
        return FinishedRun(folder, transformer.eval(), path)

    return make
