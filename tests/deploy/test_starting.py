"""What the templates start, really started with the image's entrypoint: it waits for clips, trains once, goes on.

The texts are run as they are, but for their folders, which lie in a temporary one here. In the place of ltxtrain stands
a program that tells how it was called: training itself is tested elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest

from tests.deploy.test_create import Cloud

ROOT = Path(__file__).resolve().parents[2]
ENTRYPOINT = ROOT / "entrypoint" / "entrypoint.sh"
WAITING = "waiting: copy clips to"
PROGRAM = """#!/bin/sh
trap 'echo "saved a checkpoint"; kill $!; exit 143' TERM
if [ -e "$0.hold" ]; then sleep 60 >/dev/null 2>&1 & fi
echo "called: $*"
echo "interval: ${LTXTRAIN_CHECKPOINT_MINUTES:-none}, results: ${LTX_OUTPUT_DIR:-none}, data: ${LTX_DATA_DIR:-none}"
wait
"""

pytestmark = [
    pytest.mark.skipif(not ENTRYPOINT.is_file(), reason="entrypoint/entrypoint.sh is not there"),
    pytest.mark.skipif(not shutil.which("flock"), reason="flock is not there: it is in the image"),
]


@dataclass
class Machine:
    """A rented machine's folders, and what was started on it."""

    home: Path
    environment: dict[str, str]
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def workspace(self) -> Path:
        return self.home / "workspace"

    @property
    def log(self) -> Path:
        return self.workspace / "ltxtrain.log"

    def moved(self, text: str) -> str:
        """A text of a template with this machine's folders, and a shorter wait."""
        here = {
            "/opt/ltxtrain/entrypoint": str(ENTRYPOINT.parent),
            "/workspace": str(self.workspace),
            "/tmp/": f"{self.home}/tmp/",
            "sleep 5": "sleep 0.1",
        }
        return re.sub("|".join(map(re.escape, here)), lambda found: here[found.group()], text)

    def start(self, *words: str, **more: str) -> subprocess.Popen[bytes]:
        # A session of its own, so that all that was started can be ended, and nothing else.
        process = subprocess.Popen(
            words, env=self.environment | more, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True, cwd=self.home,
        )  # fmt: skip
        self.started.append(process)
        return process

    def onstart(self, **more: str) -> None:
        """What Vast does at each start of an instance."""
        text = self.moved((ROOT / "deploy/vast/onstart.sh").read_text(encoding="utf-8"))
        assert self.start("sh", "-c", text, **more).wait(timeout=10) == 0

    def told(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    for folder in ("bin", "tmp", "workspace"):
        (tmp_path / folder).mkdir()
    program = tmp_path / "bin" / "ltxtrain"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    made = Machine(
        tmp_path,
        {
            "PATH": f"{program.parent}:{os.environ['PATH']}",
            "HOME": str(tmp_path),
            "TMPDIR": str(tmp_path / "tmp"),
            "LTX_WORKSPACE": str(tmp_path / "workspace"),
            "LTXTRAIN_CHECKPOINT_MINUTES": "5",
        },
    )
    yield made
    for process in made.started:
        for member in members(process.pid):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(member, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def members(session: int) -> list[int]:
    """The processes of a session that we have opened."""
    listed = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def until(holds: Callable[[], object], what: str) -> None:
    for _ in range(200):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError(f"after ten seconds still not: {what}")


VAST = {"CONTAINER_ID": "77", "VAST_CONTAINERLABEL": "C.77", "CONTAINER_API_KEY": "vastkey" * 3}


def test_on_vast_training_waits_for_clips_and_starts_once(machine: Machine) -> None:
    machine.onstart(**VAST)
    until(lambda: WAITING in machine.told(), "waiting")
    assert (machine.workspace / "data").is_dir()
    machine.onstart(**VAST)
    until(lambda: "waiting already" in machine.told(), "the second start gives way")
    assert "called" not in machine.told()

    (machine.home / "bin" / "ltxtrain.hold").touch()
    (machine.workspace / "data" / "clip.mp4").touch()
    (machine.workspace / "go").touch()
    until(lambda: "called: train --preset bf16 --yes" in machine.told(), "training")
    at = machine.workspace
    until(lambda: f"interval: 5, results: {at}/output, data: {at}/data" in machine.told(), "its places")
    machine.onstart(**VAST)
    until(lambda: "going on in this container already" in machine.told(), "one training at a time")
    assert machine.told().count("called") == 1


def test_on_vast_training_goes_on_by_itself_after_an_interruption(machine: Machine) -> None:
    (machine.workspace / "go").touch()
    for start in (1, 2):
        machine.onstart(**VAST)
        until(lambda start=start: machine.told().count("called: train --preset bf16 --yes") == start, f"start {start}")
        free = ["flock", "--nonblock", str(machine.home / "tmp" / "ltxtrain.lock"), "true"]
        until(lambda: subprocess.run(free, check=False).returncode == 0, "its end")  # noqa: B023
    assert WAITING not in machine.told()


def test_on_vast_no_variable_is_written_to_a_file(machine: Machine) -> None:
    secret = "hf_" + "s" * 30
    (machine.workspace / "go").touch()
    machine.onstart(HF_TOKEN=secret, SSH_PUBLIC_KEY="ssh-ed25519 AAAA me", **VAST)
    until(lambda: "called" in machine.told(), "training")
    for path in machine.home.rglob("*"):
        if path.is_file():
            text = path.read_text(errors="replace")
            assert secret not in text and VAST["CONTAINER_API_KEY"] not in text, path


@pytest.mark.parametrize("kind", ["nvidia", "amd"])
def test_on_runpod_training_waits_for_clips_and_saves_when_the_pod_is_stopped(machine: Machine, kind: str) -> None:
    template = json.loads((ROOT / "deploy/runpod" / f"template.{kind}.json").read_text(encoding="utf-8"))
    words = [machine.moved(word) for word in template["dockerStartCmd"]]
    (machine.home / "bin" / "ltxtrain.hold").touch()
    # As RunPod starts it: the image's entrypoint, and the template's command behind it.
    pod = machine.start(
        str(ENTRYPOINT), *words, RUNPOD_POD_ID="pod1", RUNPOD_API_KEY="rpa_" + "k" * 20,
        LTX_ON_EXIT=template["env"]["LTX_ON_EXIT"], LTX_LOG=machine.moved(template["env"]["LTX_LOG"]),
    )  # fmt: skip
    until((machine.workspace / "data").is_dir, "the folder for clips")
    # Whoever follows the log sees from the beginning what is waited for.
    until(lambda: WAITING in machine.told(), "the line in the log")
    time.sleep(0.3)
    assert pod.poll() is None and "called" not in machine.told()
    (machine.workspace / "go").touch()
    until(lambda: f"called: train --preset {template['dockerStartCmd'][-2]} --yes" in machine.told(), "training")
    pod.terminate()
    assert pod.wait(timeout=10) == 143
    assert "saved a checkpoint" in machine.told()
    assert pod.stdout is not None and WAITING in pod.stdout.read().decode()


@pytest.fixture
def runpod_api() -> Iterator[Cloud]:
    server = Cloud(200, {})
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def runpod(machine: Machine, cloud: Cloud, hour: str = "720") -> subprocess.Popen[bytes]:
    """A pod of the template for NVIDIA, told to stop itself by a server on this computer."""
    template = json.loads((ROOT / "deploy/runpod/template.nvidia.json").read_text(encoding="utf-8"))
    words = [machine.moved(word).replace("left=720", f"left={hour}") for word in template["dockerStartCmd"]]
    return machine.start(
        str(ENTRYPOINT), *words, RUNPOD_POD_ID="pod1", RUNPOD_API_KEY="rpa_" + "k" * 20, LTX_ON_EXIT="stop-pod",
        LTX_LOG=str(machine.log), LTX_RUNPOD_API=f"http://127.0.0.1:{cloud.server_port}",
    )  # fmt: skip


def stop(pod: subprocess.Popen[bytes]) -> None:
    pod.terminate()
    pod.wait(timeout=10)


def test_a_pod_that_has_done_its_work_waits_for_people_to_fetch_it(machine: Machine, runpod_api: Cloud) -> None:
    go = machine.workspace / "go"
    go.touch()
    pod = runpod(machine, runpod_api)
    until(lambda: "has ended with exit code 0;" in machine.told(), "the end")
    stop(pod)
    assert len(runpod_api.heard) == 1
    for start in (1, 2, 3, 4):
        pod = runpod(machine, runpod_api)
        until(lambda start=start: machine.told().count("complete: fetch") == start, f"waiting, start {start}")
        time.sleep(0.3)
        assert pod.poll() is None and machine.told().count("called") == 1 and len(runpod_api.heard) == 1
        stop(pod)
    pod = runpod(machine, runpod_api)
    until(lambda: machine.told().count("complete: fetch") == 5, "waiting")
    go.touch()
    until(lambda: len(runpod_api.heard) == 2, "the next training")
    stop(pod)


def test_a_finished_pod_that_nobody_looks_after_stops_itself_again(machine: Machine, runpod_api: Cloud) -> None:
    machine.log.write_text("ltxtrain has ended with exit code 0; this machine is being stopped\n")
    runpod(machine, runpod_api, hour="3")
    until(lambda: runpod_api.heard, "the request to stop")
    assert (machine.workspace / "go").exists(), "an interruption from here on is like any other"


@pytest.mark.parametrize("last", ["step 300", "ltxtrain has ended with exit code 3; this machine is being stopped"])
def test_a_pod_that_was_interrupted_or_has_failed_goes_on_at_once(
    machine: Machine, runpod_api: Cloud, last: str
) -> None:
    machine.log.write_text(f"{last}\n")
    (machine.workspace / "go").touch()
    runpod(machine, runpod_api)
    until(lambda: "called" in machine.told(), "training")
    assert "complete: fetch" not in machine.told() and WAITING not in machine.told()


def test_on_vast_the_instance_stops_itself_when_training_has_ended(machine: Machine) -> None:
    cloud = Cloud(200, {"success": True})
    thread = Thread(target=cloud.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        (machine.workspace / "go").touch()
        machine.onstart(LTX_ON_EXIT="stop-pod", LTX_VAST_API=f"http://127.0.0.1:{cloud.server_port}", **VAST)
        until(lambda: cloud.heard, "the request")
    finally:
        cloud.shutdown()
        thread.join()
        cloud.server_close()
    [(method, path, headers, body)] = cloud.heard
    assert (method, path, body) == ("PUT", "/instances/77/", {"state": "stopped"})
    assert headers["Authorization"] == f"Bearer {VAST['CONTAINER_API_KEY']}"
