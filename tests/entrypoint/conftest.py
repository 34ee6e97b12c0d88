"""The container's scripts, run as they are: by dash and by bash, and as root in a box that is laid out like the image.

The program they start is a stand-in (``LTXTRAIN``) that writes down what it was given and obeys signals; everything
else is real: shells, users, mounts, signals, servers.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "entrypoint"
ENTRYPOINT = SCRIPTS / "entrypoint.sh"
SHELLS = [name for name in ("dash", "bash") if shutil.which(name)]
PATIENCE = 20.0
AS_ORDINARY_USER = ("setpriv", "--reuid=1234", "--regid=1234", "--clear-groups")

# A stand-in for ltxtrain. FAKE_SECONDS: how long it runs; FAKE_CODE: how it ends. A signal is written down, and it goes
# on for a while as if it saved, so that a second signal would be seen.
LTXTRAIN = """#!/bin/sh
umask 000
printf '%s\\n' "$$" >"$RECORD/pid"
printf '%s\\n' "uid=$(id -u) gid=$(id -g) groups=$(id -G | tr ' ' ',')" >"$RECORD/id"
env -0 >"$RECORD/env"
pwd >"$RECORD/cwd"
: >"$RECORD/argv"
for word in "$@"; do printf '%s\\0' "$word" >>"$RECORD/argv"; done
heard() { printf '%s\\n' "$1" >>"$RECORD/signals"; code=$2; }
code=
trap 'heard TERM 143' TERM
trap 'heard INT 130' INT
echo "words of ltxtrain" >&2
echo "results of ltxtrain"
: >"$RECORD/ready"
turns=$((${FAKE_SECONDS:-0} * 20))
while [ "$turns" -gt 0 ] && [ -z "$code" ]; do sleep 0.05; turns=$((turns - 1)); done
if [ -n "$code" ]; then sleep 0.2; fi
exit "${code:-${FAKE_CODE:-0}}"
"""

# Lays out a root as the image has it, in a mount namespace of its own: BOX FOLDER OPTIONS command...
BOX = r"""
set -eu
box=$1 scripts=$2 shell=$3 mounts=$4 read_only=$5
shift 5
mount -t tmpfs -o mode=755 box "$box"
cd "$box"
for name in bin sbin lib lib64; do if [ -L "/$name" ]; then cp -a "/$name" .; fi; done
mkdir -p usr etc proc dev tmp run root data cache output workspace opt/ltxtrain/entrypoint record fake
chmod 1777 tmp data cache output
chmod 700 root
for name in usr etc; do mount --bind "/$name" "$name"; done
for name in bin sbin lib lib64; do
    if [ ! -L "/$name" ] && [ -d "/$name" ]; then mkdir -p "$name" && mount --bind "/$name" "$name"; fi
done
mount --rbind /proc proc
mount --rbind /dev dev
mount --bind "$scripts" opt/ltxtrain/entrypoint
mount --bind "$FAKE_BIN" fake
mount --bind "$RECORD_OUTSIDE" record
if [ "$shell" = bash ]; then mount --bind "$(command -v bash)" ".$(readlink -f /bin/sh)"; fi
for pair in $mounts; do
    mkdir -p ".${pair#*:}"
    mount --bind "${pair%%:*}" ".${pair#*:}"
