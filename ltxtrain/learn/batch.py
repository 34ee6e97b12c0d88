"""What one batch gives to the model: latents and captions as they are read, noise as it is drawn by its place.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ltxtrain.config.compute import SpeedConfig
from ltxtrain.config.objective import ObjectiveConfig
from ltxtrain.learn.draws import Place
from ltxtrain.learn.sigmas import draw_sigma
from ltxtrain.plan.order import Batch
from ltxtrain.plan.records import Sample

READ_AHEAD = 2  # batches; more only helps where the time that a disk takes varies much


def batches_ahead(speed: SpeedConfig) -> int:
    """How many batches are read while earlier ones are computed: ``dataloader_prefetch_qlen`` if that is asked for."""
    return speed.dataloader_prefetch_qlen if speed.dataloader_prefetch else READ_AHEAD


class Reader(Protocol):
    """Where latents and prompt embeddings come from. ``there`` is None where one of them would have to be made."""

    def latents(self, sample: Sample) -> torch.Tensor: ...
    def prompt(self, text: str) -> dict[str, torch.Tensor]: ...
    def there(
        self, samples: Sequence[Sample], texts: Sequence[str]
    ) -> tuple[list[torch.Tensor], list[dict[str, torch.Tensor]]] | None: ...


@dataclass(frozen=True)
class Clean:
    latents_BCFHW: torch.Tensor
    embeds_BLD: torch.Tensor
    mask_BL: torch.Tensor


@dataclass(frozen=True)
class Drawn:
    """One sigma a sample; ``conditioned`` samples show their first frame clean."""

    noise_BCFHW: torch.Tensor
    sigmas: list[float]
    conditioned: list[bool]


@dataclass(frozen=True)
class DrawRule:
    """``shift`` is the one in force for the batch's size; ``offset`` is the data set's own, of the normal draw."""

    objective: ObjectiveConfig
    shift: float
    offset: float = 0.0


def read_batch(reader: Reader, samples: Sequence[Sample], captions: Sequence[str]) -> Clean:
    """Latents and embeddings of the samples, each with its caption. What is not there is made."""
    return _stacked([reader.latents(sample) for sample in samples], [reader.prompt(caption) for caption in captions])


def read_what_is_there(reader: Reader, samples: Sequence[Sample], captions: Sequence[str]) -> Clean | None:
    """The same without making anything: None where something is not there."""
    found = reader.there(samples, captions)
    return None if found is None else _stacked(*found)


def _stacked(latents: Sequence[torch.Tensor], prompts: Sequence[dict[str, torch.Tensor]]) -> Clean:
    return Clean(
        latents_BCFHW=torch.stack([latents_CFHW.float() for latents_CFHW in latents]),
        embeds_BLD=torch.stack([prompt["embeds"] for prompt in prompts]),
        mask_BL=torch.stack([prompt["mask"] for prompt in prompts]),
    )


def draw_captions(batch: Batch, place: Place, dropout: float) -> list[str]:
    """One of each sample's captions, or now and then none."""
    captions = []
    for sample, label in _labelled(batch):
        choice = int(place.scalars("caption", label).integers(len(sample.captions)))
        dropped = place.happens("caption dropout", label, dropout)
        captions.append("" if dropped else sample.captions[choice])
    return captions


def draw_noise(batch: Batch, place: Place, shape: Sequence[int], rule: DrawRule) -> Drawn:
    """Noise of ``shape`` for each sample, and its sigma. In i2v mode some samples of i2v data sets are conditioned."""
    first_frame = rule.objective.ltx_i2v_prob if rule.objective.ltx_train_mode == "i2v" else 0.0
    noise, sigmas, conditioned = [], [], []
    for sample, label in _labelled(batch):
        noise.append(place.noise("noise", label, tuple(shape)))
        sigmas.append(draw_sigma(place, label, rule.objective, rule.shift, rule.offset))
        conditioned.append(place.happens("first frame", label, first_frame if sample.i2v else 0.0))
    return Drawn(torch.stack(noise), sigmas, conditioned)


def _labelled(batch: Batch) -> list[tuple[Sample, str]]:
    """With what tells two uses apart: a data set that is repeated may show one sample twice in a batch."""
    return [(sample, f"{index}:{sample.id}") for index, sample in enumerate(batch.samples)]
