"""What a run would write into the container itself, where it vanishes: told before hours of work, not after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.facts.container import cloud_machine, workspace
from ltxtrain.facts.mounts import MOUNTS, mount_below


@dataclass(frozen=True)
class Place:
    """``what`` is written into ``folder``; ``outside`` is a folder that could be mounted at ``point``."""

    what: str
    folder: Path
    point: Path
    outside: str


def loss_warnings(places: Sequence[Place], env: Mapping[str, str], mounts: Path = MOUNTS) -> list[str]:
    """One warning about all of ``places`` that lie on no mount, in our own image alone (it sets LTX_IMAGE)."""
    lost = [place for place in places if env.get("LTX_IMAGE") and _on_root(place.folder, mounts)]
    if not lost:
        return []
    named = " and ".join(f"{place.what} in {place.point.absolute()}" for place in lost)
    volume = workspace(env)
    cloud = cloud_machine(env)
    if cloud and not _on_root(volume, mounts):
        ends = "is stopped" if cloud == "pod" else "is deleted"
        return [f"{named} will be lost when this {cloud} {ends}: name a folder in {volume}, where its volume is"]
    if cloud == "pod":
        return [f"{named} will be lost when this pod is stopped: make it with a volume at {volume}"]
    if cloud == "instance":
        fetch = "copy the results first, or make it with a volume"
        return [f"{named} will be lost when this instance is deleted: {fetch} (--mount-path {volume})"]
    say = " ".join(f"-v {place.outside}:{place.point.absolute()}" for place in lost)
    return [f"{named} will be lost with this container: nothing is mounted there; say {say}"]


def _on_root(folder: Path, mounts: Path) -> bool:
    found = mount_below(folder, mounts)
    return found is not None and found[0] == "/"
