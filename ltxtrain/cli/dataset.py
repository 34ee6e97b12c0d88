"""``ltxtrain dataset``: what is done to clips before a training. A table; each command has its own module."""

from __future__ import annotations

from ltxtrain.cli.app import Command

COMMANDS: dict[str, Command] = {
    "inspect": Command(
        "ltxtrain.cli.dataset_inspect:inspect", "a page that shows each clip and what a run does with it"
    ),
    "fetch": Command("ltxtrain.cli.dataset_fetch:fetch", "a data set of the Hub into a folder"),
    "split": Command("ltxtrain.cli.dataset_split:split", "cut long videos into their scenes"),
    "caption": Command("ltxtrain.cli.dataset_caption:caption", "write captions with a model that sees pictures"),
}
