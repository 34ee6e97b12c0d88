"""A server that gives data sets as the Hub does: descriptions, pages of the tree, files by range."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from tests.doctor.fake_hub import FakeHub, Handler, Reply

NAME = "someone/clips"
API = f"/api/datasets/{NAME}"
PAGE = 2  # entries of a listing

FILES = {
    "README.md": b"---\nlicense: mit\n---\n",
    "folder/one.mp4": os.urandom(3 << 20),
    "folder/one.txt": b"a cat walks\n",
    "folder/two.mp4": b"second video",
    "folder/two.txt": b"a dog runs\n",
    "empty.txt": b"",
    "load.py": b"import os",
    "weights.pkl": b"\x80",
    ".gitattributes": b"*.mp4 filter=lfs",
}


class DataHub(FakeHub):
    """``files`` by name; ``large`` ones have a SHA-256. ``cut`` says after how many bytes an answer breaks off."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__()
        self.RequestHandlerClass = DataHandler
        self.files = files
        self.large = {name for name in files if not name.endswith((".txt", ".md"))}
        self.cut: dict[str, list[int]] = {}
        self.wrong: dict[str, list[bytes]] = {}
        self.refusal: Reply | None = None
        self.drip_s = 0.0  # between two bytes of a file
        self.ranges = True
        self.ranges_asked: list[tuple[str, str]] = []
        self.odd: dict[str, object] = {}  # fields of every entry
        self.answers: list[bytes] = []  # instead of any answer, one after the other
        self.pages = 0
        self.endless = False
        self.card: object = {"license": "mit"}

    @property
    def commit(self) -> str:
        content = json.dumps({name: hashlib.sha256(body).hexdigest() for name, body in sorted(self.files.items())})
        return hashlib.sha1(content.encode()).hexdigest()

    def fetched(self) -> list[str]:
        """The names of the files that were asked for since the last call."""
        names = [unquote(path.partition("/resolve/")[2].partition("/")[2]) for _, path, _ in self.asked]
        self.asked.clear()
        return sorted(name for name in names if name)

    def entry(self, name: str) -> dict[str, object]:
        body = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
        entry: dict[str, object] = {"type": "file", "path": name, "size": len(body), "oid": blob}
        if name in self.large:
            entry["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 130}
        return entry | self.odd


class DataHandler(Handler):
    server: DataHub

    def do_GET(self) -> None:
        hub, path = self.server, urlsplit(self.path)
        if hub.answers:
            hub.replies[self.path] = Reply(body=hub.answers.pop(0))
            return super().do_GET()
        resolve = f"/datasets/{NAME}/resolve/{hub.commit}/"
        if path.path.startswith(resolve) and hub.refusal is None:
            hub.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            return self._file(unquote(path.path.removeprefix(resolve)))
        if path.path == API or path.path.startswith(f"{API}/revision/"):
            described = {"_id": "0", "id": NAME, "sha": hub.commit, "cardData": hub.card, "tags": [], "siblings": []}
            hub.replies[self.path] = Reply(body=described)
            if path.path.startswith(f"{API}/revision/") and unquote(path.path).rpartition("/")[2] not in (
                "v1",
                hub.commit,
            ):
                hub.replies[self.path] = Reply(404, {"error": "Invalid rev id"}, "RevisionNotFound", "Invalid rev id")
        elif path.path == f"{API}/tree/{hub.commit}":
            hub.replies[self.path] = self._page(
                int(dict(part.split("=") for part in path.query.split("&")).get("from", 0))
            )
        if hub.refusal is not None and path.path != "/api/whoami-v2":
            hub.replies[self.path] = hub.refusal
        return super().do_GET()

    do_HEAD = do_GET

    def _page(self, start: int) -> Reply:
        self.server.pages += 1
        if self.server.endless:
            folder = {"type": "directory", "path": "d", "size": 0, "oid": "0" * 40}
            address = f"http://elsewhere.example{API}/tree/{self.server.commit}?from={start + 1}"
            return Reply(body=[folder], headers={"Link": f'<{address}>; rel="next"'})
        names = sorted(self.server.files)
        entries = [self.server.entry(name) for name in names[start : start + PAGE]]
        headers = {}
        if start + PAGE < len(names):
            address = f"{self.server.address}{API}/tree/{self.server.commit}?from={start + PAGE}"
            headers["Link"] = f'<{address}>; rel="next"'
        folders = [{"type": "directory", "path": "folder", "size": 0, "oid": "0" * 40}] if not start else []
        return Reply(body=[*folders, *entries], headers=headers)

    def _file(self, name: str) -> None:
        hub = self.server
        body = hub.wrong[name].pop(0) if hub.wrong.get(name) else hub.files[name]
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
        if asked:
            hub.ranges_asked.append((name, asked))
        self.send_response_only(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        for place in range(start, len(body) if hub.drip_s else 0):
            self.wfile.write(body[place : place + 1])
            time.sleep(hub.drip_s)
        cut = hub.cut[name].pop(0) if hub.cut.get(name) else None
        self.wfile.write(body[start : None if cut is None else start + cut])
        hub.sent += len(body) - start if cut is None else cut
        self.close_connection = True


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[DataHub]:
    with DataHub(files) as hub:
        threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield hub
        hub.shutdown()
