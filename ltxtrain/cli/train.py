"""``ltxtrain train``: plan, cache, train, export and report; started again, it goes on where it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ltxtrain.cli.options import Configs, Context, Presets, SetAside, read_config

if TYPE_CHECKING:
    from ltxtrain.cli.cache import Planned
    from ltxtrain.learn.signals import StopFlag
    from ltxtrain.listeners.heartbeat import Heartbeat

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, even when the plan has warnings.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop: the same as ltxtrain plan.")]


def train(
    ctx: Context,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Train a LoRA: show the plan, fill the caches, train, export and write the report.

    Started again with the same settings, it goes on where it was.
    """
    from ltxtrain.cli.cache import Planned
    from ltxtrain.cli.surroundings import look_around
    from ltxtrain.learn.signals import StopFlag, watch_signals
    from ltxtrain.listeners.heartbeat import heartbeat_listener
    from ltxtrain.plan.device import refuse_without_gpu
    from ltxtrain.plan.places import check_offload, check_places
    from ltxtrain.plan.support import check_support
    from ltxtrain.plan.text import render_plan

    with watch_signals(stop := StopFlag()), heartbeat_listener() as heartbeat:
        with stop.at_once("nothing was begun"):
            planned = Planned(read_config(ctx, preset, config, set_aside_unbuilt))
            plan = planned.plan
            if not dry_run:  # what would stop the run is not to be looked for below a long plan
                look_around()
                refuse_without_gpu(plan)
                check_support(plan.config, plan.machine)
                check_places(plan.cache_dir, plan.run_dir, plan.sources)
                check_offload(plan.config.memory, plan.sources)
            print(render_plan(plan), file=sys.stdout if dry_run else sys.stderr)
            if dry_run:
                return
            if plan.warnings and not yes and sys.stdin.isatty() and sys.stderr.isatty():
                typer.confirm("The plan has warnings. Train even so?", abort=True, err=True)
        run_training(planned, stop, heartbeat)


def run_training(planned: Planned, stop: StopFlag, heartbeat: Heartbeat) -> None:
    """Cache, train, export and report, with progress on stderr and the resulting files on stdout."""
    print("loading torch and diffusers ...", file=sys.stderr)
    # Not inside at_once: diffusers turns whatever is raised while it is imported into an import error of its own.
    from ltxtrain.cli.drive import drain
    from ltxtrain.export import iter_export
    from ltxtrain.listeners.console import console_listener
    from ltxtrain.train import check_run_folder, iter_train

    with stop.at_once("nothing was begun"):
        check_run_folder(planned.plan)
    regularisation = {found.id: found.regularisation for found in planned.plan.datasets if found.role == "train"}
    with console_listener(datasets=regularisation) as console:
        listeners = [heartbeat, console]
        prepared = planned.fill_cache(stop, listeners)
        plan = planned.plan
        drain(iter_train(plan, prepared, stop), listeners)
        drain(iter_export(plan.run_dir, dtype=plan.config.checkpoint.export_dtype), listeners)
    write_pages(plan.run_dir)
    name_results(plan.run_dir)


def write_pages(run_dir: Path) -> None:
    from ltxtrain.report.card import write_card
    from ltxtrain.report.page import write_report

    write_report(run_dir)
    write_card(run_dir)


def name_results(run_dir: Path) -> None:
    """Say where the files are that somebody trains for."""
    from ltxtrain.plan.folder import RunFolder

    folder = RunFolder(run_dir)
    videos = sorted(folder.samples.glob("step-*/*.mp4"))
    rows = [
        ("LoRA (diffusers)", folder.export / "pytorch_lora_weights.safetensors"),
        ("LoRA (ComfyUI)", next(iter(sorted(folder.export.glob("*_comfyui.safetensors"))), None)),
        ("video", videos[-1] if videos else None),
        ("report", folder.report_html),
    ]
    for name, path in rows:
        if path is not None and path.exists():
            print(f"{name + ':':<18} {path}")
