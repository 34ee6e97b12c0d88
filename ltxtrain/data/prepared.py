"""What caching hands to training: latents by sample, prompt embeddings by text, wherever they come from.

An entry that is missing, damaged or on demand is encoded when it is asked for. The models that this takes are loaded
by whoever built the ``Source``; nothing here knows them. That is for the main thread; what is there, any may have.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch

from ltxtrain.data.cache import read_entry, refuse_non_finite, write_entry
from ltxtrain.data.cache_groups import Group
from ltxtrain.data.claims import Claims
from ltxtrain.data.store import Entry, seems_whole
from ltxtrain.events import MemoryMeasured
from ltxtrain.plan.records import Sample

Item = TypeVar("Item")
Tensors = dict[str, torch.Tensor]
KEPT_IN_MEMORY_BYTES = 2 * 1024**3
# What was asked for ahead and never taken is dropped from here on, the oldest first.
AHEAD = 256
# Alternatives of one caption that are read ahead: one of them is drawn at each use.
CAPTIONS_AHEAD = 4


@dataclass(frozen=True)
class OnDemand(Generic[Item]):
    """``encode`` gives the tensors of all members of ``group`` by entry; it may load a model for that."""

    group: Group[Item]
    encode: Callable[[Group[Item]], Mapping[Entry, Tensors]]


@dataclass(frozen=True)
class Source(Generic[Item]):
    """One kind of entries.

    ``expected`` says that an item's entry was there when training began, so that its absence is worth a word;
    ``written`` says that it is to be kept on disk. ``named`` is how messages call it.
    """

    entry_of: Callable[[Item], Entry]
    on_demand: Callable[[Item, Entry], OnDemand[Item]]
    expected: Callable[[Item], bool]
    written: Callable[[Item], bool]
    named: Callable[[Item], str]
    compress: bool = False


class Prepared:
    """Reads entries and keeps them in memory up to ``KEPT_IN_MEMORY_BYTES``. ``digests`` are of the model's parts.

    ``told`` is a list that the encoders add sentences to as well. ``measured`` is what caching
    took of memory, for whoever keeps the record; the encoders' owner puts it there.
    """

    def __init__(
        self,
        digests: Mapping[str, str],
        latents: Source[Sample],
        prompts: Source[str],
        claims: Claims,
        *,
        release: Callable[[], None] = lambda: None,
        told: list[str] | None = None,
    ) -> None:
        self.digests = digests
        self.measured: Sequence[MemoryMeasured] = ()
        self._latents, self._prompts = latents, prompts
        self._claims, self._release = claims, release
        self._budget = KEPT_IN_MEMORY_BYTES
        self._kept: dict[str, Tensors] = {}
        self._coming: dict[str, Future[Tensors | None]] = {}
        self._guard = threading.Lock()  # of the three above
        self._told = told if told is not None else []
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="cache")

    def latents(self, sample: Sample) -> torch.Tensor:
        """``latents_CFHW`` in the VAE's dtype. Encodes them when they are missing, damaged or on demand."""
        return self._take(self._latents, sample)["latents"]

    def prompt(self, text: str) -> Tensors:
        """``{"embeds": embeds_LD, "mask": mask_L}``, by the same rule."""
        return self._take(self._prompts, text)

    def there(self, samples: Sequence[Sample], texts: Sequence[str]) -> tuple[list[torch.Tensor], list[Tensors]] | None:
        """What ``latents`` and ``prompt`` give for all of these; None where one would have to be encoded."""
        entries = [*map(self._latents.entry_of, samples), *map(self._prompts.entry_of, texts)]
        found: list[Tensors] = []
        for entry in entries:
            if (tensors := self._found(entry)) is None:
                return None
            found.append(tensors)
        return [tensors["latents"] for tensors in found[: len(samples)]], found[len(samples) :]

    def ahead(self, samples: Sequence[Sample]) -> None:
        """Read what these samples need in a thread, while the caller goes on."""
        for sample in samples:
            self._fetch(self._latents.entry_of(sample))
            for text in sample.captions[:CAPTIONS_AHEAD]:
                self._fetch(self._prompts.entry_of(text))

    def forget(self, samples: Iterable[Sample]) -> None:
        """Remove the latents of these samples, on disk and in memory."""
        for sample in samples:
            entry = self._latents.entry_of(sample)
            with self._guard:
                self._coming.pop(entry.key, None)
                self._budget += _size(self._kept.pop(entry.key, {}))
            entry.path.unlink(missing_ok=True)

    def told(self) -> list[str]:
        """What happened since the last call that somebody should know, a sentence each."""
        told = [*self._claims.told, *self._told]
        self._claims.told.clear()
        self._told.clear()
        return told

    def release(self) -> None:
        """Let go of models that were loaded on demand. They are loaded again if need be."""
        self._release()

    def _fetch(self, entry: Entry) -> None:
        with self._guard:
            if entry.key in self._kept or entry.key in self._coming:
                return
            self._coming[entry.key] = self._reader.submit(read_entry, entry.path, entry.key)
            while len(self._coming) > AHEAD:
                self._coming.pop(next(iter(self._coming))).cancel()

    def _take(self, source: Source[Item], item: Item) -> Tensors:
        entry = source.entry_of(item)
        found = self._found(entry)
        return found if found is not None else self._keep(entry, self._make(source, item, entry))

    def _found(self, entry: Entry) -> Tensors | None:
        with self._guard:
            if entry.key in self._kept:
                return self._kept[entry.key]
            coming = self._coming.pop(entry.key, None)
        tensors = coming.result() if coming else read_entry(entry.path, entry.key)
        return None if tensors is None else self._keep(entry, tensors)

    def _keep(self, entry: Entry, tensors: Tensors) -> Tensors:
        with self._guard:
            if entry.key not in self._kept and _size(tensors) <= self._budget:
                self._budget -= _size(tensors)
                self._kept[entry.key] = tensors
        return tensors

    def _make(self, source: Source[Item], item: Item, entry: Entry) -> Tensors:
        """Encode what is not there. Another process may be at it just now: then it is waited for."""
        wanted = source.on_demand(item, entry)
        with self._claims.waiting(wanted.group.claims, source.named(item)):
            if (found := read_entry(entry.path, entry.key)) is not None:
                return found
            self._tell_miss(source, item, entry.path)
            made = wanted.encode(wanted.group)
            refuse_non_finite(made[entry], source.named(item))
            if source.written(item):
                for member, other in wanted.group:
                    if other == entry or not seems_whole(other):
                        label = source.named(member)
                        write_entry(other.path, other.key, made[other], made_of=label, compress=source.compress)
        return made[entry]

    def _tell_miss(self, source: Source[Item], item: Item, path: Path) -> None:
        if path.exists():
            self._told.append(f"the cache entry of {source.named(item)} was damaged and is encoded again")
        elif source.expected(item):
            self._told.append(f"the cache entry of {source.named(item)} has gone and is encoded again")


def _size(tensors: Tensors) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
