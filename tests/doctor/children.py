"""Checks run in a child process: as another user, in mounts of its own, under limits."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from ltxtrain.doctor.findings import Finding
from tests import warm

ROOT = os.geteuid() == 0
STRANGER = 1234
needs_root = pytest.mark.skipif(not ROOT, reason="only root can give files to other users")

# Everything is imported before rights are given up: another user may not be able to read this checkout.
_MODULES = ("ltxtrain.doctor.places", "ltxtrain.doctor.process", "ltxtrain.doctor.clips", "ltxtrain.plan.places")
_CHILD = """
import ctypes, dataclasses, json, os, resource, sys
from pathlib import Path
import ltxtrain.doctor.places, ltxtrain.doctor.process, ltxtrain.plan.places
from ltxtrain.doctor.clips import *
from ltxtrain.doctor.places import *
from ltxtrain.doctor.process import *

folder = Path(sys.argv[1])
uid = int(sys.argv[2])
if uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
exec(sys.argv[3])
found = eval(sys.argv[4])
found = found if isinstance(found, list) else [found]
print(json.dumps([dataclasses.asdict(finding) for finding in found]))
"""


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="ltxtrain-doctor-test-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def wrong(findings: Finding | Iterable[Finding], mounts: bool = False) -> list[str]:
    """The codes of all warnings and faults. Where the tests' own folder lies is left out, unless asked for."""
    found = [findings] if isinstance(findings, Finding) else findings
    kept = [finding for finding in found if mounts or not finding.check.endswith(" mount")]
    return [finding.code for finding in kept if finding.state in ("warning", "fault")]


def in_child(
    check: str,
    folder: Path,
    *,
    uid: int = 0,
    first: str = "",
    mounts: str = "",
    environment: Mapping[str, str] | None = None,
) -> list[Finding]:
    """What ``check`` finds in a child: after the statements ``first``, as ``uid``, after the shell lines ``mounts``."""
    if mounts and not _may_mount():
        pytest.skip("mounts of one's own need root, or user namespaces")
    code = (warm.own_mounts(mounts) if mounts else "") + _CHILD
    done = warm.run(code, folder, uid, first, check, modules=_MODULES, env={**os.environ, **(environment or {})})
    assert done.returncode == 0, done.stderr
    return [Finding(**found) for found in json.loads(done.stdout)]


@functools.cache
def _may_mount() -> bool:
    return warm.run(warm.own_mounts("mount -t tmpfs tmpfs /mnt"), modules=_MODULES).returncode == 0
