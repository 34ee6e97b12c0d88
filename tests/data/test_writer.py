"""Entries are written several at a time: sooner when they are large or old, and all of them when the block ends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from ltxtrain.data import writer as module
from ltxtrain.data.cache import packed, read_entry
from ltxtrain.data.store import Entry, entry_at, entry_key
from ltxtrain.data.writer import Encoded, Writer
from ltxtrain.errors import DataError


def encoded(folder: Path, number: int, values: int = 10) -> Encoded:
    entry = entry_at(folder, "latents", entry_key("latents", {"number": number}))
    return Encoded(entry, {"latents": torch.full((values,), float(number))}, f"clip {number}", f"claim {number}")


def is_there(entry: Entry) -> bool:
    return read_entry(entry.path, entry.key) is not None


class Committed:
    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def __call__(self, batch: Sequence[Encoded]) -> None:
        assert all(is_there(item.entry) for item in batch), "only what is on disk is told"
        self.batches.append([item.claim for item in batch])


@pytest.mark.parametrize("compress", [False, True])
def test_batches_hold_as_many_as_asked_and_the_rest_is_written_at_the_end(tmp_path: Path, compress: bool) -> None:
    items = [encoded(tmp_path, number) for number in range(7)]
    committed = Committed()
    with Writer(3, compress, committed) as writer:
        for item in items:
            writer.put(item)
    assert committed.batches == [[f"claim {n}" for n in numbers] for numbers in ((0, 1, 2), (3, 4, 5), (6,))]
    for item in items:
        assert item.entry.path.read_bytes() == packed(item.entry.key, item.tensors, compress=compress)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]


def test_large_entries_do_not_wait_for_a_full_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 1000)
    committed = Committed()
    with Writer(1000, False, committed) as writer:
        for number in range(4):
            writer.put(encoded(tmp_path, number, values=125))
    assert [len(batch) for batch in committed.batches] == [2, 2]


def test_old_entries_do_not_wait_for_a_full_batch_nor_for_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_SECONDS", 0.1)
    committed = Committed()
    with Writer(1000, False, committed) as writer:
        for number in range(2):
            writer.put(encoded(tmp_path, number))
        until = time.monotonic() + 20
        while not committed.batches and time.monotonic() < until:
            time.sleep(0.01)
        assert committed.batches == [["claim 0", "claim 1"]]
        writer.put(encoded(tmp_path, 2))
    assert committed.batches[1:] == [["claim 2"]]


def test_whatever_ends_the_block_what_is_encoded_is_kept(tmp_path: Path) -> None:
    items = [encoded(tmp_path, number) for number in range(3)]
    with pytest.raises(KeyboardInterrupt), Writer(1000, False, Committed()) as writer:
        for item in items:
            writer.put(item)
        raise KeyboardInterrupt
    assert all(is_there(item.entry) for item in items)


def test_what_is_not_finite_is_refused_at_once_and_named(tmp_path: Path) -> None:
    bad = Encoded(entry_at(tmp_path, "latents", "ab" * 32), {"latents": torch.tensor([float("nan")])}, "clip seven")
    with Writer(1000, False, Committed()) as writer, pytest.raises(DataError, match="clip seven: its latents came out"):
        writer.put(bad)
    assert not bad.entry.path.exists()


def test_an_error_of_the_disk_is_raised_and_what_came_before_is_kept(tmp_path: Path) -> None:
    items = [encoded(tmp_path, number) for number in range(4)]
    items[2].entry.path.parent.parent.mkdir(exist_ok=True)
    items[2].entry.path.parent.write_bytes(b"a file in the folder's place")
    committed = Committed()
    with pytest.raises(OSError), Writer(3, False, committed) as writer:
        for item in items:
            writer.put(item)
        writer.flush()
    assert committed.batches in ([], [["claim 3"]])
    assert is_there(items[0].entry) and is_there(items[1].entry)
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith(".tmp")]


def test_entries_have_the_mode_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with Writer(1, False, Committed()) as writer:
            writer.put(encoded(tmp_path, 0))
    finally:
        os.umask(before)
    assert encoded(tmp_path, 0).entry.path.stat().st_mode & 0o777 == 0o640
