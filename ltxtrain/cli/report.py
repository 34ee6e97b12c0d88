"""``ltxtrain report RUN_DIR``: the page and the model card of a run, made again from its folder."""

from __future__ import annotations

import sys
from pathlib import Path


def report(run_dir: Path) -> None:
    """Write report.html and README.md again, from the files in a run's folder: OUTPUT/RUN. Prints the page's path."""
    from ltxtrain.report.card import write_card
    from ltxtrain.report.page import write_report

    page = write_report(run_dir)
    card = write_card(run_dir)
    print(f"model card: {card}", file=sys.stderr)
    print(page)