done
if [ "$read_only" = tmpfs ]; then mount -t tmpfs -o mode=1777 tmp tmp; fi
if [ -n "$read_only" ]; then mount -o remount,ro "$box"; fi
exec chroot . "$@"
"""


def _can_box() -> bool:
    if os.geteuid() != 0 or not shutil.which("unshare") or not shutil.which("setpriv"):
        return False
    probe = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs probe /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


CAN_BOX = _can_box()
needs_box = pytest.mark.skipif(not CAN_BOX, reason="needs root and a mount namespace of its own")


@dataclass
class Done:
    """How a start ended, and what the stand-in was given (``ran`` is false when it was never started)."""

    code: int
    out: str
    err: str
    record: Path

    @property
    def ran(self) -> bool:
        return (self.record / "argv").exists()

    @property
    def argv(self) -> list[str]:
        return (self.record / "argv").read_text().split("\0")[:-1]

    @property
    def env(self) -> dict[str, str]:
        pairs = (self.record / "env").read_bytes().decode().split("\0")[:-1]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def id(self) -> str:
        return (self.record / "id").read_text().strip()

    @property
    def cwd(self) -> str:
        return (self.record / "cwd").read_text().strip()

    @property
    def signals(self) -> list[str]:
        path = self.record / "signals"
        return path.read_text().split() if path.exists() else []


@dataclass
class Started:
    process: subprocess.Popen[str]
    record: Path

    def wait_for(self, name: str = "ready") -> None:
        """Wait until the stand-in has written ``name``."""
        self.until(lambda: (self.record / name).exists(), name)

    def until(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.02)

    def told(self, words: str) -> str:
        """Read stderr until ``words`` come, and return that line."""
        assert self.process.stderr is not None
        patience = threading.Timer(PATIENCE, self.process.kill)
        patience.start()
        before = []
        try:
            for line in self.process.stderr:
                if words in line:
                    return line
                before.append(line)
        finally:
            patience.cancel()
        raise AssertionError(f"never said: {words}; but: {''.join(before)}")

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def done(self) -> Done:
        out, err = self.process.communicate(timeout=PATIENCE)
        return Done(self.process.returncode, out, err, self.record)


@dataclass
class Container:
    """A place to start the entrypoint in. ``box`` starts it in a root of its own; ``mounts`` are ``outside:inside``."""

    place: Path
    shell: str
    box: bool = False
    read_only: str = ""  # "alone", or "tmpfs" for a read-only root with a tmpfs at /tmp
    mounts: list[str] = field(default_factory=list)
    as_user: Sequence[str] = ()
    namespaces: Sequence[str] = ("--mount", "--net")
    started: list[Started] = field(default_factory=list)

    @property
    def bin(self) -> Path:
        return self.place / "bin"

    def program(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def folder(self, name: str, owner: int = 0, mode: int = 0o755) -> Path:
        path = self.place / name
        path.mkdir()
        path.chmod(mode)
        if os.geteuid() == 0:
            os.chown(path, owner, owner)
        return path

    def mount(self, inside: str, owner: int = 0, mode: int = 0o755) -> Path:
        outside = self.folder(f"volume{len(self.mounts)}", owner, mode)
        self.mounts.append(f"{outside}:{inside}")
        return outside

    def start(self, *arguments: str, env: Mapping[str, str] | None = None, script: str = "") -> Started:
        record = Path(tempfile.mkdtemp(dir=self.place, prefix="record"))
        record.chmod(0o777)
        system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"LTX_ON_EXIT": "", "HOME": "/root", "FAKE_BIN": str(self.bin), "RECORD_OUTSIDE": str(record)}
        if self.box:
            environment |= {"PATH": f"/fake:{system}", "RECORD": "/record"}
            root = self.place / "root"
            root.mkdir(exist_ok=True)
            command = ["unshare", *self.namespaces, "sh", "-c", BOX, "box", str(root), str(SCRIPTS), self.shell]
            command += [" ".join(self.mounts), self.read_only, *self.as_user]
            command += [script or "/opt/ltxtrain/entrypoint/entrypoint.sh", *arguments]
        else:
            cache, output = self.place / "cache", self.place / "output"
            environment |= {"PATH": f"{self.bin}:{system}", "RECORD": str(record), "LTX_RUN_AS_ROOT": "1"}
            environment |= {"LTX_CACHE_DIR": str(cache), "LTX_OUTPUT_DIR": str(output)}
            # Another test run on this machine must not share lock and heartbeat with this one.
            environment |= {"TMPDIR": str(self.place), "LTX_HEARTBEAT": str(self.place / "heartbeat")}
            command = [*self.as_user, self.shell, script or str(ENTRYPOINT), *arguments]
        environment |= dict(env or {})
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command,
            env=environment,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            # Where the tests run in the background of a shell, SIGINT is ignored, and what is ignored is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )
        self.started.append(Started(process, record))
        return self.started[-1]

    def run(self, *arguments: str, env: Mapping[str, str] | None = None, script: str = "") -> Done:
        return self.start(*arguments, env=env, script=script).done()

    def end(self) -> None:
        """Stop what still runs, asking first: a shell that waits takes its `sleep` with it."""
        for one in self.started:
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
                if one.process.poll() is None:
                    one.process.send_signal(number)
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        one.process.wait(3)
            for stream in (one.process.stdout, one.process.stderr):
                if stream is not None:
                    stream.close()


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def container(shell: str) -> Iterator[Container]:
    """The scripts, started by each shell with nothing of a container around them. Needs no privileges."""
    yield from _container(shell, box=False)


@pytest.fixture
def box(shell: str) -> Iterator[Container]:
    """The scripts in a root of their own, laid out like the image, started as root without a network."""
    yield from _container(shell, box=True)


def _container(shell: str, box: bool) -> Iterator[Container]:
    # Not pytest's own folder: other users could not look into it.
    place = Path(tempfile.mkdtemp(prefix="entrypoint"))
    place.chmod(0o755)
    (place / "bin").mkdir()
    one = Container(place, shell, box)
    one.program("ltxtrain", LTXTRAIN)
    yield one
    one.end()
    shutil.rmtree(place)
