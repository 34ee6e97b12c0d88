"""A run is killed, or loses power, or gets an error, at each operation on the disk in turn.

Every trial is a real process, forked, that saves three checkpoints and says of each when it is committed. Its
operations are counted, and the one with the trial's number does not happen. The loop ends with the trial that nothing
hit, so that no operation is left out. A process that died must leave the newest checkpoint that it told of, or a later
one.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ltxtrain.errors import CheckpointError
from ltxtrain.learn.checkpoint import Checkpoint, newest_valid, prune_checkpoints, save_checkpoint

Make = Callable[..., Checkpoint]
Same = Callable[[Checkpoint, Checkpoint], bool]

STEPS, KEEP = (10, 20, 30), 2
KILLED, FAILED, WHOLE = 9, 7, 0
COUNTED = ("fsync", "open", "mkdir", "rename", "replace", "unlink", "rmdir")


class Operations:
    """Counts a process's operations on the disk and stops it at ``limit``. Notes which files were synced."""

    def __init__(self, limit: int, kind: str, synced: int) -> None:
        self.limit, self.kind, self.synced, self.done = limit, kind, synced, 0

    def install(self) -> None:
        for name in COUNTED:
            setattr(os, name, self.counted(getattr(os, name)))
        builtins.open = io.open = self.counted(io.open)

    def counted(self, real: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            self.done += 1
            if self.done > self.limit:
                if self.kind == "error":
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os._exit(KILLED)
            result = real(*arguments, **options)
            if real.__name__ == "fsync":
                os.write(self.synced, f"{os.fstat(arguments[0]).st_ino}\n".encode())
            return result

        return operation


def run_child(folder: Path, limit: int, kind: str, checkpoint_of: Make) -> tuple[int, int, set[int]]:
    """Exit code, the last step that was told as saved, and the inodes that were synced."""
    acknowledged, tell = os.pipe()
    synced_log = folder.parent / "synced"
    synced = os.open(synced_log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    child = os.fork()
    if child == 0:
        code = WHOLE
        try:
            Operations(limit, kind, synced).install()
            for step in STEPS:
                save_checkpoint(folder, checkpoint_of(step))
                os.write(tell, bytes([step]))
                prune_checkpoints(folder, KEEP)
        except (CheckpointError, OSError):
            code = FAILED
        except BaseException:
            code = 99
        os._exit(code)
    os.close(tell)
    os.close(synced)
    _, status = os.waitpid(child, 0)
    with os.fdopen(acknowledged, "rb") as stream:
        told = stream.read()
    inodes = {int(line) for line in synced_log.read_text().split()}
    return os.waitstatus_to_exitcode(status), told[-1] if told else 0, inodes


def lose_power(folder: Path, synced: set[int]) -> None:
    """What was never synced is gone: such files keep their names and lose their content."""
    for path in folder.rglob("*") if folder.exists() else ():
        if path.is_file() and path.stat().st_ino not in synced:
            path.write_bytes(b"")


def go_on(folder: Path, checkpoint_of: Make) -> None:
    """What the next start does: find the newest, save the steps after it, and prune."""
    found, _ = newest_valid(folder)
    for step in STEPS:
        if found is None or step > found.step:
            save_checkpoint(folder, checkpoint_of(step))
        prune_checkpoints(folder, KEEP)


@pytest.fixture
def fast_disk(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what a sync does is modelled here, and hundreds of real ones are slow."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as place:
        yield Path(place)


@pytest.mark.parametrize("kind", ["kill", "power", "error"])
def test_no_acknowledged_checkpoint_is_lost(kind: str, fast_disk: Path, checkpoint_of: Make, same: Same) -> None:
    outcomes = []
    for limit in range(1000):
        folder = fast_disk / "run" / "checkpoints"
        folder.parent.mkdir()
        code, acknowledged, synced = run_child(folder, limit, kind, checkpoint_of)
        outcomes.append(code)
        if kind == "power":
            lose_power(folder, synced)
        found, told = newest_valid(folder)
        assert (found.step if found else 0) >= acknowledged, (limit, told)
        assert told == [], limit
        if found is not None:
            assert same(found, checkpoint_of(found.step)), limit
        go_on(folder, checkpoint_of)
        last, _ = newest_valid(folder)
        assert last is not None
        assert same(last, checkpoint_of(STEPS[-1]))
        assert sorted(path.name for path in folder.iterdir()) == ["step-00000020", "step-00000030"], limit
        shutil.rmtree(folder.parent)
        if code == WHOLE:
            break
    assert len(outcomes) > 60, "fewer operations than three checkpoints need"
    assert set(outcomes[:-1]) <= {FAILED, WHOLE} if kind == "error" else set(outcomes[:-1]) == {KILLED}
    assert outcomes[-1] == WHOLE
