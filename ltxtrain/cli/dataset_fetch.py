"""``ltxtrain dataset fetch``: a data set of the Hub, into a folder."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

Name = Annotated[str, typer.Argument(metavar="NAME", help="OWNER/NAME on the Hub, or a short name: disney.")]
To = Annotated[
    Path | None, typer.Option("--to", metavar="DIR", help="The folder; by default datasets/ and the set's name.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", metavar="R", help="A branch, tag or commit; the newest by default.")
]


def fetch(name: Name, to: To = None, revision: Revision = None) -> None:
    """Fetch videos, pictures, captions and tables of a data set; scripts and archives are left out.

    Run again, it fetches what is missing and what the Hub has changed. A file that you changed is kept. HF_ENDPOINT
    names a mirror, HF_TOKEN is for private sets. The commit is recorded in the folder.
    """
    from ltxtrain.cli.drive import drain
    from ltxtrain.cli.surroundings import look_around
    from ltxtrain.listeners.console import console_listener
    from ltxtrain.prepare.fetch import iter_fetch
    from ltxtrain.prepare.fetch_list import usual_folder

    look_around()
    with console_listener() as console:
        done = drain(iter_fetch(name, to or Path("datasets", usual_folder(name)), revision), [console])
    print(done.root)
    print(f"next: ltxtrain dataset inspect {shlex.quote(str(to or done.root))}", file=sys.stderr)
