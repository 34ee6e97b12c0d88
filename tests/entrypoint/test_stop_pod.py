"""LTX_ON_EXIT=stop-pod against a server that is really there."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.entrypoint.conftest import Container

KEY = "canary-key-41ab"


@dataclass
class Cloud:
    url: str = ""
    answers: list[int] = field(default_factory=list)
    asked: list[tuple[str, str, str, str]] = field(default_factory=list)


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    state = Cloud()

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            state.asked.append((self.command, self.path, self.headers.get("Authorization", ""), body))
            code = state.answers.pop(0) if state.answers else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", f"{state.url}/elsewhere")
            self.end_headers()
            self.wfile.write(b"{}")

        do_PUT = do_GET = do_POST

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def pod(container: Container) -> Container:
    if not shutil.which("python3", path="/usr/local/bin:/usr/bin"):
        container.program("python3", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    container.folder("volume")
    return container


def variables(pod: Container, cloud: Cloud, platform: str) -> dict[str, str]:
    env = {"LTX_ON_EXIT": "stop-pod", "LTX_WORKSPACE": str(pod.place / "volume"), "TMPDIR": str(pod.place)}
    if platform == "runpod":
        return env | {"RUNPOD_POD_ID": "pod 1", "RUNPOD_API_KEY": KEY, "LTX_RUNPOD_API": cloud.url}
    return env | {"VAST_CONTAINERLABEL": "C.77", "CONTAINER_API_KEY": KEY, "LTX_VAST_API": cloud.url}


@pytest.mark.parametrize("code", ["0", "4"])
@pytest.mark.parametrize("platform", ["runpod", "vast"])
def test_the_cloud_is_asked_once_and_the_container_waits_for_it(
    pod: Container, cloud: Cloud, platform: str, code: str
) -> None:
    started = pod.start("train", env=variables(pod, cloud, platform) | {"FAKE_CODE": code})
    line = started.told("this machine is being stopped")
    assert f"exit code {code}" in line
    assert KEY not in line
    ((method, path, authorisation, body),) = cloud.asked
    assert authorisation == f"Bearer {KEY}"
    if platform == "runpod":
        assert (method, path, body) == ("POST", "/pods/pod%201/stop", "")
    else:
        assert (method, path, json.loads(body)) == ("PUT", "/instances/77/", {"state": "stopped"})
    assert started.process.poll() is None, "ending now would have it started again"
    started.send(signal.SIGTERM)
    assert started.process.wait(5) == int(code)


def test_runpod_s_own_program_is_asked_first(pod: Container, cloud: Cloud) -> None:
    pod.program("runpodctl", '#!/bin/sh\nprintf "%s|" "$@" >"$RECORD/runpodctl"\n')
    started = pod.start("train", env=variables(pod, cloud, "runpod"))
    started.told("this machine is being stopped")
    assert (started.record / "runpodctl").read_text() == "stop|pod|pod 1|"
    assert cloud.asked == []


def test_runpod_s_api_is_asked_when_its_program_fails(pod: Container, cloud: Cloud) -> None:
    pod.program("runpodctl", "#!/bin/sh\nexit 1\n")
    pod.start("train", env=variables(pod, cloud, "runpod")).told("this machine is being stopped")
    assert len(cloud.asked) == 1


@pytest.mark.parametrize(("platform", "answer"), [("vast", 401), ("vast", 404), ("vast", 302), ("runpod", 302)])
def test_a_refusal_is_one_line_and_the_container_stays(
    pod: Container, cloud: Cloud, platform: str, answer: int
) -> None:
    cloud.answers = [answer]
    started = pod.start("train", env=variables(pod, cloud, platform) | {"FAKE_CODE": "5"})
    line = started.told("could not be stopped")
    assert f"answers {answer}" in line
    assert "exit code 5" in line
    assert KEY not in line
    assert len(cloud.asked) == 1, "not asked again, and the key went nowhere else"
    assert started.process.poll() is None
    started.send(signal.SIGTERM)
    assert started.process.wait(5) == 5


def test_a_passing_fault_is_asked_again(pod: Container, cloud: Cloud) -> None:
    cloud.answers = [503]
    pod.start("train", env=variables(pod, cloud, "runpod")).told("this machine is being stopped")
    assert len(cloud.asked) == 2


def test_a_machine_that_nobody_can_stop_is_told_before_training(pod: Container, cloud: Cloud) -> None:
    env = variables(pod, cloud, "runpod") | {"RUNPOD_API_KEY": ""}
    started = pod.start("train", env=env)
    started.told("needs runpodctl or RUNPOD_API_KEY")
    assert "RUNPOD_API_KEY is not set" in started.told("could not be stopped")
    env = variables(pod, cloud, "vast") | {"CONTAINER_API_KEY": ""}
    pod.start("train", env=env).told("needs CONTAINER_API_KEY")
    assert cloud.asked == []
