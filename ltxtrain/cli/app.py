"""The table of commands, and how one of them is run.

Each command is one function in one module, imported only when it is asked for; Typer reads its parameters. The list
that ``ltxtrain --help`` prints is this table, so it costs no import at all. A command may be a table of further ones,
in a module of its own: ``ltxtrain dataset inspect``.
"""

from __future__ import annotations

import errno
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ltxtrain.errors import ConfigError, Fault, Interrupted, LtxtrainError
from ltxtrain.units import plain


@dataclass(frozen=True)
class Command:
    """``target`` is ``module:function``, or ``module:TABLE`` with further commands; an empty one is not built yet."""

    target: str
    summary: str


COMMANDS: dict[str, Command] = {
    "train": Command("ltxtrain.cli.train:train", "plan, cache, train, export and report, or go on after a stop"),
    "plan": Command("ltxtrain.cli.plan:plan", "show what train would do, without a GPU"),
    "cache": Command("ltxtrain.cli.cache:cache", "compute latents and prompt embeddings, and stop there"),
    "dataset": Command("ltxtrain.cli.dataset:COMMANDS", "inspect, fetch, split and caption clips"),
    "sample": Command("ltxtrain.cli.sample:sample", "render a prompt with a trained adapter"),
    "export": Command("ltxtrain.cli.export:export", "write the adapter of a run for diffusers and ComfyUI"),
    "report": Command("ltxtrain.cli.report:report", "write the report page of a run"),
    "validate": Command("ltxtrain.cli.validate:validate", "check a configuration and tell where each value comes from"),
    "presets": Command("ltxtrain.cli.presets:presets", "list the presets, or show one"),
    "options": Command("ltxtrain.cli.options_list:options_list", "list all options, or search them"),
    "schema": Command("ltxtrain.cli.schema:schema", "print the JSON Schema of a configuration, for editors"),
    "configure": Command("", "write a configuration by questions and answers"),
    "doctor": Command("ltxtrain.cli.doctor:doctor", "check this machine, a line each with what to do"),
    "reproduce": Command("", "run a finished run again"),
    "launch": Command("", "train on several GPUs"),
}


HELP = ("--help", "-h", "help")
INTERRUPTED = 130
_LOOK_AT_DISK = "look at the disk, and at who may write there"


