"""What stands around a container: which cloud it is of, and where our images look for clips."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ltxtrain.errors import DataError
from ltxtrain.facts.mounts import MOUNTS, mount_below

VARIABLES = ("LTX_IMAGE", "KUBERNETES_SERVICE_HOST", "RUNPOD_POD_ID", "VAST_CONTAINERLABEL", "container")
HOST_CLIPS = "/path/of/your/clips"


def in_container(environment: Mapping[str, str], root: Path = Path("/")) -> bool:
    """Whether files outside of mounts vanish with the container.

    Docker and Podman leave a file; Kubernetes, RunPod and Vast set variables; our images say it themselves.
    """
    marks = (root / ".dockerenv", root / "run" / ".containerenv")
    return any(environment.get(name) for name in VARIABLES) or any(mark.exists() for mark in marks)


def cloud_machine(env: Mapping[str, str]) -> str:
    """What a machine of this cloud is called there, by the variables that RunPod and Vast set; else nothing."""
    if env.get("RUNPOD_POD_ID"):
        return "pod"
    if env.get("VAST_CONTAINERLABEL") or (env.get("CONTAINER_ID") and env.get("CONTAINER_API_KEY")):
        return "instance"
    return ""


def workspace(env: Mapping[str, str]) -> Path:
    """Where clouds mount their volume."""
    return Path(env.get("LTX_WORKSPACE") or "/workspace")


def clips_place(env: Mapping[str, str], mounts: Path = MOUNTS) -> Path:
    """The folder that our images take clips from, as the entrypoint finds it."""
    named = env.get("LTX_DATA_DIR", "").strip()
    if named:
        return Path(named)
    plain = Path("/data")
    if cloud_machine(env) and (mount_below(plain, mounts) or ("",))[0] != str(plain):
        return workspace(env) / "data"
    return plain


def is_empty(folder: Path) -> bool:
    """Whether there is nothing in ``folder`` but hidden files. One that cannot be looked into is not empty."""
    try:
        return all(entry.name.startswith(".") for entry in folder.iterdir())
    except OSError:
        return False


def bring_clips(folder: Path, env: Mapping[str, str]) -> str:
    """How clips come to ``folder``."""
    if cloud_machine(env):
        return f"copy clips to {folder}, a .txt beside each"
    return f"mount the clips: -v {HOST_CLIPS}:{folder.absolute()}"


def no_clips(env: Mapping[str, str], place: Path | None = None) -> DataError | None:
    """The error that no clips are named, in our images alone; None elsewhere."""
    if not env.get("LTX_IMAGE"):
        return None
    folder = place or clips_place(env)
    how = bring_clips(folder, env)
    if not folder.is_dir():
        return DataError(f"no clips are named, and there is no folder {folder}", hint=how)
    if not is_empty(folder):
        return DataError(f"no clips are named, and {folder} holds something", hint=f"say --data {folder}")
    mounted = (mount_below(folder) or ("",))[0] == str(folder)
    if mounted:
        fix = how if cloud_machine(env) else f"{how} (Docker makes an empty folder where the one to mount is missing)"
        return DataError(f"no clips are named, and {folder} is mounted but holds nothing", hint=fix)
    return DataError(f"no clips are named, and {folder} is empty", hint=how)
