"""Real processes that need not import their libraries first: each is a fork of one that has, and that has done no more.

    python -m tests.warm MODULE ...

imports the modules, reads a call as a line of JSON, answers the id of its process at once and its exit code at its end.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = "from ltxtrain.cli import main; main()"
# What a run imports before its first step, the most of seven seconds of one core.
TORCH = (
    *("ltxtrain.cli.app", "ltxtrain.precompute", "ltxtrain.train", "ltxtrain.sample", "ltxtrain.export"),
    *("transformers.models.t5.modeling_t5", "diffusers.pipelines.ltx.pipeline_ltx"),
)
PLAN = ("ltxtrain.cli.app", "ltxtrain.cli.plan", "ltxtrain.plan.make", "ltxtrain.plan.text", "pydantic_settings")
PATIENCE_S = 180.0

_OWN_MOUNTS = """
import ctypes, os, subprocess
uid, gid = os.geteuid(), os.getegid()
assert ctypes.CDLL(None).unshare(0x00020000 | (0x10000000 if uid else 0)) == 0  # CLONE_NEWNS, CLONE_NEWUSER
for name, words in (("setgroups", "deny"), ("uid_map", f"0 {{uid}} 1"), ("gid_map", f"0 {{gid}} 1")) if uid else ():
    with open(f"/proc/self/{{name}}", "w") as file:
        file.write(words)
subprocess.run(["sh", "-euc", "mount --make-rprivate /; " + {lines!r}], check=True)
"""


class Process:
    """``python -c code words``, already started. What can be asked of it is asked as of ``subprocess.Popen``."""

    def __init__(self, server: subprocess.Popen[bytes], call: Mapping[str, Any]) -> None:
        self._server = server
        self._folder = tempfile.TemporaryDirectory(prefix="ltxtrain-warm-")
        self._said = [Path(self._folder.name) / name for name in ("out", "err")]
        for file in self._said:
            file.touch()
        assert server.stdin and server.stdout
        server.stdin.write(json.dumps({**call, "said": [str(file) for file in self._said]}).encode() + b"\n")
        self.pid = int(server.stdout.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self._heard(0.0)

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = PATIENCE_S) -> tuple[str, str]:
        if self._heard(timeout) is None:
            self.kill()
            raise subprocess.TimeoutExpired("a warm process", timeout, stderr=self._said[1].read_bytes())
        out, err = (file.read_text() for file in self._said)
        return out, err

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self._heard(PATIENCE_S)

    def _heard(self, seconds: float) -> int | None:
        assert self._server.stdout
        if self.returncode is None and select.select([self._server.stdout], [], [], seconds)[0]:
            self.returncode = int(self._server.stdout.readline())
        return self.returncode


def start(
    code: str,
    *words: object,
    modules: tuple[str, ...] = TORCH,
    env: Mapping[str, str] | None = None,
    umask: int = -1,
) -> Process | subprocess.Popen[str]:
    """``python -c code words``, with its own environment and umask where they are given. One at a time."""
    given = [str(word) for word in words]
    if sys.platform == "darwin":  # there no fork survives what torch has loaded
        pipe, command = subprocess.PIPE, [sys.executable, "-c", code, *given]
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, umask=umask)
    if before := _last.pop(modules, None):
        before.kill()  # where a test has failed
    call = {"code": code, "words": given, "env": dict(env or os.environ), "umask": umask}
    _last[modules] = process = Process(_server(modules), call)
    return process


def run(code: str, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    process = start(code, *words, **options)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def own_mounts(lines: str) -> str:
    """Code for a process of Linux: from there on it has mounts of its own, as these lines of shell make them."""
    return _OWN_MOUNTS.format(lines=lines)


_last: dict[tuple[str, ...], Process] = {}


@functools.cache
def _server(modules: tuple[str, ...]) -> subprocess.Popen[bytes]:
    """One for all tests of this process; it ends with its input."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.warm", *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd=Path(__file__).parents[1],
    )


def serve(modules: Sequence[str]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))
            return
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def become(call: dict[str, Any]) -> None:
    """Be the process that ``python -c`` would be with this environment. It ends as any other does."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(call["said"], start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    os.environ.clear()
    os.environ.update(call["env"])
    if call["umask"] >= 0:
        os.umask(call["umask"])
    sys.argv = ["-c", *call["words"]]
    exec(call["code"], {"__name__": "__main__"})


if __name__ == "__main__":
    serve(sys.argv[1:])