def run(argv: Sequence[str]) -> int:
    """Run the program and return its exit code. Every error becomes ``error:`` and ``hint:`` lines on stderr."""
    words = list(argv)
    debug = _take_debug(words)
    try:
        return _dispatch(words)
    except Interrupted as error:
        return _tell([error.message], error.hint, error.exit_code, word="stopped")
    except LtxtrainError as error:
        if debug:
            raise
        return _tell(error.message.splitlines(), error.hint, error.exit_code)
    except KeyboardInterrupt:
        return _tell(["interrupted"], None, INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if debug:
            raise
        place = f"{error.filename}: " if error.filename else ""
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = "make room there, or name a folder on another disk" if full else _LOOK_AT_DISK
        return _tell([f"{place}{error.strerror or error}"], hint, 4)
    except Exception as error:
        if debug:
            raise
        return _tell_unexpected(error, words)


def _take_debug(words: list[str]) -> bool:
    asked = "--debug" in words
    while "--debug" in words:
        words.remove("--debug")
    return asked


def _tell(lines: Sequence[str], hint: str | None, code: int, word: str = "error") -> int:
    """Names of files and words of servers stand in these lines, and must not steer the terminal."""
    for line in lines:
        print(f"{word}: {plain(line)}", file=sys.stderr)
    if hint:
        print(f"hint: {plain(hint)}", file=sys.stderr)
    return code


def _tell_unexpected(error: Exception, words: list[str]) -> int:
    """Typer's own complaints about a command line, which can tell themselves; anything else is a defect of ours."""
    own_words = getattr(error, "format_message", None)
    if callable(own_words):
        lines = _faulty_flags(words) or [str(own_words())]
        return _tell(lines, "--help shows how the command is written", 2)
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "ltxtrain":
        return _tell([f"the package {error.name} is missing"], "make setup, or install ltxtrain's packages again", 4)
    first = (str(error).splitlines() or [""])[0]
    problem = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return _tell([f"this is a defect of ltxtrain: {problem}"], "run it again with --debug and report what it prints", 1)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in HELP:
        print(_help_text())
        return 0 if words else 2
    if words[0] in ("--version", "-V"):
        from ltxtrain import __version__

        print(f"ltxtrain {__version__}")
        return 0
    asked = _asked(words)
    if isinstance(asked.target, Mapping):
        print(_table_text(asked.name, asked.target))
        return 0 if asked.arguments else 2
    return _run_typer(asked.name, asked.target, asked.arguments)


@dataclass(frozen=True)
class _Asked:
    """``name`` is the command as it is written, ``dataset inspect``. The target of an unfinished line is a table."""

    name: str
    target: Callable[..., Any] | Mapping[str, Command]
    arguments: list[str]


def _asked(words: Sequence[str]) -> _Asked:
    """The command that a line begins with. Raises ``ConfigError`` where there is none, or it is not built yet."""
    found: Any = COMMANDS
    name, rest = "", list(words)
    while isinstance(found, Mapping) and rest and not (name and rest[0] in HELP):
        command = found.get(rest[0])
        if command is None:
            raise _unknown_command(name, rest[0], found)
        name = f"{name} {rest.pop(0)}".lstrip()
        if not command.target:
            raise ConfigError(
                [Fault("", f"the command {name} is not built yet")], hint="`ltxtrain --help` lists those that are"
            )
        module, _, attribute = command.target.partition(":")
        found = getattr(importlib.import_module(module), attribute)
    return _Asked(name, found, rest)


def _help_text() -> str:
    rows = [(name, command.summary) for name, command in COMMANDS.items() if command.target]
    later = ", ".join(name for name, command in COMMANDS.items() if not command.target)
    listed = "\n".join(f"  {name:<10} {summary}" for name, summary in rows)
    return f"""usage: ltxtrain COMMAND [--preset NAME] [--config FILE] [--OPTION VALUE]...

Train a LoRA of LTX-Video from a folder of clips.

{listed}

Not built yet: {later}.

  --version  print the version
  --debug    show the traceback of an error
  --help     after a command: its own help

Begin with `ltxtrain train --preset smoke`, then `ltxtrain plan --preset bf16 --data CLIPS`."""


def _table_text(name: str, commands: Mapping[str, Command]) -> str:
    width = max(map(len, commands))
    listed = "\n".join(f"  {inner:<{width}}  {command.summary}" for inner, command in commands.items())
    return f"""usage: ltxtrain {name} COMMAND ...

{listed}

`ltxtrain {name} COMMAND --help` shows how one is written."""


def _unknown_command(parent: str, word: str, commands: Mapping[str, Command]) -> ConfigError:
    from ltxtrain.config.secrets import shown
    from ltxtrain.config.suggest import nearest

    program = f"ltxtrain {parent}".rstrip()
    if word.startswith("-"):
        example = f"{next(iter(commands))} ..." if parent else "train --preset smoke"
        return ConfigError([Fault("", "options come after the command")], hint=f"such as `{program} {example}`")
    near = nearest(word, commands)
    said = shown("", word)
    return ConfigError(
        [Fault("", f"there is no command {f'{parent} {said}'.lstrip()}")],
        hint=f"did you mean {f'{parent} {near}'.lstrip()}?" if near else f"`{program} --help` lists the commands",
    )


def _run_typer(name: str, function: Callable[..., Any], arguments: list[str]) -> int:
    import typer

    command, own_flags = _typer_command(name, function)
    arguments, flags = _parted(arguments, own_flags)
    try:
        code = command(args=arguments, prog_name=f"ltxtrain {name}", standalone_mode=False, obj=flags)
    except typer.Abort:
        raise LtxtrainError("stopped before anything was begun", hint="--yes goes on without asking") from None
    if code == INTERRUPTED:  # Typer's own answer to Ctrl+C, without a word
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _typer_command(name: str, function: Callable[..., Any]) -> tuple[Callable[..., Any], list[str] | None]:
    """A command as Typer reads it, and its own flags if every option of the schema is a flag of it too."""
    import typer
    import typer.main

    takes_options = "ctx" in inspect.signature(function).parameters
    epilog = "Every option that `ltxtrain options` lists is a flag as well: --lora-rank 4." if takes_options else None
    settings: dict[str, Any] = {"help_option_names": ["--help", "-h"]}
    if takes_options:
        settings |= {"ignore_unknown_options": True, "allow_extra_args": True}
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, context_settings=settings, epilog=epilog)(function)
    command = typer.main.get_command(app)
    own_flags = [flag for parameter in command.params for flag in parameter.opts]
    return command, own_flags if takes_options else None


def _parted(arguments: list[str], own_flags: list[str] | None) -> tuple[list[str], list[str]]:
    """A command's own words, and the flags of the schema."""
    if own_flags is None:
        return arguments, []
    from ltxtrain.cli.options import own_words_and_flags

    return own_words_and_flags(arguments, own_flags)


def _faulty_flags(words: list[str]) -> list[str]:
    """What is wrong with the flags of a command line that Typer could not read.

    A mistyped flag may have swallowed an argument, which Typer then misses: the flag is the thing to tell.
    """
    try:
        asked = _asked(words)
    except ConfigError:
        return []
    if isinstance(asked.target, Mapping):
        return []
    own_flags = _typer_command(asked.name, asked.target)[1]
    _, flags = _parted(asked.arguments, own_flags)
    if not flags or own_flags is None:
        return []
    from ltxtrain.cli.options import parse_flags

    return [str(fault) for fault in parse_flags(flags, own_flags)[1]]
