"""Several processes fill one cache: each entry is encoded once, and whoever is killed leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from ltxtrain.data.cache import read_entry
from ltxtrain.data.cache_fill import Task, fill, missing_keys
from ltxtrain.data.cache_groups import Group, Place, grouped
from ltxtrain.data.claims import FOLDER, Claims, nobody_else
from ltxtrain.data.store import Entry, entry_at, entry_key
from ltxtrain.data.writer import Encoded, Writer

ENTRIES = 40
CONTEXT = multiprocessing.get_context("fork")  # the real thing but for the start, which would import torch each time


def entry_of(folder: Path, item: int) -> Entry:
    return entry_at(folder, "latents", entry_key("latents", {"item": item}))


def fill_slowly(folder: Path, barrier: multiprocessing.synchronize.Barrier) -> None:
    """Each line of the log is one encoding. It takes its time, so that processes meet and kills hit it at work."""
    log = os.open(folder / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def encode(groups: Iterator[Group[int]]) -> Iterator[tuple[Group[int], dict[Entry, dict[str, torch.Tensor]]]]:
        for group in groups:
            time.sleep(0.02)
            os.write(log, "".join(f"{item}\n" for item in group.items).encode())
            yield group, {entry: {"latents": torch.full((50,), float(item))} for item, entry in group}

    groups = grouped(range(ENTRIES), lambda item: entry_of(folder, item), lambda item: Place("all", 2))
    missing = missing_keys((entry for group in groups for entry in group.entries), set())
    claims = Claims(folder)

    def committed(batch: Sequence[Encoded]) -> None:
        for encoded in batch:
            claims.release(encoded.claim)

    barrier.wait(60)
    with Writer(3, False, committed) as writer:
        for _ in fill(Task("latents", groups, missing, encode, str, []), claims, writer, lambda: None):
            pass


def fillers(folder: Path, count: int) -> list[multiprocessing.process.BaseProcess]:
    """Processes that begin at once, when all are there."""
    barrier = CONTEXT.Barrier(count + 1)
    workers = [CONTEXT.Process(target=fill_slowly, args=(folder, barrier)) for _ in range(count)]
    for worker in workers:
        worker.start()
    barrier.wait(60)
    return list(workers)


def exit_codes(workers: list[multiprocessing.process.BaseProcess]) -> list[int | None]:
    for worker in workers:
        worker.join(60)
    return [worker.exitcode for worker in workers]


def encodings(folder: Path) -> dict[int, int]:
    lines = (folder / "log").read_text().split()
    return {item: lines.count(str(item)) for item in range(ENTRIES)}


def assert_whole(folder: Path) -> None:
    for item in range(ENTRIES):
        tensors = read_entry(*vars(entry_of(folder, item)).values())
        assert tensors is not None and torch.equal(tensors["latents"], torch.full((50,), float(item))), item


def test_processes_that_fill_one_cache_encode_each_entry_once(tmp_path: Path) -> None:
    assert exit_codes(fillers(tmp_path, 4)) == [0, 0, 0, 0]
    assert set(encodings(tmp_path).values()) == {1}
    assert_whole(tmp_path)
    assert list((tmp_path / FOLDER).iterdir()) == [], "claims are cleared away"


def test_killed_processes_cost_what_they_had_under_way_and_no_more(tmp_path: Path) -> None:
    draw = random.Random(0)
    workers = fillers(tmp_path, 6)
    for victim in workers[:3]:
        time.sleep(draw.uniform(0.01, 0.06))
        victim.kill()
    codes = exit_codes(workers)
    assert codes[3:] == [0, 0, 0]
    kills = codes.count(-signal.SIGKILL)
    assert kills >= 1, "all was done before anybody was killed"
    found = encodings(tmp_path)
    assert min(found.values()) >= 1 and max(found.values()) <= 1 + kills
    assert_whole(tmp_path)


def test_a_claim_holds_between_processes_and_ends_with_the_process(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    assert claims.take("ab") and claims.take("ab")
    other = Claims(tmp_path)
    assert not other.take("ab") and other.take("cd")
    claims.release("ab")
    assert other.take("ab")
    other.release_all()
    assert claims.take("ab") and claims.take("cd")
    claims.release_all()
    child = "import sys; from pathlib import Path; from ltxtrain.data.claims import Claims\n"
    child += "c = Claims(Path(sys.argv[1])); print(c.take('ab'), flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", child, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        assert not claims.take("ab")
        process.kill()
        process.wait()
    assert claims.take("ab"), "the lock of a dead process is gone, though its file is there"


def test_waiting_comes_after_whoever_has_the_claim(tmp_path: Path) -> None:
    child = "import sys, time; from pathlib import Path; from ltxtrain.data.claims import Claims\n"
    child += "c = Claims(Path(sys.argv[1])); print(c.take('ab'), flush=True); time.sleep(0.3); c.release('ab')"
    with subprocess.Popen([sys.executable, "-c", child, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "True\n"
        began = time.monotonic()
        claims = Claims(tmp_path)
        with claims.waiting(["ab"], "it"):
            assert time.monotonic() - began > 0.1
        assert claims.told == []


def test_nobody_is_waited_for_by_a_run_that_is_to_stop_or_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Claims(tmp_path)
    assert other.take("ab")
    stopping = Claims(tmp_path, hurry=lambda: True)
    with stopping.waiting(["ab", "cd"], "a.mp4"):
        assert stopping.told == ["another process has not finished a.mp4: it is encoded here as well"]
    monkeypatch.setattr("ltxtrain.data.claims.PATIENCE_SECONDS", 0.2)
    patient = Claims(tmp_path)
    with patient.waiting(["ab"], "a.mp4"):
        assert len(patient.told) == 1
    assert not patient.take("ab"), "it is still the other's"


def test_groups_that_share_an_entry_exclude_each_other_and_no_half_is_kept(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("b", "c") and not second.take("a", "b", "d")
    assert first.take("a", "d"), "the second let go of what it had"
    first.release("a", "b", "c", "d")
    assert second.take("d", "b", "a")
    second.release_all()


def test_place_where_this_process_alone_cannot_lock_is_told_once_and_not_pruned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int, how: int) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr("ltxtrain.data.claims.fcntl.flock", broken)
    claims = Claims(tmp_path)
    assert claims.take("ab") and claims.take("cd") and claims.enter_cache()
    assert len(claims.told) == 1 and "Input/output error" in claims.told[0]
    with pytest.raises(OSError, match="Input/output"), nobody_else(tmp_path):
        pass


def test_nobody_enters_a_cache_that_is_being_pruned_and_nobody_prunes_one_that_is_in_use(tmp_path: Path) -> None:
    first, second = Claims(tmp_path), Claims(tmp_path)
    with nobody_else(tmp_path) as alone:
        assert alone and not first.enter_cache()
    assert first.enter_cache() and second.enter_cache() and first.enter_cache()
    with nobody_else(tmp_path) as alone:
        assert not alone
    del first
    with nobody_else(tmp_path) as alone:
        assert not alone, "the second is still in it"
    del second
    with nobody_else(tmp_path) as alone:
        assert alone


def test_without_locks_everybody_may_encode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system without locks is at hand, so the one call that tells is made to fail as there."""

    def unsupported(descriptor: int, how: int) -> None:
        raise OSError(95, os.strerror(95))

    monkeypatch.setattr("ltxtrain.data.claims.fcntl.flock", unsupported)
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take("ab") and second.take("ab") and first.enter_cache()
    with nobody_else(tmp_path) as alone:
        assert alone
    first.release_all()


def test_a_cache_that_nobody_may_write_to_is_claimed_by_everybody(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("in the way")
    assert Claims(tmp_path).take("ab") and Claims(tmp_path).take("ab")
