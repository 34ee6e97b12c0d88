"""The heartbeat is young while anything goes on, grows old when nothing does, and goes when the command ends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ltxtrain.cli.drive import drain
from ltxtrain.events import Event, StageDone, StageProgress, StageStarted
from ltxtrain.listeners import heartbeat
from ltxtrain.listeners.heartbeat import MUCH_BYTES, Heartbeat, heartbeat_listener
from tests import warm

QUIET_S = 0.6  # much longer than a look in these tests
PATIENCE_S = 120


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "run.heartbeat"


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every event is written at once."""
    monkeypatch.setattr(heartbeat, "WRITE_SECONDS", 0.02)


def told(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_file_tells_where_the_run_is(file: Path, run_events: list[Event], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "WRITE_SECONDS", 0.0)
    seen = []
    with Heartbeat(file, look_seconds=60) as listener:
        assert told(file)["stage"] == "starting"
        for event in run_events:
            listener(event)
            found = told(file)
            assert found["pid"] == os.getpid() and found.keys() == {"time", "pid", "stage", "done", "total"}
            seen.append((found["stage"], found["done"], found["total"]))
    assert list(dict.fromkeys(seen)) == [
        ("starting", 0, None),
        *[("text embeddings", done, 4) for done in (1, 2, 3, 4)],
        *[("latents", done, 3) for done in (0, 1, 2, 3)],
        *[("training", done, 20) for done in range(11)],
        ("validation", 0, 1),
        ("validation", 1, 1),
        *[("training", done, 20) for done in range(11, 21)],
    ]
    assert list(file.parent.iterdir()) == []


def test_many_events_are_few_writes_and_the_last_one_is_not_lost(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "WRITE_SECONDS", 0.2)
    written: set[int] = set()
    with Heartbeat(file, look_seconds=0.2) as listener:
        began = time.monotonic()
        listener(StageStarted("latents", 10**6, 0, "clips"))
        while time.monotonic() - began < 0.5:
            listener(StageProgress("latents", 1))
            written.add(file.stat().st_ino)
        listener(StageProgress("latents", 2))
        assert len(written) <= 5
        until(lambda: told(file)["done"] == 2)


def test_the_file_has_the_mode_that_the_umask_gives(file: Path) -> None:
    before = os.umask(0o022)
    try:
        with Heartbeat(file):
            assert file.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def working(file: Path, work: Callable[[threading.Event], object]) -> Iterator[None]:
    """``work`` goes on in a thread of its own, under a heartbeat and without any event, until it is told to end."""
    ends = threading.Event()

    def run() -> None:
        with Heartbeat(file, look_seconds=0.05):
            work(ends)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.4)  # the way into the work is progress too
    try:
        yield
    finally:
        ends.set()
    thread.join(60)
    assert not thread.is_alive() and not file.exists()


def stands_still(file: Path) -> bool:
    before = file.stat().st_mtime_ns
    time.sleep(QUIET_S)
    return file.stat().st_mtime_ns == before


def test_waiting_for_what_never_comes_lets_it_grow_old(file: Path, hasty: None) -> None:
    with working(file, lambda ends: ends.wait(60)):
        assert stands_still(file)


def test_a_call_that_only_burns_time_lets_it_grow_old(file: Path, hasty: None) -> None:
    """As a call to a device that hangs: the processor is busy, and nothing comes of it."""
    began = time.thread_time()  # not by the clock: on a busy machine that would make the call too short
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 50000)
    rounds = int(50000 * 3 / (time.thread_time() - began))
    with working(file, lambda ends: hashlib.pbkdf2_hmac("sha256", b"x", b"y", rounds)):
        assert stands_still(file)


def test_code_that_goes_on_without_events_keeps_it_young(file: Path, hasty: None) -> None:
    def denoise(ends: threading.Event) -> None:
        while not ends.is_set():
            block()

    def block() -> None:
        sum(range(20000))
        max(range(20000))

    with working(file, denoise):
        assert not stands_still(file)


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this system does not count what a process reads")
def test_a_download_in_other_threads_keeps_it_young_and_a_trickle_does_not(file: Path, hasty: None) -> None:
    sizes = [4 * MUCH_BYTES]

    def download(ends: threading.Event) -> None:
        def fetch() -> None:
            while not ends.wait(0.02):
                (file.parent / "weights.part").write_bytes(bytes(sizes[-1]))

        fetching = threading.Thread(target=fetch, daemon=True)
        fetching.start()
        fetching.join()

    with working(file, download):
        assert not stands_still(file)
        sizes.append(1000)
        time.sleep(0.3)
        assert stands_still(file)


