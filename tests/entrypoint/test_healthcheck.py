"""Healthy means: nothing runs, or what runs gives signs of life."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.entrypoint.conftest import AS_ORDINARY_USER, SCRIPTS, Container, needs_box

# Leaves an old sign of life where the entrypoint says, and notes where that is.
AGE = """#!/bin/sh
touch -d "-2000 seconds" "$LTX_HEARTBEAT"
printf '%s\\n' "$LTX_HEARTBEAT" >"$RECORD/beat"
"""
SCRIPT = str(SCRIPTS / "healthcheck.sh")


def beat(path: Path, age: float) -> Path:
    path.write_text('{"time": 0, "pid": 1, "stage": "training", "done": 3, "total": 9}\n')
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_no_sign_of_life_is_healthy_when_nothing_runs(container: Container) -> None:
    done = container.run(script=SCRIPT, env={"LTX_HEARTBEAT": str(container.place / "none")})
    assert (done.code, done.out) == (0, "healthy: no run is going on\n")


@pytest.mark.parametrize(("age", "limit", "code"), [(890, "", 0), (910, "", 1), (5, "3", 1), (5, "60", 0)])
def test_the_age_decides(container: Container, age: float, limit: str, code: int) -> None:
    path = beat(container.place / "my beat", age)
    done = container.run(script=SCRIPT, env={"LTX_HEARTBEAT": str(path), "LTX_HEARTBEAT_SECONDS": limit})
    assert done.code == code
    assert done.out.startswith("unhealthy: no sign of life for " if code else "healthy: a sign of life ")
    assert ("training" in done.out) == bool(code), "what hung is said"


def test_a_limit_that_is_no_number_is_told_and_900_holds(container: Container) -> None:
    path = beat(container.place / "beat", 890)
    done = container.run(script=SCRIPT, env={"LTX_HEARTBEAT": str(path), "LTX_HEARTBEAT_SECONDS": "5m"})
    assert done.code == 0
    assert "LTX_HEARTBEAT_SECONDS=5m is no number of seconds" in done.out


@needs_box
@pytest.mark.parametrize("read_only", ["", "alone", "tmpfs"])
@pytest.mark.parametrize("user", [(), AS_ORDINARY_USER])
def test_it_looks_where_the_entrypoint_tells_ltxtrain_to_write(
    box: Container, read_only: str, user: tuple[str, ...]
) -> None:
    box.mount("/cache", 0, 0o777)
    box.read_only, box.as_user = read_only, user
    box.program("check", AGE + "unset LTX_HEARTBEAT\n/opt/ltxtrain/entrypoint/healthcheck.sh\n")
    done = box.run("/fake/check")
    assert done.code == 1, done.err
    assert done.out.startswith("unhealthy: ")
    path = Path((done.record / "beat").read_text().strip())
    if read_only == "alone":
        assert path == Path(f"/dev/shm/ltxtrain-{os.uname().nodename}.heartbeat")
        path.unlink(missing_ok=True)
    else:
        assert path == Path("/tmp/ltxtrain.heartbeat")


@needs_box
def test_root_s_check_finds_the_sign_of_a_user_who_could_not_write_to_tmp(box: Container) -> None:
    """The check runs as the image's user, root, for whom /tmp would be the place."""
    box.mount("/tmp", 0, 0o755)
    name = f"/dev/shm/ltxtrain-{os.uname().nodename}.heartbeat"
    box.program("check", AGE)
    assert box.run("/fake/check").code == 0
    assert Path(name).exists()
    done = box.run("/fake/check", script="/opt/ltxtrain/entrypoint/healthcheck.sh")
    Path(name).unlink(missing_ok=True)
    assert done.code == 1


def test_it_needs_nothing_but_a_shell_and_coreutils() -> None:
    done = subprocess.run([SCRIPT], env={"PATH": "/usr/bin:/bin", "LTX_HEARTBEAT": "/none"}, check=False)
    assert done.returncode == 0
