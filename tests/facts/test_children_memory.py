"""Memory that children share with us: what is kept is not written over, and what nobody keeps goes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ltxtrain.facts import children
from ltxtrain.facts.children import Children, Task
from ltxtrain.facts.children_serve import KEPT_ROOMS

MEMORY = 1 << 30
SIZE = 2 << 20
CHILD = """
import os
from ltxtrain.facts.children_serve import serve

def answer(task, room):
    if "fill" in task:
        room[:] = bytes([task["fill"]]) * len(room)
        return {}, len(room)
    for name in os.listdir("/proc/self/map_files"):
        place = "/proc/self/map_files/" + name
        if "memfd" in os.readlink(place):
            try:
                os.truncate(place, 1)
            except PermissionError:
                return {"said": "refused"}, 0
    return {}, 0

if __name__ == "__main__":
    serve(answer)
"""
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="memory is not shared here")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "filling_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "filling_child"


def fill(number: int) -> Task:
    return Task({"fill": number}, 20.0, SIZE)


def shared() -> int:
    """How many pieces of shared memory this process has."""
    if sys.platform != "linux":
        return 0
    rooms = set()
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # a thread of the pool has closed it
            if "memfd" in os.path.realpath(link):
                rooms.add(link.stat().st_ino)
    return len(rooms)


def test_answers_that_are_kept_are_not_written_over_and_memory_is_used_again(module: str) -> None:
    with Children(module, 1, MEMORY) as pool:
        kept = [reply.data for reply in pool.run(map(fill, range(5)))]
        assert [bytes(data[:3]) for data in kept] == [bytes([number]) * 3 for number in range(5)]
        assert sys.platform != "linux" or shared() == 5
        del kept[1:]
        for number, reply in enumerate(pool.run(map(fill, range(50)))):
            assert bytes(reply.data[-3:]) == bytes([number]) * 3
        assert bytes(kept[0][-3:]) == bytes(3)
        assert shared() <= 1 + KEPT_ROOMS
    assert bytes(kept[0]) == bytes(SIZE)
    del kept, reply
    assert shared() == 0


@linux_only
def test_shared_memory_is_what_somebody_looks_at_what_is_under_way_and_a_little(module: str) -> None:
    with Children(module, 4, MEMORY) as pool:
        held, most = [], 0
        for number, reply in enumerate(pool.run(map(fill, range(80)))):
            held.append(reply.data)
            del reply
            most = max(most, shared() - len(held))
            if number % 16 == 15:
                held.clear()
        assert most <= 8 + 4 * KEPT_ROOMS, most
        held.clear()
        list(pool.run([Task({"fill": 1}, 20.0, 16)]))
        assert shared() == 0


@linux_only
def test_memory_of_large_answers_that_nobody_looks_at_is_let_go(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "AHEAD_BYTES", SIZE)
    with Children(module, 1, MEMORY) as pool:
        for _ in pool.run(map(fill, range(20))):
            assert shared() <= 4


@linux_only
def test_child_cannot_make_shared_memory_shorter(module: str) -> None:
    with Children(module, 1, MEMORY) as pool:
        (reply,) = pool.run([Task({}, 20.0, SIZE)])
    assert reply.answer == {"said": "refused"}
