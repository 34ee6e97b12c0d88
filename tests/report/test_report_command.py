from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def run_report(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ltxtrain", "report", str(folder)], capture_output=True, text=True, check=False
    )


def test_page_and_card_are_written_and_the_page_is_named_on_stdout(make_run: Callable[..., Path]) -> None:
    run = make_run(steps=5, validated=(5,))
    done = run_report(run)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{run / 'report.html'}\n"
    assert (run / "report.html").is_file()
    assert str(run / "README.md") in done.stderr


def test_a_folder_that_is_no_run_ends_with_the_code_for_data(tmp_path: Path) -> None:
    done = run_report(tmp_path)
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ") and "is no run folder" in done.stderr
    assert "hint: " in done.stderr and "Traceback" not in done.stderr


def test_the_room_reaches_no_torch() -> None:
    code = (
        "import sys, ltxtrain.report.page, ltxtrain.report.card, ltxtrain.listeners.console as c;"
        "print([m for m in ('torch', 'diffusers', 'transformers', 'av', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
