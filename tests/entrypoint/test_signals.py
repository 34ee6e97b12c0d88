"""How a run ends: its exit code and its signals come through, and LTX_ON_EXIT decides what follows."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.entrypoint.conftest import Container, Started, needs_box

PAUSED = "the container stays"

# Ends with a code of its own, and only some time after the second signal.
STUBBORN = """#!/bin/sh
heard=0
trap 'heard=$((heard + 1)); : >"$RECORD/heard-$heard"' TERM
: >"$RECORD/ready"
while [ "$heard" -lt 2 ]; do sleep 0.05; done
sleep 0.3
exit 9
"""


def pid_of(started: Started) -> int:
    return int((started.record / "pid").read_text())


def test_with_exit_the_shell_becomes_ltxtrain(container: Container) -> None:
    started = container.start("train", env={"FAKE_SECONDS": "5"})
    started.wait_for()
    assert pid_of(started) == started.process.pid
    started.send(signal.SIGTERM)
    done = started.done()
    assert done.code == 143
    assert done.signals == ["TERM"]


@needs_box
def test_with_exit_nothing_stands_between_after_root_was_left(box: Container) -> None:
    started = box.start("train", env={"FAKE_SECONDS": "5"})
    started.wait_for()
    assert pid_of(started) == started.process.pid
    started.send(signal.SIGINT)
    assert started.done().code == 130


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("way", ["sleep", "stop-pod", "log"])
def test_a_supervised_run_gets_the_signal_once_and_its_code_is_kept(
    container: Container, number: signal.Signals, code: int, way: str
) -> None:
    env = {"FAKE_SECONDS": "9", "RUNPOD_POD_ID": "pod1", "RUNPOD_API_KEY": "k", "LTX_RUNPOD_API": "http://127.0.0.1:1"}
    env |= {"LTX_WORKSPACE": str(container.place / "workspace")}
    env |= {"LTX_LOG": str(container.place / "log")} if way == "log" else {"LTX_ON_EXIT": way}
    started = container.start("train", env=env)
    started.wait_for()
    assert pid_of(started) != started.process.pid
    started.send(number)
    done = started.done()
    assert done.code == code, "neither slept nor stopped the pod, and the code is the run's"
    assert done.signals == [number.name.removeprefix("SIG")]
    assert PAUSED not in done.err
    assert "exit code" not in done.err


def test_a_second_signal_is_passed_on_and_the_run_s_own_code_is_kept(container: Container) -> None:
    container.program("ltxtrain", STUBBORN)
    started = container.start("train", env={"LTX_ON_EXIT": "sleep"})
    started.wait_for()
    started.send(signal.SIGTERM)
    started.wait_for("heard-1")
    started.send(signal.SIGTERM)
    started.wait_for("heard-2")
    assert started.done().code == 9


def test_a_run_that_was_asked_to_stop_ends_the_container_whatever_its_code(container: Container) -> None:
    program = '#!/bin/sh\ntrap "exit 0" TERM\n: >"$RECORD/ready"\nwhile :; do sleep 0.05; done\n'
    container.program("ltxtrain", program)
    started = container.start("train", env={"LTX_ON_EXIT": "sleep"})
    started.wait_for()
    started.send(signal.SIGTERM)
    done = started.done()
    assert done.code == 0
    assert PAUSED not in done.err


def test_a_terminal_s_ctrl_c_reaches_a_supervised_run_once(container: Container) -> None:
    """A terminal sends SIGINT to the whole group; the run is in a session of its own, and hears it from the shell."""
    container.as_user = ["setsid"]
    started = container.start("train", env={"FAKE_SECONDS": "9", "LTX_ON_EXIT": "sleep"})
    started.wait_for()
    run = pid_of(started)
    assert os.getsid(run) == run != os.getsid(started.process.pid)
    os.killpg(os.getpgid(started.process.pid), signal.SIGINT)
    done = started.done()
    assert done.signals == ["INT"]
    assert done.code == 130


def test_sleep_tells_the_code_and_answers_a_signal_at_once_with_it(container: Container) -> None:
    started = container.start("train", env={"FAKE_CODE": "7", "LTX_ON_EXIT": "sleep"})
    line = started.told(PAUSED)
    assert "ended with exit code 7" in line
    assert started.process.poll() is None
    time.sleep(0.2)
    began = time.monotonic()
    started.send(signal.SIGTERM)
    assert started.process.wait(5) == 7
    assert time.monotonic() - began < 2


def test_a_run_that_is_killed_by_hand_does_not_hold_the_container(container: Container) -> None:
    started = container.start("train", env={"FAKE_SECONDS": "9", "LTX_ON_EXIT": "sleep"})
    started.wait_for()
    os.kill(pid_of(started), signal.SIGTERM)
    assert started.done().code == 143


def test_a_run_that_is_killed_for_memory_is_told_with_its_code(container: Container) -> None:
    started = container.start("train", env={"FAKE_SECONDS": "9", "LTX_ON_EXIT": "sleep"})
    started.wait_for()
    os.kill(pid_of(started), signal.SIGKILL)
    assert "exit code 137" in started.told(PAUSED)
    started.send(signal.SIGTERM)
    assert started.process.wait(5) == 137


def test_stdin_and_interrupts_are_as_usual_for_a_supervised_run(container: Container) -> None:
    """A shell gives what it starts with & neither: both must have been put right."""
    container.program("ltxtrain", '#!/bin/sh\ngrep SigIgn /proc/$$/status >"$RECORD/ignored"\nreadlink /proc/$$/fd/0\n')
    done = container.run("train", env={"LTX_LOG": str(container.place / "log")})
    ignored = int((done.record / "ignored").read_text().split()[1], 16)
    assert ignored & (1 << (signal.SIGINT - 1) | 1 << (signal.SIGQUIT - 1)) == 0
    other = container.place / "stdin"
    other.write_text("typed\n")
    container.program("ltxtrain", '#!/bin/sh\nread -r line && echo "got $line"\n')
    container.as_user = ["sh", "-c", f'exec "$@" <"{other}"', "sh"]
    assert "got typed" in container.run("train", env={"LTX_LOG": str(container.place / "log")}).out


def test_the_log_gets_all_lines_and_the_streams_stay_apart(container: Container) -> None:
    log = container.place / "logs" / "ltxtrain.log"
    text = "#!/bin/sh\nfor i in $(seq 300); do echo result $i; echo word $i >&2; done; exit 5\n"
    container.program("ltxtrain", text)
    done = container.run("train", env={"LTX_LOG": str(log)})
    results, words = [f"result {i}" for i in range(1, 301)], [f"word {i}" for i in range(1, 301)]
    assert done.code == 5
    assert done.out.splitlines() == results
    assert [line for line in done.err.splitlines() if line.startswith("word")] == words
    lines = log.read_text().splitlines()
    assert [line for line in lines if line.startswith("result")] == results
    assert [line for line in lines if line.startswith("word")] == words
    container.run("train", env={"LTX_LOG": str(log)})
    assert len(log.read_text().splitlines()) == 2 * len(lines), "a second start adds to the log"


def test_the_end_waits_for_the_log_s_last_lines(container: Container) -> None:
    """When the first process of a container ends, all others are killed: the log must be complete by then."""
    container.program("tee", '#!/bin/sh\nsleep 0.3\nexec /usr/bin/tee "$@"\n')
    log = container.place / "log"
    started = container.start("train", env={"LTX_LOG": str(log)})
    assert started.process.wait(10) == 0
    assert sorted(line for line in log.read_text().splitlines() if "ltxtrain" in line and "mounted" not in line) == [
        "results of ltxtrain",
        "words of ltxtrain",
    ]


def test_a_log_that_cannot_be_written_is_told_and_nothing_else_changes(container: Container) -> None:
    done = container.run("train", env={"LTX_LOG": "/proc/nowhere/log", "FAKE_CODE": "6"})
    assert done.code == 6
    assert "warning: LTX_LOG=/proc/nowhere/log cannot be written" in done.err


def test_a_process_left_behind_does_not_hold_the_end(container: Container) -> None:
    container.program("ltxtrain", '#!/bin/sh\nsleep 30 &\necho $! >"$RECORD/left"\n')
    began = time.monotonic()
    started = container.start("train", env={"LTX_LOG": str(container.place / "log")})
    assert started.process.wait(15) == 0
    assert time.monotonic() - began < 12
    os.kill(int((started.record / "left").read_text()), signal.SIGKILL)


@pytest.mark.parametrize("value", ["stop", "EXIT", "sleep 1"])
def test_an_unknown_way_to_end_is_refused_before_anything_runs(container: Container, value: str) -> None:
    done = container.run("train", env={"LTX_ON_EXIT": value})
    assert (done.code, done.ran) == (2, False)
    assert done.err.startswith(f"error: LTX_ON_EXIT is '{value}'")
    assert "hint: say exit, sleep or stop-pod" in done.err


def test_stop_pod_is_refused_where_there_is_no_pod(container: Container) -> None:
    done = container.run("train", env={"LTX_ON_EXIT": "stop-pod"})
    assert (done.code, done.ran) == (2, False)
    assert "neither RunPod nor Vast" in done.err


def test_what_runs_as_it_is_is_not_supervised(container: Container) -> None:
    assert container.run("sh", "-c", "exit 3", env={"LTX_ON_EXIT": "sleep"}).code == 3


def test_a_sign_of_life_that_a_killed_run_left_is_cleared(container: Container) -> None:
    beat = container.place / "beat"
    beat.touch()
    container.run("train", env={"LTX_HEARTBEAT": str(beat)})
    assert not beat.exists()
    container.program("ltxtrain", '#!/bin/sh\n: >"$LTX_HEARTBEAT"\nkill -9 $$\n')
    started = container.start("train", env={"LTX_HEARTBEAT": str(beat), "LTX_ON_EXIT": "sleep"})
    started.told(PAUSED)
    assert not Path(beat).exists()
