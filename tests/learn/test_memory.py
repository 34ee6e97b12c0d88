"""Peaks are those of their phase: what another one took is not counted, and what a phase took is not forgotten."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ltxtrain.learn import memory
from ltxtrain.learn.memory import Meter, Peak, free_memory, host_peak

CPU = torch.device("cpu")
MIB = 1024**2


def fill(mebibytes: int) -> None:
    """Take so much and give it back: what a C library frees may stay with the process, what is mapped does not."""
    with mmap.mmap(-1, mebibytes * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as room:
        for page in range(0, len(room), mmap.PAGESIZE):
            room[page] = 1


def test_each_phase_has_its_own_peak() -> None:
    meter = Meter(CPU)
    meter.enter("before")
    meter.enter("large")
    fill(200)
    meter.enter("small")
    fill(20)
    before, large, small = (meter.peak(name).used for name in ("before", "large", "small"))
    assert 150 * MIB < large - before < 260 * MIB
    assert small < large - 100 * MIB, "the second phase is not charged with the first one's"
    meter.enter("large")
    assert meter.peak("large").used >= large, "and a phase that is entered again remembers"
    assert meter.tensors("large") == meter.peak("large").used, "torch counts no tensors on the CPU"


def test_a_phase_that_never_was_has_no_peak() -> None:
    with pytest.raises(KeyError):
        Meter(CPU).peak("training")


def test_the_larger_of_two_peaks_is_taken_for_each_kind_of_memory() -> None:
    assert Peak(1, 5, 9).larger(Peak(2, 4, 8)) == Peak(2, 5, 9)
    assert Peak(None, None, 1).larger(Peak(3, None, 2)) == Peak(3, None, 2)
    assert (Peak(3, 4, 5).tensors, Peak(None, None, 5).tensors) == (3, 5)


def test_without_the_right_to_forget_the_old_peak_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(memory, "PROCESS", tmp_path)  # neither file is there
    meter = Meter(CPU)
    meter.enter("one")
    assert 50 * MIB < host_peak() == meter.peak("one").used < 64 * 1024**3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_could_be_had_counts_what_is_held_already(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = tmp_path / "meminfo"
    told.write_text("MemAvailable:   102400 kB\n")
    monkeypatch.setattr(memory, "MEMORY", told)
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda: 64 * 1024 * MIB)
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert free_memory(CPU) == pytest.approx(100 * MIB + resident, abs=20 * MIB), "what is ours is no loss"
    monkeypatch.setattr(memory, "memory_limit_bytes", lambda: 150 * MIB)
    assert free_memory(CPU) == 150 * MIB, "a container's limit is below that"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_limit_of_the_process_is_what_could_be_had() -> None:
    """``ulimit -v``: with it, so much can be allocated and not much more."""
    source = """
import resource, torch
from ltxtrain.learn.memory import free_memory
mapped = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (mapped + 300 * 1024**2,) * 2)
resident = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
torch.empty(250 * 1024**2, dtype=torch.uint8)
try:
    torch.empty(350 * 1024**2, dtype=torch.uint8)
except RuntimeError:
    print(free_memory(torch.device("cpu")) - resident)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(300 * MIB, abs=60 * MIB)


def test_where_no_peaks_are_kept_the_largest_that_was_seen_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Apple's GPU, which tells what is held now and no more."""
    held = iter([3, 8, 5, 2])
    monkeypatch.setattr(memory, "read_peaks", lambda device: Peak(now := next(held), now, now))
    meter = Meter(torch.device("mps"))
    meter.enter("training")
    assert [meter.tensors("training") for _ in range(3)] == [3, 8, 8]
    assert meter.peak("training") == Peak(8, 8, 8)
