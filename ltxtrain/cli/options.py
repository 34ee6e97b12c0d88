"""What commands that read a configuration share: their parameters, and every option of the schema as a flag.

A command is written as::

    from ltxtrain.cli.options import Configs, Context, Presets, SetAside, read_config

    def plan(ctx: Context, preset: Presets = None, config: Configs = None, set_aside_unbuilt: SetAside = False) -> None:
        loaded = read_config(ctx, preset, config, set_aside_unbuilt)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltxtrain.errors import ConfigError, Fault

if TYPE_CHECKING:
    from ltxtrain.config import LoadedConfig
    from ltxtrain.config.catalogue import Option

Context = typer.Context
Presets = Annotated[
    list[str] | None, typer.Option("--preset", metavar="NAME", help="A preset; several are stacked, the last wins.")
]
Configs = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="A TOML or JSON file; several are stacked.")
]
SetAside = Annotated[
    bool, typer.Option("--set-aside-unbuilt", help="Go on without options that are not built yet, and say which.")
]
Action = Annotated[str, typer.Argument(metavar="list|show", help="What to do.")]
PresetName = Annotated[str | None, typer.Argument(metavar="NAME", help="The preset to show.", show_default=False)]
SearchWords = Annotated[
    list[str] | None, typer.Argument(metavar="WORD...", help="Words to search for.", show_default=False)
]
Explain = Annotated[bool, typer.Option("--explain", help="Print each value and where it comes from.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]


def read_config(
    ctx: typer.Context, preset: Sequence[str] | None, config: Sequence[Path] | None, set_aside_unbuilt: bool = False
) -> LoadedConfig:
    """The configuration of a command from its presets, files, the environment and its flags (``ctx.obj``).

    Raises ConfigError with the faults of all of them.
    """
    from ltxtrain.config import load_config

    own = [name for parameter in ctx.command.params for name in parameter.opts if name.startswith("--")]
    flags, faults = parse_flags([*ctx.args, *(ctx.obj or ())], own)
    try:
        loaded = load_config(preset or (), config or (), flags=flags, set_aside_unbuilt=set_aside_unbuilt)
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults], hint=None if faults else error.hint) from None
    if faults:
        raise ConfigError(faults)
    return loaded


def parse_flags(words: Sequence[str], own: Iterable[str] = ()) -> tuple[dict[str, object], list[Fault]]:
    """``["--lora-rank", "4", "--no-use-ema"]`` -> ``{"lora_rank": "4", "use_ema": False}`` and what was wrong.

    ``own`` are the command's own flags, for suggestions only.
    """
    from ltxtrain.config.catalogue import options
    from ltxtrain.config.renames import RENAMED

    flags: dict[str, object] = {}
    faults: list[Fault] = []
    rest, switch = list(words), ""
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            faults.append(_stray(word, switch))
            continue
        switch = ""
        written, equals, inline = word[2:].partition("=")
        name = written.replace("-", "_")
        renamed = RENAMED[name].new if name in RENAMED else name
        option, value = options().get(renamed), None
        if option is None and name.startswith("no_") and (positive := options().get(name[3:])) and not equals:
            option, name, value = positive, name[3:], False
            if "bool" not in option.kinds:
                faults.append(
                    Fault(f"--{written}", f"{option.flag} takes {option.type_words}, so there is no --no form")
                )
                continue
        if option is None:
            faults.append(_unknown(written, own))
            _skip_value(rest, equals)
            continue
        raw: object = inline if equals else value
        if raw is None:
            raw = _next_value(option, rest)
            switch = option.flag if raw is True else ""
        if raw is None:
            faults.append(Fault(f"--{written}", "needs a value", "", f"--{written}={_example(option)}"))
        elif name in flags:
            _again(flags, name, raw, option, faults)
        else:
            flags[name] = raw
    return flags, faults


def own_words_and_flags(words: Sequence[str], own: Iterable[str]) -> tuple[list[str], list[str]]:
    """Part a command's own words from the flags of the schema, which keep their values.

    So a value is never taken for a command's argument: in ``sample --lora-rank 4 "a cat"`` the prompt is ``a cat``.
    """
    kept: list[str] = []
    moved: list[str] = []
    known = {*own, "--help", "-h"}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, _ = word.partition("=")
        if not flag.startswith("--") or flag in known:
            kept.append(word)
            continue
        moved.append(word)
        before = len(rest)
        following = list(rest)
        _pass_over_value(flag, equals, following)
        taken = before - len(following)
        moved += rest[:taken]
        del rest[:taken]
    return kept, moved


def _pass_over_value(flag: str, equals: str, rest: list[str]) -> None:
    """Drop the words of ``rest`` that belong to a flag of the schema, or to a mistyped one."""
    from ltxtrain.config.catalogue import options
    from ltxtrain.config.renames import RENAMED

    name = flag.removeprefix("--").replace("-", "_")
    option = options().get(RENAMED[name].new if name in RENAMED else name)
    if equals or (option is None and options().get(name.removeprefix("no_"))):
        return
    if option is None:
        _skip_value(rest, equals)
    else:
        _next_value(option, rest)


def _next_value(option: Option, rest: list[str]) -> object:
    """The word after a flag. A boolean needs none; ``--x false`` is read as well."""
    from ltxtrain.config.coerce import FALSE_WORDS, TRUE_WORDS

    if option.kinds == {"bool"}:
        follows = bool(rest) and rest[0].lower() in (*TRUE_WORDS, *FALSE_WORDS)
        return rest.pop(0) if follows else True
    if not rest or rest[0].startswith("--"):
        return None
    return rest.pop(0)


def _again(flags: dict[str, object], name: str, raw: object, option: Option, faults: list[Fault]) -> None:
    """A flag given twice: a list grows, anything else must be the same."""
    if "list" in option.kinds and "," not in f"{flags[name]}{raw}":
        before = flags[name]
        flags[name] = [*(before if isinstance(before, list) else [before]), raw]
    elif flags[name] != raw:
        faults.append(Fault(option.flag, "is given twice with different values", "", "keep one"))


def _stray(word: str, switch: str) -> Fault:
    """``switch`` is the flag before it, where that is a boolean which was given no value."""
    from ltxtrain.config.secrets import shown

    hint = f"{switch} takes true or false" if switch else "options are written --name value"
    return Fault("", f"{shown('', word)} belongs to no option", "", hint)


def _unknown(written: str, own: Iterable[str]) -> Fault:
    from ltxtrain.config.catalogue import options
    from ltxtrain.config.renames import IGNORED, NOT_THE_NAME, RENAMED
    from ltxtrain.config.secrets import is_secret_key, shown_key
    from ltxtrain.config.suggest import nearest

    name = written.replace("-", "_")
    label = f"--{shown_key(written)}"
    if is_secret_key(name):
        return Fault(label, "a secret does not belong on a command line", "", "set HF_TOKEN or HF_TOKEN_FILE instead")
    if name in IGNORED:
        return Fault(label, "has no effect: it is set for each data set", "", "leave it out")
    known = {flag.removeprefix("--").replace("-", "_") for flag in own}
    near = NOT_THE_NAME.get(name) or nearest(name, [*options(), *RENAMED, *known])
    meant = f"did you mean --{near.replace('_', '-')}?" if near else "`ltxtrain options` lists them all"
    return Fault(label, "is not an option", "", meant)


def _skip_value(rest: list[str], equals: str) -> None:
    """Pass over the value of an unknown option, so that it is not told as a second fault."""
    if not equals and rest and not rest[0].startswith("-"):
        rest.pop(0)


def _example(option: Option) -> str:
    if option.choices:
        return str(option.choices[0])
    return "..." if option.default in (None, ()) else str(option.default)
