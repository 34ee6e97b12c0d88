"""The first signal asks, the second leaves at once; seen in real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from ltxtrain.errors import Interrupted
from ltxtrain.learn.signals import StopFlag, watch_signals

Start = Callable[[str], "subprocess.Popen[str]"]

PROGRAM = """
import sys, time
from ltxtrain.learn.signals import StopFlag, watch_signals

stop, patient = StopFlag(), sys.argv[1] == "patient"
with watch_signals(stop):
    print("ready", flush=True)
    while not stop.requested:
        time.sleep(0.01)
    print("saving", flush=True)
    while patient is False:
        time.sleep(0.01)
    try:
        stop.check("step 3 is saved")
    except Exception as error:
        print(error, error.hint, sep="|", flush=True)
        sys.exit(error.exit_code)
"""


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(mood: str) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, mood], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert read_line(process) == "ready"
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_lets_the_run_save_and_leave(number: signal.Signals, start: Start) -> None:
    process = start("patient")
    process.send_signal(number)
    assert read_line(process) == "saving"
    message, hint = read_line(process).split("|")
    assert message == f"by {number.name}; step 3 is saved"
    assert hint
    assert process.wait(10) == 128 + number


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_leaves_at_once(second: signal.Signals, start: Start) -> None:
    process = start("stuck")
    process.send_signal(signal.SIGTERM)
    assert read_line(process) == "saving"
    process.send_signal(second)
    assert process.wait(10) == 128 + second
    assert read_line(process) == ""


def test_handlers_of_before_are_restored_also_after_an_error() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stop = StopFlag()
    with pytest.raises(ValueError, match="stop"), watch_signals(stop):
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] != before
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("stop")
    assert stop.requested
    assert stop.signal_number == signal.SIGTERM
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_nothing_happens_without_a_signal() -> None:
    stop = StopFlag()
    with watch_signals(stop):
        stop.check("nothing")
    assert not stop.requested
    stop.request(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught:
        stop.check("all is saved")
    assert caught.value.exit_code == 143


def test_another_thread_sets_no_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def work() -> None:
        with watch_signals(StopFlag()):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_inside_at_once_a_signal_leaves_there_and_then() -> None:
    stop = StopFlag()
    with pytest.raises(Interrupted, match="nothing was begun") as left, stop.at_once("nothing was begun"):
        stop.request(signal.SIGTERM)
        raise AssertionError("not reached")
    assert left.value.exit_code == 143


def test_after_at_once_a_signal_waits_to_be_asked_for() -> None:
    stop = StopFlag()
    with stop.at_once("nothing was begun"):
        pass
    stop.request(signal.SIGINT)
    assert stop.requested
    with pytest.raises(Interrupted), stop.at_once("a signal that came before is not forgotten"):
        raise AssertionError("not reached")
