"""Every random draw of training, as a pure function of where it is used.

No global random state is read or written, so a run resumed at any step draws what it would have drawn, and anything
else that happens in the process (validation, say) changes no weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from ltxtrain.facts.digests import sha256_of


@dataclass(frozen=True)
class Place:
    """Where a draw is used. ``step`` counts from 1, ``micro`` is the accumulation index."""

    seed: int
    step: int
    micro: int
    rank: int = 0

    def number(self, purpose: str, sample: str = "") -> int:
        """63 bits from a digest: independent streams for each purpose and sample."""
        return int(sha256_of(purpose, self.seed, self.step, self.micro, self.rank, sample)[:16], 16) >> 1

    def scalars(self, purpose: str, sample: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=self.number(purpose, sample)))

    def noise(self, purpose: str, sample: str, shape: tuple[int, ...]) -> torch.Tensor:
        """Standard normal float32, made on the CPU so that every device sees the same noise."""
        generator = torch.Generator("cpu").manual_seed(self.number(purpose, sample))
        return torch.randn(shape, generator=generator)

    def happens(self, purpose: str, sample: str, probability: float) -> bool:
        return bool(self.scalars(purpose, sample).random() < probability)


@contextmanager
def dropout_seed(place: Place, device: torch.device) -> Iterator[None]:
    """Dropout layers use torch's global state: give them a seed of their own inside, and the old state back after.

    Only the generators of the CPU and of ``device`` are touched: ``torch.manual_seed`` would seed every other GPU, too.
    """
    number = place.number("dropout")
    with torch.random.fork_rng(devices=[]), _accelerator_seed(device, number):
        torch.default_generator.manual_seed(number)
        yield


@contextmanager
def _accelerator_seed(device: torch.device, number: int) -> Iterator[None]:
    if device.type == "cuda":
        with torch.cuda.device(device), torch.random.fork_rng(devices=[torch.cuda.current_device()]):
            torch.cuda.manual_seed(number)
            yield
    elif device.type == "mps":
        before = torch.mps.get_rng_state()
        try:
            torch.mps.manual_seed(number)
            yield
        finally:
            torch.mps.set_rng_state(before)
    else:
        yield
