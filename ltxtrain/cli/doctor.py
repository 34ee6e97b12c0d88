"""``ltxtrain doctor``: would a run work on this machine, and if not, what is to be done?"""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ltxtrain.cli.options import AsJson, Configs, Context, Presets, SetAside, read_config
from ltxtrain.errors import ConfigError, Fault

Report = Annotated[bool, typer.Option("--report", help="Print a text for a bug report, without anything private.")]
Offline = Annotated[bool, typer.Option("--offline", help="Ask nothing of the network.")]
Seconds = Annotated[
    float, typer.Option("--probe-seconds", metavar="S", min=1, help="How long importing torch may take.")
]


def doctor(
    ctx: Context,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    as_json: AsJson = False,
    report: Report = False,
    offline: Offline = False,
    probe_seconds: Seconds = 60,
) -> int:
    """Check this machine for a run with the same options: packages, driver, GPU, memory, folders, model.

    Each fault and warning is told with what to do. The exit code is 0 without a fault, else 4 for the machine, 5 for
    the model, 3 for the data. Nothing large is downloaded.
    """
    if as_json and report:
        raise ConfigError([Fault("", "--json and --report are two forms of one answer")], hint="leave one out")
    loaded = read_config(ctx, preset, config, set_aside_unbuilt)
    from ltxtrain.doctor.run import examine

    found = examine(loaded, offline, probe_seconds)
    if as_json:
        json.dump(found.to_json(), sys.stdout, indent=1, ensure_ascii=False)
        print()
    elif report:
        from ltxtrain.doctor.report import bug_report

        print(bug_report(found, loaded.config), end="")
    else:
        from ltxtrain.doctor.text import render

        print(render(found), end="")
    return found.exit_code
