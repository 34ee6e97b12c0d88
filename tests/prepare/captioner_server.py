"""A server with OpenAI's interface that answers as it is told, and keeps what it was asked."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

from PIL import Image

from tests.doctor.fake_hub import Reply


@dataclass
class Question:
    path: str
    key: str
    model: str
    text: str
    pictures: list[Image.Image] = field(default_factory=list)


def said(text: object, ended: str = "stop") -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": ended}
    return Reply(body={"id": "1", "object": "chat.completion", "choices": [choice]})


class CaptionServer(ThreadingHTTPServer):
    """``replies`` are given one after the other; when there are none left, ``usual``. ``slow_s``: before an answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.usual = said("A cat walks across a red carpet.")
        self.replies: list[Reply] = []
        self.asked: list[Question] = []
        self.slow_s = 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    def handle_error(self, *_: object) -> None:
        """A client that waits no longer closes the connection."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: CaptionServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(_question(self.path, self.headers.get("Authorization", ""), body))
            reply = server.replies.pop(0) if server.replies else server.usual
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        time.sleep(server.slow_s)
        with server.lock:
            server.at_once -= 1
        content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
        self.send_response_only(reply.status)
        for name, value in {"Content-Length": str(len(content)), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def _question(path: str, key: str, body: dict[str, Any]) -> Question:
    text, *pictures = body["messages"][0]["content"]
    found = Question(path, key, body["model"], text["text"])
    for picture in pictures:
        kind, _, data = picture["image_url"]["url"].partition(",")
        assert kind == "data:image/jpeg;base64"
        found.pictures.append(Image.open(BytesIO(base64.b64decode(data, validate=True))))
    return found


@contextmanager
def serving() -> Iterator[CaptionServer]:
    with CaptionServer() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()
