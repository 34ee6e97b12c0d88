"""scripts/apple.sh on stand-ins for the tools of macOS: it goes on only where torch can be installed, or says why."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What the script takes from every system. Nothing else is on its PATH: no Python of this machine, no make.
SYSTEM_TOOLS = ("awk", "cat", "chmod", "df", "dirname", "mkdir", "sh")
MAC = {
    "uname": "case $1 in -s) echo Darwin ;; -m) echo arm64 ;; esac",
    "sw_vers": "echo 15.1",
    "sysctl": 'case $2 in hw.memsize) echo 38654705664 ;; machdep.*) echo "Apple M3 Max" ;; *) exit 1 ;; esac',
    "xcode-select": "echo /Library/Developer/CommandLineTools",
    "make": 'echo "make $*"; mkdir -p .venv',
    "python3.12": "exit 0",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "apple.sh", tmp_path / "scripts")
    (tmp_path / "bin").mkdir()
    for tool in SYSTEM_TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def apple(checkout: Path, **changes: str | None) -> subprocess.CompletedProcess[str]:
    """Run the script with the tools of a fitting Mac and ``changes`` to them; none takes a tool away."""
    for name, body in {**MAC, **{name.replace("_", "-"): body for name, body in changes.items()}}.items():
        tool = checkout / "bin" / name.replace("sw-vers", "sw_vers").replace("python312", "python3.12")
        tool.unlink(missing_ok=True)
        if body is not None:
            tool.write_text(f"#!/bin/sh\n{body}\n")
            tool.chmod(0o755)
    command = [checkout / "scripts" / "apple.sh"]
    environment = {"PATH": str(checkout / "bin")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 4, done.stdout + done.stderr
    assert "make setup" not in done.stdout
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    return done.stderr


def test_a_fitting_mac_is_set_up_and_told_what_to_type(checkout: Path) -> None:
    done = apple(checkout)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Apple M3 Max, 36 GB, macOS 15.1" in done.stdout
    assert f"make setup PYTHON={checkout}/bin/python3.12\n" in done.stdout
    for command in ("make demo", "doctor --preset apple-mps", "plan --preset apple-mps", "train --preset apple-mps"):
        assert command in done.stdout


def test_the_variables_are_written_and_give_way_to_those_that_are_set(checkout: Path) -> None:
    assert apple(checkout).returncode == 0
    read = f'. {checkout}/.venv/apple.env; echo "$PYTORCH_ENABLE_MPS_FALLBACK'
    read += ' $PYTORCH_MPS_HIGH_WATERMARK_RATIO $PYTORCH_MPS_LOW_WATERMARK_RATIO"'
    shown = subprocess.run(["sh", "-euc", read], env={}, capture_output=True, text=True, check=True).stdout
    assert shown == "1 0.9 0.7\n"
    own = {"PYTORCH_MPS_HIGH_WATERMARK_RATIO": "1.0"}
    assert (
        subprocess.run(["sh", "-euc", read], env=own, capture_output=True, text=True, check=True).stdout
        == "1 1.0 0.7\n"
    )


def test_an_environment_that_is_there_keeps_its_python(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    done = apple(checkout, python312=None)
    assert done.returncode == 0, done.stderr
    assert "make setup\n" in done.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"uname": "echo Linux"}, ["this is Linux", "TORCH=cu129"]),
        ({"uname": "case $1 in -s) echo Darwin ;; *) echo x86_64 ;; esac"}, ["Intel", "M-series"]),
        ({"sw_vers": "echo 13.6.9"}, ["macOS 13.6.9", "macOS 14", "Software Update"]),
        ({"xcode_select": "exit 2"}, ["command line tools", "xcode-select --install"]),
        ({"python312": None}, ["3.11, 3.12 or 3.13", "python@3.12"]),
        ({"python312": "exit 1"}, ["3.11, 3.12 or 3.13", "python@3.12"]),
        ({"df": "echo head; echo /dev/disk1 9 9 2000000 9% /"}, ["1 GB are free", "3 GB"]),
    ],
    ids=["Linux", "Intel", "old macOS", "no tools", "no Python", "another Python", "full disk"],
)
def test_what_cannot_work_is_refused_before_anything_is_installed(
    checkout: Path, changes: dict[str, str | None], words: list[str]
) -> None:
    said = refused(apple(checkout, **changes))
    for word in words:
        assert word in said


@pytest.mark.parametrize(("machine", "code"), [("arm64", 0), ("x86_64", 4)])
def test_a_python_for_intel_is_passed_over(checkout: Path, machine: str, code: int) -> None:
    """The question that is put to a Python, put to a real one."""
    pretend = f"import platform, sys; platform.machine = lambda: '{machine}'; exec(sys.argv[1])"
    done = apple(checkout, python312=f'exec {sys.executable} -c "{pretend}" "$2"')
    assert done.returncode == code, done.stderr


def test_a_shell_under_rosetta_is_told_apart_from_an_intel_mac(checkout: Path) -> None:
    said = refused(apple(checkout, uname="case $1 in -s) echo Darwin ;; *) echo x86_64 ;; esac", sysctl="echo 1"))
    assert "Rosetta" in said
    assert "arch -arm64" in said


def test_little_memory_is_a_warning(checkout: Path) -> None:
    sysctl = 'case $2 in hw.memsize) echo 17179869184 ;; *) echo "Apple M1" ;; esac'
    done = apple(checkout, sysctl=sysctl)
    assert done.returncode == 0
    assert "warning: 16 GB" in done.stderr


def test_a_setup_that_fails_is_not_followed_by_good_news(checkout: Path) -> None:
    done = apple(checkout, make="echo no network >&2; exit 2")
    assert done.returncode == 2
    assert "ready" not in done.stdout
    assert not (checkout / ".venv" / "apple.env").exists()


def test_the_notes_give_the_variables_that_the_script_writes() -> None:
    script = (ROOT / "scripts" / "apple.sh").read_text()
    written = dict(re.findall(r'^export (\w+)="\$\{\w+:-([\d.]+)\}"$', script, flags=re.MULTILINE))
    notes = dict(
        re.findall(r"^#   (PYTORCH_\w+)=([\d.]+) ", (ROOT / "Dockerfile.mps-notes").read_text(), flags=re.MULTILINE)
    )
    assert len(written) == 3
    assert notes == written
