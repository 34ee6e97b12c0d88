"""A folder that cannot be written is told before any work: who said it, whose it is, and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ltxtrain.config import LoadedConfig
from ltxtrain.config.compute import MemoryConfig
from ltxtrain.errors import ConfigError, MachineError
from ltxtrain.plan.make import make_plan
from ltxtrain.plan.places import check_offload, offload_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to other users")
STRANGER = 1234
IMAGE = {"LTX_IMAGE": "/opt/ltxtrain/image.json"}
# Everything is imported before rights are given up: another user may not be able to read this checkout.
CHILD = f"""
import os, sys
from pathlib import Path
from ltxtrain.errors import MachineError
from ltxtrain.plan.places import check_places
os.setgroups([]); os.setgid({STRANGER}); os.setuid({STRANGER})
cache, run, source = sys.argv[1:]
try:
    check_places(Path(cache), Path(run), {{"cache_dir": source, "output_dir": "--output"}})
except MachineError as error:
    print(error.message, error.hint, sep="\\n")
"""


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder that other users can reach: pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="ltxtrain-places-"))
    for name in ("cache", "out"):
        (folder / name).mkdir()
        os.chown(folder / name, STRANGER, STRANGER)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def told(volume: Path, mounts: str = "", source: str = "LTX_CACHE_DIR, of the image", **env: str) -> list[str]:
    words = [sys.executable, "-c", CHILD, str(volume / "cache"), str(volume / "out" / "smoke"), source]
    binds = "; ".join(f"mount --bind {volume / name} {volume / name}" for name in ("cache", "out"))
    lines = f"{binds}; {mounts or ':'}"
    command = ["unshare", "--mount", "sh", "-euc", f'{lines}\nexec "$@"', "sh", *words]
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs a mount namespace of its own")
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_root
def test_good_folders_are_told_nothing_and_left_as_they_were(volume: Path) -> None:
    assert told(volume, **IMAGE) == []
    assert list((volume / "cache").iterdir()) == []


@needs_root
def test_a_folder_of_another_user_is_told_with_its_source_and_both_users(volume: Path) -> None:
    os.chown(volume / "cache", 1000, 1001)
    problem, hint = told(volume, **IMAGE)
    assert f"{volume}/cache (Permission denied, from LTX_CACHE_DIR, of the image)" in problem
    assert f"uid {STRANGER}" in problem and "belongs to 1000:1001" in problem and "--cache" not in problem
    assert "-e PUID=1000 -e PGID=1001" in hint and "--user 1000:1001" in hint
    problem, hint = told(volume, source="default", **IMAGE)
    assert "is the default of --cache" in problem


@needs_root
def test_what_another_user_left_inside_is_told(volume: Path) -> None:
    (volume / "cache" / "digests").mkdir()
    problem, hint = told(volume, **IMAGE)
    assert f"{volume}/cache/digests" in problem and "belongs to 0:0" in problem
    assert hint == f"on the host, in what is mounted at {volume}/cache: chown -R {STRANGER}:{STRANGER} digests"
    (volume / "cache" / "digests").rmdir()
    (volume / "out" / "smoke").mkdir()
    problem, hint = told(volume, **IMAGE)
    assert f"nothing can be written to {volume}/out/smoke" in problem and "belongs to 0:0" in problem
    assert f"chown -R {STRANGER}:{STRANGER} smoke" in hint


@needs_root
def test_a_read_only_mount_is_told_as_such(volume: Path) -> None:
    problem, hint = told(volume, f"mount -o remount,bind,ro {volume / 'cache'}", **IMAGE)
    assert "Read-only file system" in problem
    assert hint == "mount it without :ro, or name another folder with --cache"


def test_the_folder_of_offloaded_weights_is_looked_at_before_any_work(
    load: Callable[..., LoadedConfig], add_clip: Callable[..., Path], tmp_path: Path
) -> None:
    clips = [add_clip(name).parent for name in ("a.mp4", "b.mp4")]
    file = tmp_path / "file"
    file.write_text("")
    asked = {"enable_group_offload": "true", "pretrained_model_name_or_path": "ltxtrain/tiny"}
    plan = make_plan(load(**asked, group_offload_to_disk_path=str(file / "weights")))
    told = f"nothing can be written to {file / 'weights'}, from group_offload_to_disk_path: {file} is not a folder"
    assert told in plan.warnings
    with pytest.raises(
        MachineError, match=r"file/weights \(File exists, from --group.*/file is not a folder$"
    ) as caught:
        check_offload(plan.config.memory, plan.sources)
    assert caught.value.hint == "name another folder with --group-offload-to-disk-path"
    with pytest.raises(ConfigError, match=r"--group-offload-to-disk-path: .* lies inside of the data set"):
        make_plan(load(**asked, group_offload_to_disk_path=str(clips[0] / "weights")))
    good = make_plan(load(**asked, group_offload_to_disk_path=str(tmp_path / "weights")))
    assert dict(good.disk)["offloaded weights"] > 0 and not any("offload" in text for text in good.warnings)
    (roomless,) = [text for text in make_plan(load(**asked, group_offload_to_disk_path="/proc/nothing")).warnings]
    assert roomless.startswith("disk: about ") and "are needed at /proc, " in roomless
    assert offload_folder(MemoryConfig(group_offload_to_disk_path=file)) is None, "nothing is put there"
    assert not (tmp_path / "weights").exists()
