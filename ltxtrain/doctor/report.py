"""A text to paste into a report of a bug: versions, machine and findings, and nothing that is private.

Taken out: the folders of clips, cache, output, downloads and model; the names of clips, and of models that are not in
our own list; whatever lies in the home folder or elsewhere on the disk; user, host and account names; tokens, and the
value of every variable whose name says that it is secret; addresses of the network, of mirrors and of mail; serial
numbers of cards.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ltxtrain import __version__
from ltxtrain.config import Dataset, TrainConfig
from ltxtrain.config.secrets import holds_token, is_secret_key
from ltxtrain.doctor import needs
from ltxtrain.doctor.findings import Finding
from ltxtrain.doctor.run import Examination
from ltxtrain.doctor.text import render
from ltxtrain.facts.machine import Machine
from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.units import format_bytes, plain

# The first folder of a path that is the same on every machine, so that the path may be told whole.
SYSTEM_FOLDERS = ("usr", "opt", "dev", "proc", "sys", "etc", "lib", "lib64", "bin", "sbin", "boot")
SYSTEM_PATHS = ("/", "/tmp", "/var/tmp", "/run", "/data", "/cache", "/output", "/workspace")
PUBLIC_HOSTS = ("huggingface.co", "pytorch.org", "github.com", "nvidia.com", "rocm.docs.amd.com")
# Names that tell nobody anything.
PLAIN_NAMES = ("root", "ltx", "ubuntu", "debian", "nobody", "user", "localhost", "none")
SHORTEST_SECRET = 6

_URL_OR_PATH = re.compile(r"(?P<url>\b[a-z][a-z0-9+.-]*://[^\s,;\"'<>()]+)|(?P<path>(?<![\w<>~.])/[^\s,;:\"'<>()]*)")
_ADDRESSES = (
    re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]*\w)"),
    re.compile(r"(?<![\w.])[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*[0-9A-Fa-f:](?!\w)"),
)
_PATTERNS = (
    (re.compile(r"\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b", re.IGNORECASE), "<mac>"),
    (re.compile(r"\b(?:(?:GPU|MIG)-)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.I), "<uuid>"),
    (re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b"), "<mail>"),
)


@dataclass(frozen=True)
class Private:
    """What must not be told. ``folders`` are paths and what stands for them; ``names`` words and what stands for them.

    ``secrets`` are texts. ``home`` is None where there is none worth hiding.
    """

    folders: tuple[tuple[str, str], ...] = ()
    names: tuple[tuple[str, str], ...] = ()
    secrets: tuple[str, ...] = ()
    home: str | None = None


def bug_report(examination: Examination, config: TrainConfig) -> str:
    """The whole text, ending with a newline."""
    machine, torch = examination.machine, examination.torch
    python = ".".join(map(str, sys.version_info[:3]))
    packages = [f"{entry.package.name} {entry.version}" for entry in examination.packages if entry.found]
    lines = [
        f"ltxtrain {__version__}, Python {python}, torch {torch.version or torch.state}",
        f"presets: {', '.join(examination.presets) or 'none'}",
        f"machine: {_machine(machine)}",
        f"driver: {machine.driver or examination.around.kernel_driver or 'none'}",
        f"torch: CUDA {torch.cuda}, ROCm {torch.hip}, built for {', '.join(torch.archs) or 'no GPU'}",
        f"packages: {', '.join(packages)}",
        f"container: {'yes' if examination.around.container else 'no'}",
    ]
    lines += [f"image: {_image(examination.image)}"] if examination.image else []
    lines += [f"{name}={value}" for name, value in sorted(examination.around.variables.items())]
    private = private_things(config, os.environ, examination.findings)
    groups = [
        replace(group, findings=tuple(_told(finding, group.title == "Data", private) for finding in group.findings))
        for group in examination.groups
    ]
    text = render(replace(examination, groups=tuple(groups)))  # broken into lines only after that
    return scrub("\n".join(lines), private) + "\n\n" + text


def _told(finding: Finding, names_clips: bool, private: Private) -> Finding:
    """What is said of the data ends before a clip's name, which may stand without its folder."""
    says, fix = finding.says, finding.fix
    if names_clips:
        says = scrub(says, private).partition(": ")[0].partition("<data>/...")[0].rstrip()
        fix = fix and "as docs/doctor.md says"
    return replace(finding, says=scrub(says, private), fix=scrub(fix, private))


def _machine(machine: Machine) -> str:
    gpus = ", ".join(f"{gpu.name} ({format_bytes(gpu.memory_bytes)}, {gpu.capability})" for gpu in machine.gpus)
    return (
        f"{machine.os}, {machine.cpu}, {machine.cores} cores, {format_bytes(machine.memory_bytes)}, {gpus or 'no GPU'}"
    )


def _image(facts: Mapping[str, str]) -> str:
    """Of the base image, only its name: where it was taken from may be a company's own registry."""
    told = {key: facts[key] for key in ("kind", "version", "torch", "created", "base") if key in facts}
    told |= {key: facts[key][:12] for key in ("revision", "lock_sha256") if key in facts}
    if "base" in told:
        told["base"] = told["base"].rpartition("/")[2]
    return ", ".join(f"{key} {value}" for key, value in told.items())


