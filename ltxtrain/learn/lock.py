"""One process for each run folder: a second one would interleave its steps and checkpoints with the first one's."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ltxtrain.errors import CheckpointError
from ltxtrain.files import make_folder

NAME = ".lock"
HELD_ELSEWHERE = (errno.EWOULDBLOCK, errno.EACCES)


@contextmanager
def only_process(folder: Path) -> Iterator[None]:
    """Hold ``folder`` inside. Raises ``CheckpointError`` when another process holds it; a dead process holds nothing.

    On file systems that know no locks (some network volumes) there is nothing to hold, and nothing is refused.
    """
    make_folder(folder)
    with (folder / NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in HELD_ELSEWHERE:
                yield
                return
            file.seek(0)
            raise CheckpointError(
                f"{folder} is in use by another process ({file.read().strip() or 'unknown'})",
                hint="wait for it, stop it, or name another run with --run-name",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
