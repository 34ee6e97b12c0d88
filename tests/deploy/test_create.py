"""The script that sends a body sends it as it is, with the key in one header, and keeps the key to itself."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = "rpa_" + "K" * 24
BODY = {"name": "ltxtrain", "imageName": "me/ltxtrain:1-cuda-cloud", "dockerStartCmd": ["train", "--yes"]}
LOGIN = {"docker_login_repo": "", "docker_login_user": "", "docker_login_pass": ""}
VAST = {"name": "ltxtrain", "image": "me/ltxtrain", "tag": "1-cuda-cloud", **LOGIN}
POD = {"name": "ltxtrain", "templateId": "x1"}


class Cloud(HTTPServer):
    """A server on this computer that keeps what it is sent."""

    def __init__(self, code: int, answer: object) -> None:
        super().__init__(("127.0.0.1", 0), Ear)
        self.code, self.answer = code, answer
        self.heard: list[tuple[str, str, dict[str, str], Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/templates"


class Ear(BaseHTTPRequestHandler):
    server: Cloud

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.heard.append((self.command, self.path, dict(self.headers), json.loads(body or b"null")))
        self.send_response(self.server.code)
        if self.server.code == 302:
            self.send_header("Location", self.server.url)
        self.end_headers()
        self.wfile.write(json.dumps(self.server.answer).encode())

    do_PUT = do_POST

    def do_GET(self) -> None:
        self.server.heard.append((self.command, self.path, dict(self.headers), None))
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    server = Cloud(*request.param)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def create(*words: str, body: object = BODY, **variables: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.lower().endswith(("_key", "_proxy"))}
    program = [sys.executable, "-S", str(ROOT / "deploy" / "create.py"), *words]
    text = body if isinstance(body, str) else json.dumps(body)
    return subprocess.run(program, input=text, capture_output=True, text=True, check=False, env=clean | variables)


@pytest.mark.parametrize("cloud", [(201, {"id": "30zmvf89kd"})], indirect=True)
def test_a_template_is_sent_and_its_id_told(cloud: Cloud) -> None:
    done = create("runpod-template", "--url", cloud.url, RUNPOD_API_KEY=KEY)
    assert done.returncode == 0, done.stderr
    [(method, path, headers, body)] = cloud.heard
    assert (method, path, body) == ("POST", "/v1/templates", BODY)
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == "application/json"
    assert "template 30zmvf89kd\n" in done.stdout
    assert "--template 30zmvf89kd" in done.stdout
    assert KEY not in done.stdout + done.stderr + json.dumps(body)


@pytest.mark.parametrize("cloud", [(200, {"success": True, "template": {"id": 7, "hash_id": "4e17"}})], indirect=True)
def test_vasts_answer_is_read_as_well(cloud: Cloud) -> None:
    done = create("vast-template", "--url", cloud.url, body=VAST, VAST_API_KEY=KEY)
    assert "template 7, hash 4e17" in done.stdout
    assert "--template_hash 4e17" in done.stdout


@pytest.mark.parametrize(
    ("cloud", "says", "hint"),
    [
        ((401, {"error": f"bad key {KEY}"}), "answered 401", "is the key right"),
        ((400, {"error": "name is taken"}), "name is taken", "look at the fields"),
        ((200, {"success": False, "msg": "no such image"}), "no such image", "look at the fields"),
        ((302, {}), "answered 302", "look at the fields"),
    ],
    indirect=["cloud"],
)
def test_a_refusal_is_told_without_the_key(cloud: Cloud, says: str, hint: str) -> None:
    done = create("vast-template", "--url", cloud.url, body=VAST, VAST_API_KEY=KEY)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr and hint in done.stderr
    assert KEY not in done.stderr
    assert len(cloud.heard) == 1, "a redirect would have carried the key on"


@pytest.mark.parametrize("cloud", [(201, {"id": "x"})], indirect=True)
@pytest.mark.parametrize(
    ("body", "variables", "says"),
    [
        (BODY, {}, "RUNPOD_API_KEY is not set"),
        ("error: refused", {"RUNPOD_API_KEY": KEY}, "no JSON object"),
        (BODY | {"imageName": "REGISTRY/NAME:cuda-cloud@sha256:DIGEST"}, {"RUNPOD_API_KEY": KEY}, "a placeholder"),
        ({"templateId": "TEMPLATE"}, {"RUNPOD_API_KEY": KEY}, "a placeholder"),
    ],
)
def test_nothing_is_sent_that_is_not_ready(cloud: Cloud, body: object, variables: dict[str, str], says: str) -> None:
    done = create("runpod-template", "--url", cloud.url, body=body, **variables)
    assert done.returncode == 2
    assert says in done.stderr and "\nhint: " in done.stderr
    assert cloud.heard == []


@pytest.mark.parametrize("cloud", [(201, {"id": "x"})], indirect=True)
@pytest.mark.parametrize(
    ("what", "body", "says"),
    [
        ("runpod-template", VAST, "stdin holds a vast-template, not a runpod-template"),
        ("vast-template", BODY, "stdin holds a runpod-template, not a vast-template"),
        ("runpod-template", POD, "stdin holds a runpod-pod, not a runpod-template"),
        ("runpod-pod", BODY, "stdin holds a runpod-template, not a runpod-pod"),
        ("runpod-pod", POD | {"gpus": 2}, "stdin holds no runpod-pod: gpus is no field of it"),
        ("vast-template", {"name": "x", "image": "me/x", "tag": "1"}, "docker_login_repo is missing"),
    ],
)
def test_a_body_for_another_place_is_not_sent(cloud: Cloud, what: str, body: object, says: str) -> None:
    done = create(what, "--url", cloud.url, body=body, RUNPOD_API_KEY=KEY, VAST_API_KEY=KEY)
    assert (done.returncode, done.stdout, cloud.heard) == (2, "", [])
    assert says in done.stderr and "nothing was sent" in done.stderr and done.stderr.count("\n") == 2


def test_what_render_prints_is_taken_and_nothing_else_is_said_when_it_has_failed() -> None:
    render = [sys.executable, "-S", str(ROOT / "deploy" / "render.py")]
    pod = subprocess.run([*render, "runpod-pod", "--template", "x1"], capture_output=True, text=True, check=True)
    assert (
        "nothing was sent"
        in create("runpod-pod", "--url", "http://127.0.0.1:9/", body=pod.stdout, RUNPOD_API_KEY=KEY).stderr
    )
    failed = subprocess.run([*render, "runpod-pod", "--template", ""], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    for variables in ({}, {"RUNPOD_API_KEY": KEY}):
        done = create("runpod-pod", body=failed.stdout, **variables)
        assert (done.returncode, done.stderr) == (2, "error: nothing came in on stdin, so nothing was sent\n")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1/pods", "http://no-such-host.invalid/v1/pods"])
def test_a_cloud_that_is_not_reached_was_sent_nothing(url: str) -> None:
    done = create("runpod-pod", "--url", url, body=POD, RUNPOD_API_KEY=KEY)
    assert done.returncode == 2
    assert f"{url}: " in done.stderr and "nothing was sent" in done.stderr and "\nhint: " in done.stderr
    assert "whether it was made" not in done.stderr


def test_a_cloud_that_hangs_up_may_have_made_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = Thread(target=lambda: server.accept()[0].close())
        thread.start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1/pods"
        done = create("runpod-pod", "--url", url, body=POD, RUNPOD_API_KEY=KEY)
        thread.join()
    assert done.returncode == 2
    assert "look on the web page whether it was made" in done.stderr and "nothing was sent" not in done.stderr


def test_a_key_that_no_header_can_hold_is_not_printed() -> None:
    done = create("runpod-pod", "--url", "http://127.0.0.1:9/", body=POD, RUNPOD_API_KEY=f"{KEY}\nX: y")
    assert done.returncode == 2 and "characters that are in no key" in done.stderr
    assert KEY not in done.stderr


def test_it_tells_how_it_is_used() -> None:
    bare, asked = create(), create("--help")
    assert (bare.returncode, bare.stdout) == (2, "") and (asked.returncode, asked.stderr) == (0, "")
    for text in (bare.stderr, asked.stdout):
        assert "example:" in text and "runpod-template < template.json" in text and "RUNPOD_API_KEY" in text
    assert create("runpod-temp").stderr.startswith("error: ")
