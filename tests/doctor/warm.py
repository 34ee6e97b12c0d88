"""The command in processes that need not import it first: each is a fork of one that has, and that does nothing else.

    python -m tests.doctor.warm

reads a line of JSON for each call (``root``, ``words``, ``env``, ``cwd``, ``out``, ``err``) and answers its exit code.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

from ltxtrain.cli import main
from ltxtrain.doctor import surroundings

# What the command imports as it goes, but for what a test may replace.
MODULES = "ltxtrain.cli.doctor ltxtrain.config ltxtrain.doctor.run ltxtrain.doctor.places pydantic_settings"


def serve() -> None:
    for module in MODULES.split():
        importlib.import_module(module)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            become(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def become(call: dict[str, Any]) -> None:
    """Be the process that ``python -c ...`` would be with this environment, in this folder."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(call[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.clear()
    os.environ.update(call["env"])
    os.chdir(call["cwd"])
    for place in reversed(call["env"]["PYTHONPATH"].split(os.pathsep)):
        sys.path.insert(0, place)
        if (Path(place) / "sitecustomize.py").exists():
            runpy.run_path(str(Path(place) / "sitecustomize.py"))
    surroundings.ROOT = Path(call["root"])
    sys.argv = ["ltxtrain", *call["words"]]
    code = 1
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
