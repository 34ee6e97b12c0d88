"""The models that encode clips and captions, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ltxtrain.data.cache_fill import Batches
from ltxtrain.data.prepared import Tensors
from ltxtrain.events import LATENTS, TEXTS
from ltxtrain.learn.device import DTYPES, Advice, check_dtype, find_device, memory_advice
from ltxtrain.learn.memory import Meter, release_memory
from ltxtrain.learn.shortage import needs
from ltxtrain.model.arithmetic import set_tf32, takes_tf32
from ltxtrain.model.assemble import Place, assemble_text_pipeline, assemble_vae
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.text import MAX_TOKENS, PromptEmbedding, encode_prompts
from ltxtrain.model.vae import encode_clips
from ltxtrain.plan.records import Plan
from ltxtrain.units import counted


class Encoders:
    """The VAE and the text encoder, each loaded when it is first needed, and let go when told so."""

    def __init__(self, plan: Plan, model: ModelFolder) -> None:
        config = plan.config
        self.device = find_device(config.speed.torch_num_threads)
        self.dtype = check_dtype(self.device, config.precision.mixed_precision, config.precision.vae_dtype)
        self.meter = Meter(self.device)
        self.batches = Batches()
        self.told_of_text: tuple[str, ...] = ()  # how it is quantised
        self._plan = plan
        self._precision, self._memory = config.precision, config.memory
        set_tf32(disabled=config.precision.disable_tf32)
        self._model = model
        self._vae: Any = None
        self._text: Any = None

    def tf32(self, dtype: torch.dtype) -> bool:
        """Whether a model of ``dtype`` computes in TF32 here, which its results depend on."""
        return takes_tf32(self.device.type, dtype, disabled=self._precision.disable_tf32)

    def load_vae(self) -> None:
        if self._vae is None:
            with memory_advice("placing the VAE", self._needs(LATENTS)):
                place = Place(self.device, DTYPES[self._precision.vae_dtype])
                self._vae, _ = assemble_vae(self._model, self._memory, place, "encoder")

    def load_text(self) -> None:
        if self._text is None:
            with memory_advice("placing the text encoder", self._needs(TEXTS)):
                place = Place(self.device, self.dtype)
                self._text, told = assemble_text_pipeline(self._model, self._precision, self._memory, place)
            self.told_of_text = told

    def clips(self, shape: str, clips: Sequence[Any], *, tiled: bool, framewise: bool) -> list[Tensors]:
        """Clips of one shape to their latents. Raises ``OutOfMemoryError`` when even one does not fit."""

        def encode(part: Sequence[Any]) -> list[Tensors]:
            with memory_advice(f"encoding {len(part)} x {shape}", self._needs(LATENTS)):
                latents = encode_clips(self._vae, part, tiled=tiled, framewise=framewise)
                return [{"latents": latents_CFHW} for latents_CFHW in latents]

        self.load_vae()
        return self.batches.run(shape, clips, encode)

    def texts(self, texts: Sequence[str], cut: list[str]) -> list[Tensors]:
        """Those that are longer than what is encoded are added to ``cut``."""

        def encode(part: Sequence[str]) -> list[Tensors]:
            with memory_advice(f"encoding {counted(len(part), 'caption')}", self._needs(TEXTS)):
                embeddings = encode_prompts(self._text, part)
            cut.extend(text for text, one in zip(part, embeddings, strict=True) if one.tokens > MAX_TOKENS)
            return [_tensors_of(embedding) for embedding in embeddings]

        self.load_text()
        return self.batches.run("captions", texts, encode)

    def _needs(self, phase: str) -> Advice:
        return needs(self._plan, phase, self.device)

    def release(self) -> None:
        if self._vae is not None or self._text is not None:
            self._vae = self._text = None
            release_memory(self.device)


def _tensors_of(embedding: PromptEmbedding) -> Tensors:
    return {"embeds": embedding.embeds_LD, "mask": embedding.mask_L}
