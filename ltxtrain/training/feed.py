"""The batches of a run, each one made ready for the device in a thread while the one before it is computed.

Shape legend: B batch, C latent channels, F latent frames, H W latent size, L text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from ltxtrain.learn.batch import (
    Clean,
    Drawn,
    DrawRule,
    batches_ahead,
    draw_captions,
    draw_noise,
    read_batch,
    read_what_is_there,
)
from ltxtrain.learn.device import page_locked, use_in_thread
from ltxtrain.learn.draws import Place
from ltxtrain.learn.objective import levels_of
from ltxtrain.learn.sigmas import shift_for
from ltxtrain.model.transformer import caption_mask
from ltxtrain.plan.order import Batch
from ltxtrain.training.run import Run


@dataclass(frozen=True)
class Ready:
    """All that the device is given of a batch. ``mask_BL`` is None where every token is a real one, ``conditioned_B``
    where no sample shows its first frame clean. ``sigmas`` are those of the samples, for the record."""

    latents_BCFHW: torch.Tensor
    noise_BCFHW: torch.Tensor
    embeds_BLD: torch.Tensor
    mask_BL: torch.Tensor | None
    sigma_BF: torch.Tensor
    conditioned_B: torch.Tensor | None
    sigmas: Sequence[float]

    def sent(self, device: torch.device) -> Ready:
        """On ``device``. Nobody waits for a CUDA device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"))

    def page_locked(self, device: torch.device) -> Ready:
        return self._each(lambda tensor: page_locked(tensor, device))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Ready:
        parts = vars(self).items()
        return Ready(**{name: change(part) if isinstance(part, torch.Tensor) else part for name, part in parts})


def made_ready(run: Run, clean: Clean, drawn: Drawn) -> Ready:
    """All that is worked out in main memory, so that the device is asked nothing and waits for nothing."""
    sigma_BF, conditioned_B = levels_of(drawn.sigmas, drawn.conditioned, clean.latents_BCFHW.shape[2])
    ready = Ready(
        clean.latents_BCFHW,
        drawn.noise_BCFHW,
        clean.embeds_BLD.to(run.dtype),
        caption_mask(clean.mask_BL),
        sigma_BF,
        conditioned_B,
        drawn.sigmas,
    )
    return ready.page_locked(run.device)


def place_of(run: Run, batch: Batch) -> Place:
    """Where the draws of a batch are used: its step, and its number in that."""
    step, micro = divmod(batch.index, run.plan.accumulation)
    return Place(run.plan.config.model.seed, step + 1, micro)


class Feed:
    """Batches from ``first`` on. Their files are read further ahead, by ``batches_ahead``.

    What would have to be encoded first is left to whoever takes it: models are loaded in the main thread alone, in the
    order of the steps. What goes wrong in the thread is raised when that batch is taken.
    """

    def __init__(self, run: Run, first: int) -> None:
        self._run = run
        self._coming: dict[int, Future[Ready | None]] = {}
        self._ahead = batches_ahead(run.plan.config.speed) - 1  # of the one that is made ready
        self._thread = ThreadPoolExecutor(1, "batches", use_in_thread, (run.device,))
        for index in range(first, min(first + self._ahead, run.batches)):
            run.prepared.ahead(run.order[index].samples)
        self._begin(first)

    def take(self, batch: Batch) -> Ready:
        """Waits for the batch, and begins with the next one. One that was taken before is made ready again."""
        coming = self._coming.pop(batch.index, None)
        ready = coming.result() if coming else None
        self._begin(batch.index + 1)
        return ready if ready is not None else self._ready(batch, read_batch)

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _begin(self, index: int) -> None:
        if index < self._run.batches and index not in self._coming:
            # The order is looked up here: it keeps tables that only one thread may use.
            later = [self._run.order[index + self._ahead]] if index + self._ahead < self._run.batches else []
            self._coming[index] = self._thread.submit(self._in_thread, self._run.order[index], later)

    def _in_thread(self, batch: Batch, later: Sequence[Batch]) -> Ready | None:
        for other in later:
            self._run.prepared.ahead(other.samples)
        return self._ready(batch, read_what_is_there)

    def _ready(self, batch: Batch, read: Callable[..., Clean | None]) -> Ready | None:
        """All draws are functions of the batch's place, so it is the same whoever makes it ready, and when."""
        run, config, place = self._run, self._run.plan.config, place_of(self._run, batch)
        clean = read(run.prepared, batch.samples, draw_captions(batch, place, config.data.caption_dropout_probability))
        if clean is None:
            return None
        shift = shift_for(config.objective, batch.samples[0].bucket.tokens, run.scheduler)
        rule = DrawRule(config.objective, shift, run.datasets[batch.dataset].timestep_offset)
        return made_ready(run, clean, draw_noise(batch, place, clean.latents_BCFHW.shape[1:], rule))
