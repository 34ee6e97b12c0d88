"""A server that answers as the Hub's programming interface does: JSON, and its reasons in X-Error-Code."""

from __future__ import annotations

import json
import subprocess
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

MODEL = "someone/ltx-video"
DESCRIPTION = f"/api/models/{MODEL}"
FILE = f"/{MODEL}/resolve/main/model_index.json"
WHOAMI = "/api/whoami-v2"
PIECE = 65536


@dataclass
class Reply:
    status: int = 200
    body: object = None
    reason: str = ""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict)


def described(**changes: object) -> Reply:
    files = [{"rfilename": "README.md"}, {"rfilename": "model_index.json"}]
    return Reply(body={"_id": "0", "id": MODEL, "modelId": MODEL, "sha": "1234abcd" * 5, "siblings": files, **changes})


class FakeHub(ThreadingHTTPServer):
    """Answers by path; what was asked, and how many bytes were sent, is kept. ``off_s`` is how wrong its clock is."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that has read enough closes the connection."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = {DESCRIPTION: described(), FILE: Reply(), WHOAMI: Reply(body={"type": "user", "name": "alice"})}
        self.asked: list[tuple[str, str, str]] = []
        self.sent = 0
        self.off_s = 0.0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
        missing = Reply(404, {"error": "Repository not found"}, "RepoNotFound", "Repository not found")
        reply = self.server.replies.get(self.path, missing)
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response_only(reply.status)
        headers = {
            "Date": formatdate(time.time() + self.server.off_s, usegmt=True),
            "Content-Type": "application/json; charset=utf-8",
            "Content-Length": str(len(content)),
        }
        if reply.reason:
            headers |= {"X-Error-Code": reply.reason, "X-Error-Message": reply.message}
        for name, value in (headers | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            for start in range(0, len(content), PIECE):
                self.server.sent += self.wfile.write(content[start : start + PIECE])

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        pass


def certificate(folder: Path, until: str) -> tuple[Path, Path]:
    """A certificate for localhost that vouches for itself, valid until the day ``until``; and its key."""
    key, request, made = folder / "key.pem", folder / "request.pem", folder / "certificate.pem"
    (folder / "index").touch()
    settings = folder / "settings"
    settings.write_text(
        f"[ca]\ndefault_ca = here\n[here]\nnew_certs_dir = {folder}\ndatabase = {folder}/index\nrand_serial = yes\n"
        "default_md = sha256\npolicy = any\n[any]\ncommonName = supplied\n[names]\nsubjectAltName = DNS:localhost\n"
    )
    new = f"req -new -newkey rsa:2048 -nodes -subj /CN=localhost -keyout {key} -out {request}"
    sign = (
        f"ca -batch -selfsign -config {settings} -extensions names -startdate 20200101000000Z -enddate {until}000000Z"
    )
    for command in (new, f"{sign} -keyfile {key} -in {request} -out {made}"):
        try:
            subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
        except FileNotFoundError:
            pytest.skip("makes its certificate with openssl, which is not here")
    return made, key
