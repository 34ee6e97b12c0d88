"""``ltxtrain cache``: the first half of training, for a machine or an hour of its own; and looking after the cache."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ltxtrain.cli.options import AsJson, Configs, Context, Presets, SetAside, read_config
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.units import plain

if TYPE_CHECKING:
    from ltxtrain.config import LoadedConfig
    from ltxtrain.data.prepared import Prepared
    from ltxtrain.events import Event
    from ltxtrain.learn.signals import StopFlag
    from ltxtrain.plan.records import Plan

Verify = Annotated[
    bool, typer.Option("--verify", help="Read every entry of the cache, and name those that are damaged.")
]
Prune = Annotated[bool, typer.Option("--prune", help="Remove entries that these options do not use, and damaged ones.")]
Stats = Annotated[bool, typer.Option("--stats", help="Tell how many entries there are, and how large.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --prune: do not ask.")]


def cache(
    ctx: Context,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    verify: Verify = False,
    prune: Prune = False,
    stats: Stats = False,
    as_json: AsJson = False,
    yes: Yes = False,
) -> None:
    """Compute latents and prompt embeddings for a run, and stop there. What exists already is not computed again."""
    asked = _one_of({"--verify": verify, "--prune": prune, "--stats": stats}, {"--json": as_json, "--yes": yes})
    loaded = read_config(ctx, preset, config, set_aside_unbuilt)
    if asked is None:
        fill(loaded)
        return
    from ltxtrain.cli import cache_upkeep

    if asked == "--prune":
        cache_upkeep.prune(loaded, as_json=as_json, yes=yes)
    elif asked == "--verify":
        cache_upkeep.verify(loaded.config.cache.cache_dir, as_json=as_json)
    else:
        cache_upkeep.stats(loaded.config.cache.cache_dir, as_json=as_json)


def _one_of(deeds: dict[str, bool], manners: dict[str, bool]) -> str | None:
    """The one deed that is asked for. Raises ConfigError for two, and for manners that go with none."""
    asked = [flag for flag, given in deeds.items() if given]
    if len(asked) > 1:
        raise ConfigError([Fault("", f"{' and '.join(asked)} exclude each other")], hint="give one of them")
    alone = [flag for flag, given in manners.items() if given and not asked]
    if alone:
        raise ConfigError(
            [Fault("", f"{alone[0]} says how --verify, --prune or --stats is done")], hint="give one of them with it"
        )
    return asked[0] if asked else None


def fill(loaded: LoadedConfig) -> None:
    from ltxtrain.cli.surroundings import look_around, tell_offload
    from ltxtrain.learn.signals import StopFlag, watch_signals
    from ltxtrain.listeners.heartbeat import heartbeat_listener
    from ltxtrain.plan.device import refuse_without_gpu
    from ltxtrain.plan.places import check_offload, check_places
    from ltxtrain.plan.support import check_support

    with watch_signals(stop := StopFlag()), heartbeat_listener() as heartbeat:
        with stop.at_once("nothing was begun"):
            planned = Planned(loaded)
            look_around()
            refuse_without_gpu(planned.plan)
            check_support(planned.plan.config, planned.plan.machine)
            check_places(planned.plan.cache_dir, None, planned.plan.sources)
            check_offload(planned.plan.config.memory, planned.plan.sources)
            tell_offload(planned.plan.config.memory, planned.plan.machine.device)
        from ltxtrain.listeners.console import console_listener

        with console_listener() as console:
            planned.fill_cache(stop, [heartbeat, console])


class Planned:
    """A plan, made again when clips that nobody could know to be faulty are found while the cache is filled."""

    def __init__(self, loaded: LoadedConfig) -> None:
        self._loaded = loaded
        self.plan = self._make()

    def _make(self) -> Plan:
        from ltxtrain.cli.plan import plan_of

        return plan_of(self._loaded)

    def fill_cache(self, stop: StopFlag, listeners: Sequence[Callable[[Event], None]]) -> Prepared:
        """Each round takes at least one clip off the plan, so there are no more rounds than clips."""
        from ltxtrain.cli.drive import drain
        from ltxtrain.precompute import FaultyClips, iter_precompute

        for _ in range(len(self.plan.samples) + len(self.plan.eval_samples)):
            try:
                return drain(iter_precompute(self.plan, stop), listeners)
            except FaultyClips as error:
                for line in error.message.splitlines():
                    print(f"warning: {plain(line)}", file=sys.stderr)
                print("these clips are on the quarantine list now; planning again without them", file=sys.stderr)
                with stop.at_once("everything encoded so far is kept"):
                    self.plan = self._make()
        return drain(iter_precompute(self.plan, stop), listeners)