def private_things(config: TrainConfig, env: Mapping[str, str], findings: Iterable[Finding] = ()) -> Private:
    """What this user, machine and configuration must keep to themselves."""
    data = needs.data_sets(config)
    folders = [(volume.folder, f"<{volume.name}>") for volume in needs.volumes_of(config, env)]
    local = [name for name in _models(config) if name.startswith(("/", "~")) or os.path.lexists(name)]
    folders += [(Path(os.path.expanduser(path)), "<model>") for path in local]  # noqa: PTH111 - Path's own raises
    folders += [(place, "<data>") for dataset in (data if isinstance(data, list) else []) for place in _places(dataset)]
    folders += [(folder, "<data>") for folder in (config.data.instance_data_dir,) if folder]
    spelled = {(text, mark) for folder, mark in folders for text in _spellings(folder)}
    # What lies above is told too, as the place where a folder would be made; a blank in it would end the path early.
    spelled |= {(above, "<path>") for text, _ in spelled for above in map(str, Path(text).parents) if " " in above}
    defaults = {str(TrainConfig().cache.cache_dir), str(TrainConfig().checkpoint.output_dir), "."}
    secrets = [value for name, value in env.items() if is_secret_key(name) and not name.endswith(("_FILE", "_PATH"))]
    home = os.path.expanduser("~")  # noqa: PTH111 - Path's own raises where nobody has a home
    told = (re.search(r"of the account (\S+)", finding.says) for finding in findings if finding.check == "token")
    names = _names(env) | {(account.group(1), "<account>") for account in told if account}
    names |= {(name, "<model>") for name in _models(config) if name not in KNOWN_MODELS}
    return Private(
        folders=tuple(sorted((pair for pair in spelled if pair[0] not in defaults | {"/"}), key=_longest_first)),
        names=tuple(sorted(names, key=_longest_first)),
        secrets=tuple(sorted({text for text in secrets if len(text) >= SHORTEST_SECRET}, key=len, reverse=True)),
        home=home if home not in ("/", "/tmp", "~") else None,
    )


def _places(dataset: Dataset) -> Iterator[Path]:
    """Where a data set lies, with its table, and the name by which the ``datasets`` library finds it."""
    yield dataset.root
    if dataset.captions.table is not None:
        yield dataset.captions.table.path
    if dataset.hub is not None:
        yield Path(dataset.hub.name)


def _spellings(folder: Path) -> tuple[str, ...]:
    return plain(str(folder)), plain(str(folder.absolute())), plain(os.path.realpath(folder))


def _longest_first(pair: tuple[str, str]) -> tuple[int, str]:
    return -len(pair[0]), pair[0]


def _models(config: TrainConfig) -> list[str]:
    model = config.model
    named = (
        model.pretrained_model_name_or_path,
        model.pretrained_vae_model_name_or_path,
        model.pretrained_transformer_model_name_or_path,
    )
    return [name for name in named if name]


def _names(env: Mapping[str, str]) -> set[tuple[str, str]]:
    users = {env.get(name, "") for name in ("USER", "LOGNAME", "USERNAME", "SUDO_USER")}
    with contextlib.suppress(OSError, KeyError, ImportError):  # a user id without a name
        users.add(getpass.getuser())
    hosts = {
        socket.gethostname(),
        env.get("HOSTNAME", ""),
        env.get("RUNPOD_POD_ID", ""),
        env.get("RUNPOD_POD_HOSTNAME", ""),
    }
    hosts |= {host.partition(".")[0] for host in hosts}
    named = {(user, "<user>") for user in users} | {(host, "<host>") for host in hosts}
    return {(word, mark) for word, mark in named if len(word) > 2 and word.lower() not in PLAIN_NAMES}


def scrub(text: str, private: Private) -> str:
    """``text`` without anything of ``private``, and without whatever looks like something private."""
    for secret in private.secrets:
        text = text.replace(secret, "<secret>")
    text = re.sub(r"\S+", lambda word: "<secret>" if holds_token(word[0]) else word[0], text)
    for folder, mark in private.folders:
        text = _without_folder(text, folder, mark)
    if private.home:
        text = _without_folder(text, private.home, "~")
    for pattern, mark in _PATTERNS:
        text = pattern.sub(mark, text)
    text = _URL_OR_PATH.sub(_public_place, text)
    for address in _ADDRESSES:
        text = address.sub(_address, text)
    for word, mark in private.names:
        text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", mark, text, flags=re.IGNORECASE)
    return text


def _without_folder(text: str, folder: str, mark: str) -> str:
    """The folder, and whatever is named below it."""
    pattern = rf"(?<![\w/.-]){re.escape(folder.rstrip('/'))}(?P<below>/[^\s,;:\"'<>()]*)?(?![\w-])"
    return re.sub(pattern, lambda found: f"{mark}/..." if len(found["below"] or "") > 1 else mark, text)


def _public_place(found: re.Match[str]) -> str:
    if found["url"]:
        host = found["url"].partition("://")[2].partition("/")[0].rpartition("@")[2].partition(":")[0].lower()
        known = any(host == public or host.endswith(f".{public}") for public in PUBLIC_HOSTS)
        return found["url"] if known and "@" not in found["url"] else "<url>"
    path = found["path"]
    known = path.rstrip("/.") in SYSTEM_PATHS or path.split("/")[1] in SYSTEM_FOLDERS or path == "/"
    return path if known else "<path>"


def _address(found: re.Match[str]) -> str:
    """Only what is an address: versions and times of the day look alike."""
    text = found[0].rstrip(".:") if not found[0].endswith("::") else found[0]
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return found[0]
    return "<address>" + found[0][len(text) :]
