"""The command line. ``main`` is the program; nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys


def main() -> None:
    from ltxtrain.cli.app import run

    sys.exit(run(sys.argv[1:]))
