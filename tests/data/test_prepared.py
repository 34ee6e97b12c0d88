"""What training reads: whatever is missing, damaged or on demand is encoded when it is asked for, and told."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from ltxtrain.data import prepared as module
from ltxtrain.data.cache import read_entry, write_entry
from ltxtrain.data.cache_groups import Group, Place, grouped
from ltxtrain.data.claims import Claims
from ltxtrain.data.prepared import OnDemand, Prepared, Source, Tensors
from ltxtrain.data.store import Entry, entry_at, entry_key
from ltxtrain.errors import DataError
from ltxtrain.plan.records import Bucket, Sample


def sample_of(number: int, captions: tuple[str, ...] = ("a",)) -> Sample:
    return Sample(f"set/{number}#0", "set", f"{number}", captions, 0, 25, Bucket(32, 32, 1), (32, 32), (0, 0), 0, False)


SAMPLES = [sample_of(number) for number in range(5)]


@dataclass
class World:
    """A cache whose encoder writes down what it encodes. Pairs of samples are encoded together."""

    folder: Path
    later: bool = False
    written: bool = True
    encoded: list[str] = field(default_factory=list)
    released: int = 0

    def entry(self, sample: Sample) -> Entry:
        return entry_at(self.folder, "latents", entry_key("latents", {"id": sample.id, "crop": sample.crop}))

    def text_entry(self, text: str) -> Entry:
        return entry_at(self.folder, "prompts", entry_key("prompts", {"text": text}))

    def tensors(self, sample: Sample) -> Tensors:
        return {"latents": torch.full((3,), float(sample.path) + sample.crop[0] / 10)}

    def write(self, *samples: Sample) -> None:
        for sample in samples:
            write_entry(*vars(self.entry(sample)).values(), self.tensors(sample))

    def prepared(self) -> Prepared:
        groups = {e.key: g for g in grouped(SAMPLES, self.entry, lambda sample: Place("", 2)) for e in g.entries}

        def encode(group: Group[Sample]) -> dict[Entry, Tensors]:
            self.encoded.append("+".join(sample.path for sample in group.items))
            return {entry: self.tensors(sample) for sample, entry in group}

        def encode_text(group: Group[str]) -> dict[Entry, Tensors]:
            self.encoded += group.items
            return {entry: {"embeds": torch.ones(2)} for _, entry in group}

        latents: Source[Sample] = Source(
            self.entry,
            lambda sample, entry: OnDemand(groups.get(entry.key) or Group((sample,), (entry,)), encode),
            expected=lambda sample: not self.later,
            written=lambda sample: self.written,
            named=lambda sample: sample.id,
        )
        prompts: Source[str] = Source(
            self.text_entry,
            lambda text, entry: OnDemand(Group((text,), (entry,)), encode_text),
            expected=lambda text: True,
            written=lambda text: True,
            named=lambda text: f"caption {text!r}",
        )
        return Prepared({"vae": "x"}, latents, prompts, Claims(self.folder), release=self.release)

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_what_is_there_is_read_and_nothing_is_said(world: World) -> None:
    world.write(*SAMPLES)
    prepared = world.prepared()
    for number, sample in enumerate(SAMPLES):
        assert torch.equal(prepared.latents(sample), torch.full((3,), float(number)))
    assert world.encoded == [] and prepared.told() == [] and prepared.digests == {"vae": "x"}


def test_a_damaged_entry_is_encoded_again_with_its_group_and_told_once(world: World) -> None:
    world.write(*SAMPLES)
    path = world.entry(SAMPLES[2]).path
    good, neighbour = path.read_bytes(), world.entry(SAMPLES[3]).path.stat()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    prepared = world.prepared()
    assert torch.equal(prepared.latents(SAMPLES[2]), torch.full((3,), 2.0))
    assert world.encoded == ["2+3"], "as it was encoded the first time"
    assert path.read_bytes() == good
    assert world.entry(SAMPLES[3]).path.stat().st_mtime_ns == neighbour.st_mtime_ns, "what is sound is left alone"
    assert prepared.told() == ["the cache entry of set/2#0 was damaged and is encoded again"]
    assert prepared.told() == []


def test_a_missing_entry_is_told_unless_nobody_expected_it(world: World) -> None:
    prepared = world.prepared()
    prepared.latents(SAMPLES[0])
    assert prepared.told() == ["the cache entry of set/0#0 has gone and is encoded again"]
    prepared.latents(SAMPLES[1])
    assert world.encoded == ["0+1"] and prepared.told() == [], "its group has brought it along"
    world.later = True
    prepared.latents(SAMPLES[4])
    assert world.encoded == ["0+1", "4"] and prepared.told() == []
    assert prepared.prompt("a").keys() == {"embeds"}
    assert prepared.told() == ["the cache entry of caption 'a' has gone and is encoded again"]


def test_what_is_not_to_be_written_is_encoded_and_not_written(world: World) -> None:
    world.written, world.later = False, True
    prepared = world.prepared()
    assert torch.equal(prepared.latents(SAMPLES[4]), torch.full((3,), 4.0))
    assert not list(world.folder.rglob("*.safetensors"))
    world.prepared().latents(SAMPLES[4])
    assert world.encoded == ["4", "4"]


def test_what_is_not_finite_is_refused_by_name_though_it_is_not_written(world: World) -> None:
    world.written = False
    world.tensors = lambda sample: {"latents": torch.tensor([1.0, float("nan")])}  # type: ignore[method-assign]
    with pytest.raises(DataError, match="set/4#0: its latents came out with NaN"):
        world.prepared().latents(SAMPLES[4])


def test_entries_are_kept_in_memory_up_to_the_budget(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_IN_MEMORY_BYTES", 2 * 12)
    world.write(*SAMPLES)
    prepared = world.prepared()
    for sample in SAMPLES:
        prepared.latents(sample)
        world.entry(sample).path.unlink()
    for sample in SAMPLES[:2]:
        prepared.latents(sample)
    assert world.encoded == []
    prepared.latents(SAMPLES[2])
    assert world.encoded == ["2+3"]


def test_an_entry_that_two_threads_read_at_a_time_is_counted_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the second of them reads it while the first one does."""
    monkeypatch.setattr(module, "KEPT_IN_MEMORY_BYTES", 2 * 12)
    world.write(*SAMPLES)
    prepared = world.prepared()

    def twice(path: Path, key: str) -> Tensors | None:
        monkeypatch.setattr(module, "read_entry", read_entry)
        assert prepared.there(SAMPLES[:1], []) is not None
        return read_entry(path, key)

    monkeypatch.setattr(module, "read_entry", twice)
    for sample in SAMPLES[:2]:
        prepared.latents(sample)
        world.entry(sample).path.unlink()
    for sample in SAMPLES[:2]:
        prepared.latents(sample)
    assert world.encoded == []


