"""What is forked of a warm process is a process of its own: its output, its environment, its end."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests import warm

NOTHING = ("json",)


def test_output_environment_and_exit_code_are_its_own(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['A'], oct(os.umask(0))); sys.exit('told')"
    done = warm.run(code, "word", modules=NOTHING, env={"A": "b"}, umask=0o027)
    assert (done.stdout, done.stderr, done.returncode) == ("word b 0o27\n", "told\n", 1)
    assert warm.run("import os; print(os.environ.get('A'))", modules=NOTHING).stdout == f"{os.environ.get('A')}\n"
    assert "ZeroDivisionError" in warm.run("1 / 0", modules=NOTHING).stderr


def test_signals_reach_it_and_what_was_left_running_does_not_disturb_the_next(tmp_path: Path) -> None:
    asleep = warm.start("import time; time.sleep(100)", modules=NOTHING)
    assert asleep.poll() is None and asleep.pid != os.getpid()
    asleep.send_signal(signal.SIGTERM)
    assert asleep.communicate() == ("", "") and asleep.returncode == -signal.SIGTERM
    code = "import sys, time\ntry: open(sys.argv[1], 'w'); time.sleep(100)\nexcept KeyboardInterrupt: sys.exit(7)"
    interrupted = warm.start(code, tmp_path / "up", modules=NOTHING)
    while not (tmp_path / "up").exists():
        time.sleep(0.01)
    interrupted.send_signal(signal.SIGINT)
    assert interrupted.communicate() == ("", "") and interrupted.poll() == 7
    left = warm.start("import time; time.sleep(100)", modules=NOTHING)
    assert warm.run("pass", modules=NOTHING).returncode == 0
    assert left.poll() == -signal.SIGKILL
