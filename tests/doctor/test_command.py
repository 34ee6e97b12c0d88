"""The command as it is installed, with the real torch; and what its process never does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ltxtrain.doctor.findings import Finding
from ltxtrain.doctor.software import guarded
from ltxtrain.doctor.torch_facts import TorchProbe, ending_of, read_facts
from tests.doctor.world import RTX_4090, World

WORDS = ["doctor", "--offline", "--json", "--preset", "smoke"]


def test_real_torch_is_asked_in_a_process_of_its_own(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LTX")}
    command = [sys.executable, "-X", "importtime", "-m", "ltxtrain", *WORDS]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=180, check=False
    )
    found = json.loads(done.stdout)
    faults = [finding for finding in found["findings"] if finding["state"] == "fault"]
    assert (done.returncode, faults) == (0, [])
    assert found["torch"]["version"].split("+")[0] == found["packages"]["torch"].split("+")[0]
    log = [line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    imported = {name.split(".")[0] for name in log}
    assert "ltxtrain" in imported
    assert imported & {"torch", "diffusers", "transformers", "peft", "accelerate", "av"} == set()


def test_child_that_leaves_children_behind_is_ended_with_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = world.place / "pid"
    code = (
        "import subprocess as s\n"
        f"child = s.Popen(['sleep', '100'])\nopen({str(mark)!r}, 'w').write(str(child.pid))\ntime.sleep(100)"
    )
    world.torch(at_import=code)
    monkeypatch.setenv("PYTHONPATH", str(world.packages))
    started = time.monotonic()
    facts = TorchProbe(seconds=1).facts()
    assert facts.state == "hung" and time.monotonic() - started < 20
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(int(mark.read_text()), 0)
            if "zombie" in Path(f"/proc/{mark.read_text()}/status").read_text():
                raise ProcessLookupError
            time.sleep(0.05)


def test_nothing_is_lost_of_a_child_that_speaks_while_it_is_heard(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(world.packages))
    monkeypatch.setattr("ltxtrain.doctor.torch_facts.POLL_SECONDS", 0)
    names = [f"no_such_package_{number}" for number in range(4000)]
    facts = TorchProbe(names).facts()
    assert facts.state == "ok" and list(facts.packages) == names


def test_torch_is_asked_where_no_temporary_file_can_be_made(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a fault for the checks of the places to tell."""
    if not hasattr(os, "memfd_create"):
        pytest.skip("this system keeps no files in memory alone")
    monkeypatch.setenv("PYTHONPATH", str(world.packages))
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: pytest.fail("a temporary file is asked for"))
    assert TorchProbe().facts().state == "ok"


def test_only_the_device_that_a_run_takes_is_touched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others hold the second one: it has no memory left to be tried with."""
    full = "if not device.endswith('0'): raise RuntimeError('CUDA error: out of memory')"
    world.cuda_torch(devices=[RTX_4090, RTX_4090 | {"free": 0}], at_computing=full)
    monkeypatch.setenv("PYTHONPATH", str(world.packages))
    first, second = TorchProbe().facts().devices
    assert (first.error, second.error, first.free is None, second.free) == ("", "", False, None)


def test_package_after_the_last_answer_is_the_one_that_crashed() -> None:
    torch = {"torch": "2.13.0", "cuda": None, "hip": None, "available": False, "error": "", "archs": [], "devices": []}
    answers = [torch | {"macos": ""}, {"package": "av", "error": ""}]
    crash = ending_of("ended", -signal.SIGSEGV, "", 60)
    facts = read_facts(answers, ("av", "numpy", "peft"), crash)
    assert facts.packages == {"av": "", "numpy": "its import: the process ended by SIGSEGV"}


def test_last_words_of_a_child_are_kept() -> None:
    assert (
        ending_of("ended", 1, "Traceback\n  File x\nMemoryError: no room\n\n", 60).says
        == "exit code 1: MemoryError: no room"
    )
    assert ending_of("ended", 0, "", 60).state == "ok"
    assert ending_of("ended", -99, "", 60).says == "the process ended by signal 99"
    assert read_facts([], (), ending_of("ended", 0, "", 60)).error == "it ended without an answer"


def failing(error: Exception) -> Callable[[], Finding]:
    def look() -> Finding:
        raise error

    return look


@pytest.mark.parametrize("error", [PermissionError(13, "no\nentry"), ValueError("no"), ImportError("no")])
def test_check_that_the_system_keeps_from_its_work_is_told_and_stops_no_other(error: Exception) -> None:
    (found,) = guarded("clock", failing(error))
    assert (found.check, found.state, found.code) == ("clock", "skipped", "check-failed")
    assert f"{type(error).__name__}: " in found.says and "\n" not in found.says


def test_defect_of_a_check_is_not_told_as_one_that_was_left_out() -> None:
    with pytest.raises(ZeroDivisionError):
        guarded("clock", failing(ZeroDivisionError("a defect")))


@pytest.mark.parametrize(("state", "fix"), [("ok", "do this"), ("skipped", "do this"), ("fault", ""), ("warning", "")])
def test_finding_has_a_fix_just_when_something_is_wrong(state: str, fix: str) -> None:
    from ltxtrain.doctor.findings import Finding

    with pytest.raises(ValueError, match="fix"):
        Finding("clock", state, "clock-off", "says", fix)  # type: ignore[arg-type]