def test_a_file_of_another_process_is_left(file: Path) -> None:
    with Heartbeat(file):
        file.write_text('{"pid": 1}')
    assert told(file) == {"pid": 1}


def test_without_the_variable_nothing_is_written_and_no_thread_runs(tmp_path: Path) -> None:
    before = threading.active_count()
    for env in ({}, {"LTX_HEARTBEAT": ""}):
        with heartbeat_listener(env) as listener:
            listener(StageStarted("latents", 3))
            assert threading.active_count() == before
    with heartbeat_listener({"LTX_HEARTBEAT": str(tmp_path / "here")}):
        assert (tmp_path / "here").exists()


def test_a_place_that_cannot_be_written_is_one_warning(
    tmp_path: Path, hasty: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")

    def events() -> Iterator[Event]:
        for done in range(5):
            yield StageProgress("latents", done)
            time.sleep(0.03)
        yield StageDone("latents", 1.0)

    with Heartbeat(tmp_path / "file" / "beat", look_seconds=0.05) as listener:
        drain(events(), [listener])  # type: ignore[arg-type]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("warning: no heartbeat") and "LTX_HEARTBEAT" in lines[0] and "Not a dir" in lines[0]


def test_a_disk_that_has_room_again_has_a_heartbeat_again(tmp_path: Path, hasty: None) -> None:
    file = tmp_path / "later" / "beat"
    with Heartbeat(file) as listener:
        file.parent.mkdir()
        time.sleep(0.05)
        listener(StageStarted("latents", 3))
        assert told(file)["stage"] == "latents"
    assert not file.exists()


class Program:
    """A real ``ltxtrain`` with a heartbeat, in a folder of its own and a cache that the tests share."""

    def __init__(self, folder: Path, file: Path, *words: str) -> None:
        self.run_dir = folder / "out" / "smoke"
        self.file = file
        self.words = [*words, "--output", str(folder / "out"), "--cache", str(folder.parent / "cache")]
        self.env = os.environ | {"LTX_HEARTBEAT": str(self.file)}

    def start(self) -> warm.Process | subprocess.Popen[str]:
        """Where torch has been imported already."""
        return warm.start(warm.PROGRAM, *self.words, env=self.env)

    def start_afresh(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "ltxtrain", *self.words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.env)

    def finish(self, process: subprocess.Popen[str] | warm.Process) -> tuple[int | None, str, list[dict[str, Any]]]:
        """Exit code, what was said, and every state of the file that was seen meanwhile."""
        states: list[dict[str, Any]] = []
        while process.poll() is None:
            try:
                states.append(told(self.file))
            except OSError:  # not there, or nowhere
                continue
            finally:
                time.sleep(0.05)
        return process.returncode, process.communicate()[1], states


def test_a_command_that_fails_leaves_no_file(tmp_path: Path, file: Path) -> None:
    program = Program(tmp_path, file, "train", "--preset", "smoke", "--lora-rank", "no")
    code, said, _ = program.finish(program.start_afresh())
    assert code == 2 and "lora" in said
    assert not file.exists()


SMOKE = ("train", "--preset", "smoke", "--made-clips", "4", "--validation-disable")


@pytest.mark.slow
def test_a_run_beats_from_its_first_moment_to_its_end_and_trains_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    results = []
    for name, file in (("without", tmp_path / "file" / "beat"), ("with", tmp_path / "beat")):
        program = Program(tmp_path / name, file, *SMOKE)
        code, said, states = program.finish(program.start() if name == "without" else program.start_afresh())
        assert code == 0, said
        assert said.count("no heartbeat") == (name == "without")
        assert not file.exists()
        results.append((program.run_dir / "export" / "pytorch_lora_weights.safetensors").read_bytes())
    assert results[0] == results[1]
    # So short a training may fall between two writes; the next test has a long one.
    assert states[0]["stage"] == "starting"
    assert len({state["pid"] for state in states}) == 1


@pytest.mark.slow
def test_a_run_that_is_stopped_takes_its_file_along(tmp_path: Path, file: Path) -> None:
    process = Program(tmp_path, file, *SMOKE, "--max-train-steps", "9999").start()
    deadline = time.monotonic() + PATIENCE_S
    while not (file.exists() and told(file)["stage"] == "training" and told(file)["done"] > 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert told(file)["total"] == 9999 and told(file)["pid"] == process.pid
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == 143 and "is saved" in said
    assert not file.exists()
