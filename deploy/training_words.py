"""The words behind ``train``, looked at before they reach a machine that costs: by ltxtrain, where it can be run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from refusal import Refused, warn

ROOT = Path(__file__).resolve().parents[1]
PRESETS = ROOT / "presets"
TOKEN = re.compile(r"\b(?:hf_|rpa_|sk-|ghp_)[A-Za-z0-9_-]{8,}")
# Words with which train would not train, and words of validate that train does not know.
NOT_HERE = {
    "--dry-run": "it trains nothing, and the machine costs: ltxtrain plan shows the plan on your own computer",
    "--help": "ltxtrain train --help tells it on your own computer",
    "-h": "ltxtrain train --help tells it on your own computer",
    "--explain": "it is no flag of train: ltxtrain validate --explain tells it on your own computer",
    "--json": "it is no flag of train",
}
FOLDERS = ("--data", "--instance-data-dir", "--output", "--output-dir", "--cache", "--cache-dir")
SECONDS = 60


def train_command(template: list[str], preset: str | None, flags: list[str]) -> list[str]:
    """The template's command, with the user's preset and further flags. What stands before ``train`` stays."""
    before = template[: template.index("train")]
    preset = preset or template[template.index("--preset") + 1]
    known = sorted(path.stem for path in PRESETS.glob("*.toml"))
    if preset not in known:
        raise Refused(f"--preset {preset} does not exist", f"one of {', '.join(known)}")
    if any(TOKEN.search(flag) for flag in flags):
        raise Refused("the flags hold a token", "tokens are kept as secrets of the cloud: see the README beside")
    for flag in flags:
        if flag in NOT_HERE:
            raise Refused(f"{flag} does not belong behind --", NOT_HERE[flag])
    warn_of_folders(flags)
    check_words(["--preset", preset, *(flag for flag in flags if flag not in ("--yes", "-y"))])
    return [*before, "train", "--preset", preset, *flags, "--yes"]


def values_of(names: tuple[str, ...], words: list[str]) -> list[str]:
    """What stands behind ``--name`` and in ``--name=``."""
    apart = [words[place + 1] for place, word in enumerate(words[:-1]) if word in names]
    return [*apart, *(word.partition("=")[2] for word in words if word.partition("=")[0] in names and "=" in word)]


def warn_of_folders(flags: list[str]) -> None:
    for folder in values_of(FOLDERS, flags):
        if not folder.startswith("/workspace"):
            warn(f"{folder} is a folder of the machine, not of your computer: only /workspace outlives a stop there")


def check_words(words: list[str]) -> None:
    """Refuse what ``ltxtrain validate`` refuses, in its own words. Warns where it cannot be asked."""
    for file in values_of(("--config",), words):
        if not file.startswith("/"):
            raise Refused(f"--config {file} would be looked for on the machine", "name it as /workspace/...")
        if not Path(file).is_file():
            warn(f"the words of train were not checked: --config {file} is not on this computer")
            return
    # The user's own variables are not those of the machine.
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LTX")}
    for program in programs():
        try:
            done = subprocess.run(
                [*program, "validate", *words], capture_output=True, env=clean, cwd=ROOT, timeout=SECONDS,
                check=False, stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except (OSError, subprocess.SubprocessError):
            continue
        if done.returncode == 0:
            return
        told = [line for line in done.stderr.splitlines() if line.startswith(("error: ", "hint: "))]
        if done.returncode == 2 and told and told[0].startswith("error: "):
            hint = (
                "" if told[-1].startswith("hint: ") else "\nhint: ltxtrain options lists every flag with what it takes"
            )
            raise Refused("\n".join(told).removeprefix("error: ") + hint, "")
    warn("the words of train were not checked: ltxtrain cannot be run here (make setup in this repository)")


def programs() -> list[list[str]]:
    """The ways to start ltxtrain: this checkout's own, then the one of the Python that runs this."""
    own = ROOT / ".venv" / ("Scripts/ltxtrain.exe" if os.name == "nt" else "bin/ltxtrain")
    return [*([[str(own)]] if own.is_file() else []), [sys.executable, "-m", "ltxtrain"]]