def test_reading_ahead_happens_in_a_thread_and_changes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.write(*SAMPLES)
    threads = set()

    def noted(path: Path, key: str) -> Tensors | None:
        threads.add(threading.current_thread().name)
        return read_entry(path, key)

    monkeypatch.setattr(module, "read_entry", noted)
    prepared = world.prepared()
    prepared.ahead(SAMPLES)
    prepared.ahead(SAMPLES)
    deadline = time.monotonic() + 10
    while not all(coming.done() for coming in prepared._coming.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    for sample in SAMPLES:
        world.entry(sample).path.unlink()
    for number, sample in enumerate(SAMPLES):
        assert torch.equal(prepared.latents(sample), torch.full((3,), float(number)))
    assert world.encoded == [] and len(threads) == 1 and "MainThread" not in threads


def test_reading_ahead_of_what_is_never_taken_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AHEAD", 3)
    world.write(*SAMPLES)
    prepared = world.prepared()
    prepared.ahead([sample_of(number, ()) for number in range(5)])
    assert len(prepared._coming) == 3
    assert torch.equal(prepared.latents(SAMPLES[0]), torch.full((3,), 0.0))


def test_forgotten_latents_are_gone_from_disk_and_memory(world: World) -> None:
    world.write(*SAMPLES)
    prepared = world.prepared()
    prepared.latents(SAMPLES[0])
    prepared.ahead(SAMPLES[1:2])
    prepared._coming[world.entry(SAMPLES[1]).key].result()
    prepared.forget(SAMPLES[:2])
    prepared.forget(SAMPLES[:2])
    assert not world.entry(SAMPLES[0]).path.exists() and not world.entry(SAMPLES[1]).path.exists()
    assert world.entry(SAMPLES[2]).path.exists()
    prepared.latents(SAMPLES[1])
    assert world.encoded == ["0+1"], "what was read ahead as well"
    world.entry(SAMPLES[0]).path.unlink()
    prepared.latents(SAMPLES[0])
    assert world.encoded == ["0+1", "0+1"]


def test_a_cut_that_is_drawn_anew_is_encoded_alone(world: World) -> None:
    world.write(*SAMPLES)
    prepared = world.prepared()
    world.later = True
    moved = Sample(**{**vars(SAMPLES[0]), "crop": (5, 0)})
    assert torch.equal(prepared.latents(moved), torch.full((3,), 0.5))
    assert world.encoded == ["0"] and prepared.told() == []


def test_an_entry_that_another_process_is_encoding_is_waited_for(world: World) -> None:
    other = Claims(world.folder)
    [group] = grouped(SAMPLES[4:], world.entry, lambda sample: Place("", 2))
    assert other.take(*group.claims)

    def finish() -> None:
        world.write(SAMPLES[4])
        other.release(*group.claims)

    timer = threading.Timer(0.3, finish)
    timer.start()
    assert torch.equal(world.prepared().latents(SAMPLES[4]), torch.full((3,), 4.0))
    timer.join()
    assert world.encoded == []


def test_release_lets_go_of_models(world: World) -> None:
    world.prepared().release()
    assert world.released == 1
