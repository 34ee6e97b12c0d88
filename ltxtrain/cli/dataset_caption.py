"""``ltxtrain dataset caption``: captions from a model that sees pictures."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ltxtrain.errors import DataError
from ltxtrain.prepare.captioner_ask import KEY_VARIABLE, PROMPT

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder with the clips.")]
Address = Annotated[str, typer.Option("--endpoint", metavar="URL", help="Such as http://localhost:8000/v1.")]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="A model of that server that sees pictures.")]
KeyVariable = Annotated[
    str | None,
    typer.Option("--key-variable", metavar="NAME", help=f"The variable with the key; {KEY_VARIABLE} if set."),
]
Prompt = Annotated[
    str, typer.Option("--prompt", metavar="TEXT", help="What is asked for each clip.", show_default=False)
]
Frames = Annotated[int, typer.Option("--frames", metavar="N", help="Frames of each clip that the model sees.")]
Parallel = Annotated[int, typer.Option("--parallel", metavar="N", help="Questions at a time.")]
Seconds = Annotated[float, typer.Option("--timeout", metavar="S", help="How long one answer may take.")]
Trigger = Annotated[str, typer.Option("--trigger", metavar="WORD", help="Put in front of each caption.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write anew the captions that are there.")]
Output = Annotated[
    Path | None, typer.Option("--output", metavar="FILE.jsonl", help="A table instead of a .txt beside each clip.")
]


def caption(
    folder: Folder,
    endpoint: Address,
    model: Model,
    key_variable: KeyVariable = None,
    prompt: Prompt = PROMPT,
    frames: Frames = 4,
    parallel: Parallel = 4,
    timeout: Seconds = 120.0,
    trigger: Trigger = "",
    overwrite: Overwrite = False,
    output: Output = None,
) -> None:
    """Ask a server with OpenAI's interface (vLLM, llama.cpp, Ollama, ...) for a caption of each clip without one.

    Frames of your clips are sent to that server. The key comes from the environment only. Run again, it goes on with
    the clips that failed.
    """
    from ltxtrain.cli.drive import drain
    from ltxtrain.listeners.console import console_listener
    from ltxtrain.prepare.captioner import Asked, iter_caption
    from ltxtrain.prepare.captioner_ask import read_endpoint
    from ltxtrain.units import counted

    place = read_endpoint(endpoint, model, key_variable, os.environ, timeout)
    asked = Asked(folder, place, prompt, frames, parallel, trigger.strip(), overwrite, output)
    with console_listener() as console:
        done = drain(iter_caption(asked), [console])
    print(f"{counted(done.written, 'caption')} written, {done.kept} kept, {len(done.failed)} failed", file=sys.stderr)
    print(output or folder)
    if output is not None:
        table = json.dumps({"caption_strategy": "jsonl", "jsonl": {"path": str(output)}}, ensure_ascii=False)
        print(f"a data list reads it with {table[1:-1]}", file=sys.stderr)
    print(f"next: ltxtrain dataset inspect {shlex.quote(str(folder))}", file=sys.stderr)
    if done.failed:
        raise DataError(f"{counted(len(done.failed), 'clip')} without a caption", hint="run again for these alone")
