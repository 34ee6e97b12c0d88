"""The cache: whatever is not exactly the entry that was written is a miss."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from ltxtrain.data.cache import read_entry, write_entry
from ltxtrain.data.store import entry_key, entry_path
from ltxtrain.errors import DataError

KEY = entry_key("latents", {"media": "a", "start": 0.0})
TENSORS = {
    "latents": torch.linspace(-3, 3, 24).reshape(2, 3, 4).to(torch.bfloat16),
    "mask": torch.tensor([True, False, True]),
    "scale": torch.tensor([0.25, 4.0]),
}


def same(found: dict[str, torch.Tensor] | None, expected: dict[str, torch.Tensor] = TENSORS) -> bool:
    return (
        found is not None
        and found.keys() == expected.keys()
        and all(found[name].dtype == expected[name].dtype for name in expected)
        and all(torch.equal(found[name], expected[name]) for name in expected)
    )


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = entry_path(tmp_path, "latents", KEY)
    write_entry(path, KEY, TENSORS)
    return path


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = entry_path(tmp_path, "packed", KEY)
    write_entry(path, KEY, TENSORS, compress=True)
    return path


def test_what_is_written_is_read(entry: Path, packed: Path) -> None:
    assert same(read_entry(entry, KEY))
    assert same(read_entry(packed, KEY))
    assert packed.read_bytes()[:2] == b"\x1f\x8b"
    assert gzip.decompress(packed.read_bytes()) == entry.read_bytes()


def test_entry_is_an_ordinary_safetensors_file(entry: Path) -> None:
    assert same(load_file(entry))


def test_compression_makes_what_compresses_smaller(tmp_path: Path) -> None:
    plain = write_entry(tmp_path / "plain", KEY, {"latents": torch.zeros(5000)})
    small = write_entry(tmp_path / "small", KEY, {"latents": torch.zeros(5000)}, compress=True)
    assert plain == (tmp_path / "plain").stat().st_size > 10 * small == 10 * (tmp_path / "small").stat().st_size


def test_same_tensors_give_the_same_bytes_every_time(tmp_path: Path) -> None:
    for compress in (False, True):
        written = set()
        for index in range(10):
            shuffled = dict(sorted(TENSORS.items(), key=lambda item, index=index: hash((item[0], index))))
            write_entry(tmp_path / f"{index}", KEY, shuffled, compress=compress)
            written.add((tmp_path / f"{index}").read_bytes())
        (content,) = written
        if compress:
            assert content[4:8] == bytes(4), "gzip's time of day"


def flipped_bits(path: Path) -> Iterator[tuple[int, int]]:
    """The file with each of its bits flipped in turn."""
    content = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for place, byte in enumerate(content):
            for bit in range(8):
                os.pwrite(file.fileno(), bytes([byte ^ 1 << bit]), place)
                yield place, bit
            os.pwrite(file.fileno(), bytes([byte]), place)


def test_every_single_flipped_bit_is_a_miss(entry: Path) -> None:
    for place, bit in flipped_bits(entry):
        assert read_entry(entry, KEY) is None, (place, bit)
    assert same(read_entry(entry, KEY))


def test_flipped_bit_of_a_packed_entry_is_a_miss_or_changes_nothing(packed: Path) -> None:
    """A few of gzip's bits say nothing about the content, such as its time of day."""
    verdicts = []
    for place, bit in flipped_bits(packed):
        found = read_entry(packed, KEY)
        assert found is None or same(found), (place, bit)
        verdicts.append(found is None)
    assert sum(verdicts) > 0.95 * len(verdicts)


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncation_is_a_miss(compress: bool, entry: Path, packed: Path) -> None:
    path = packed if compress else entry
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert read_entry(path, KEY) is None, length


def test_zeroed_blocks_longer_files_and_foreign_files_are_misses(entry: Path) -> None:
    content = entry.read_bytes()
    for start in range(0, len(content), 16):
        zeroed = content[:start] + bytes(16) + content[start + 16 :]
        if zeroed != content:
            entry.write_bytes(zeroed)
            assert read_entry(entry, KEY) is None, start
    deep = b"[" * 100_000
    for foreign in (
        bytes(len(content)),
        content + b"\0",
        content + content,
        b"\x1f\x8b" + content,
        save(TENSORS),
        save(TENSORS, {"ltxtrain_key": KEY}),
        save(TENSORS, {"ltxtrain_key": KEY, "ltxtrain_sha256": ""}),
        len(deep).to_bytes(8, "little") + deep,
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"null",
        (1 << 63).to_bytes(8, "little") + content,
        json.dumps({"__metadata__": {"ltxtrain_key": KEY}}).encode(),
    ):
        entry.write_bytes(foreign)
        assert read_entry(entry, KEY) is None, foreign[:60]
    entry.unlink()
    assert read_entry(entry, KEY) is None
    entry.mkdir()
    assert read_entry(entry, KEY) is None


def test_swapped_entries_are_misses(tmp_path: Path) -> None:
    other = entry_key("latents", {"media": "b", "start": 0.0})
    for key, value in ((KEY, 1.0), (other, 2.0)):
        write_entry(entry_path(tmp_path, "latents", key), key, {"latents": torch.full((4,), value)})
    here, there = entry_path(tmp_path, "latents", KEY), entry_path(tmp_path, "latents", other)
    swapped = here.read_bytes(), there.read_bytes()
    there.write_bytes(swapped[0])
    here.write_bytes(swapped[1])
    assert read_entry(here, KEY) is None
    assert read_entry(there, other) is None


def test_key_changes_with_each_field_alone_and_with_nothing_else() -> None:
    fields = {"media": "a", "start": 0.0, "size": [256, 192, 25], "tiled": False, "dtype": "bf16", "text": "é"}
    others = {"media": "b", "start": 0.04, "size": [192, 256, 25], "tiled": True, "dtype": "fp32", "text": "e"}
    keys = {entry_key("latents", fields), entry_key("prompts", fields)}
    for name, value in others.items():
        keys.add(entry_key("latents", fields | {name: value}))
        keys.add(entry_key("latents", {key: kept for key, kept in fields.items() if key != name}))
    assert len(keys) == 2 + 2 * len(fields)
    assert entry_key("latents", dict(reversed(fields.items()))) == entry_key("latents", fields)
    assert entry_path(Path("c"), "latents", KEY).parts == ("c", "latents", KEY[:2], f"{KEY}.safetensors")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_not_finite_is_refused_and_nothing_is_written(bad: float, dtype: torch.dtype, tmp_path: Path) -> None:
    latents = torch.zeros(4, dtype=dtype)
    latents[2] = bad
    with pytest.raises(DataError, match="latents came out with NaN"):
        write_entry(tmp_path / "entry", KEY, {"latents": latents})
    assert list(tmp_path.iterdir()) == []


def _fill(folder: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    for index in range(40):
        key = entry_key("latents", {"index": index})
        barrier.wait(30)
        write_entry(entry_path(folder, "latents", key), key, {"latents": torch.full((2000,), float(index))})
        if read_entry(entry_path(folder, "latents", key), key) is None:
            os._exit(1)


def test_two_processes_fill_the_same_cache(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_fill, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 40
    assert not any(path.name.startswith(".") for path in files)


def test_temporary_file_of_a_killed_process_is_never_read(entry: Path) -> None:
    leftover = entry.with_name(f".{entry.name}.0badcafe.tmp")
    leftover.write_bytes(b"half an entry")
    assert same(read_entry(entry, KEY))
    write_entry(entry, KEY, TENSORS)
    assert same(read_entry(entry, KEY))
    entry.unlink()
    assert read_entry(entry, KEY) is None
