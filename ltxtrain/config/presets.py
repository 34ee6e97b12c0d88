"""Presets: small TOML files that ship with the program. Each may extend others."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ltxtrain.config.secrets import shown
from ltxtrain.config.suggest import nearest
from ltxtrain.config.text import Document, read_document
from ltxtrain.errors import ConfigError, Fault

ABOUT_KEYS = ("title", "hardware", "memory", "memory_gb", "measured", "extends")


@dataclass(frozen=True)
class Preset:
    """``document`` holds the options alone; ``extends`` the names of the presets below it, weakest first.

    ``memory_gb`` is what each phase fits in by the plan's estimate: memory of the device, in the unit in which cards
    are sold, 1024^3 bytes.
    """

    name: str
    title: str
    hardware: str
    memory: str
    memory_gb: float
    measured: str
    extends: tuple[str, ...]
    document: Document
    path: Path


@cache
def presets_folder() -> Path:
    """``presets/`` inside the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "presets", package.parent / "presets"):
        if folder.is_dir():
            return folder
    raise ConfigError([Fault("", "the presets are missing from this installation", str(package / "presets"))])


def preset_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in presets_folder().glob("*.toml")))


def read_preset(name: str) -> Preset:
    """One preset, without those that it extends. Raises ConfigError for an unknown name."""
    if name not in preset_names():
        near = nearest(name, preset_names())
        known = f"did you mean {near}?" if near else "one of " + ", ".join(preset_names())
        raise ConfigError([Fault("--preset", f"there is no preset {shown('', name)}", "", known)])
    path = presets_folder() / f"{name}.toml"
    read = read_document(path)
    about = read.data.get("preset", {})
    unknown = sorted(set(about) - set(ABOUT_KEYS))
    if unknown or not set(ABOUT_KEYS) - {"extends"} <= set(about):
        problem = "holds " + ", ".join(unknown) if unknown else "needs title, hardware, memory, memory_gb and measured"
        raise ConfigError([Fault("[preset]", problem, read.source(("preset",)))])
    if not isinstance(about["memory_gb"], int | float) or not about["memory_gb"] > 0:
        raise ConfigError([Fault("[preset]", "memory_gb is a number above 0", read.source(("preset", "memory_gb")))])
    extends = about.get("extends", [])
    options = {key: value for key, value in read.data.items() if key != "preset"}
    return Preset(
        name=name,
        title=about["title"],
        hardware=about["hardware"],
        memory=about["memory"],
        memory_gb=float(about["memory_gb"]),
        measured=about["measured"],
        extends=(extends,) if isinstance(extends, str) else tuple(extends),
        document=Document(str(path), options, read.lines),
        path=path,
    )


def preset_chain(names: tuple[str, ...]) -> tuple[Preset, ...]:
    """The named presets and all that they extend, weakest first, each once. Raises ConfigError for a circle."""
    chain: dict[str, Preset] = {}

    def add(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            circle = " -> ".join((*above[above.index(name) :], name))
            raise ConfigError([Fault("extends", f"presets extend each other in a circle: {circle}", f"preset {name}")])
        if name in chain:
            return
        preset = read_preset(name)
        for base in preset.extends:
            add(base, (*above, name))
        chain[name] = preset

    for name in names:
        add(name, ())
    return tuple(chain.values())
