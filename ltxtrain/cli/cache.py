"""``ltxtrain cache``: the first half of training, for a machine or an hour of its own."""

from __future__ import annotations

from ltxtrain.cli.options import Configs, Context, Presets, SetAside, read_config


def cache(ctx: Context, preset: Presets = None, config: Configs = None, set_aside_unbuilt: SetAside = False) -> None:
    """Compute latents and prompt embeddings for a run, and stop there. What exists already is not computed again."""
    from ltxtrain.cli.plan import plan_of
    from ltxtrain.cli.surroundings import look_around
    from ltxtrain.learn.signals import StopFlag, watch_signals
    from ltxtrain.listeners.heartbeat import heartbeat_listener
    from ltxtrain.plan.device import refuse_without_gpu
    from ltxtrain.plan.places import check_places

    with watch_signals(stop := StopFlag()), heartbeat_listener() as heartbeat:
        with stop.at_once("nothing was begun"):
            plan = plan_of(read_config(ctx, preset, config, set_aside_unbuilt))
            look_around()
            refuse_without_gpu(plan)
            check_places(plan.cache_dir, None, plan.sources)
        from ltxtrain.cli.drive import drain
        from ltxtrain.listeners.console import console_listener
        from ltxtrain.precompute import iter_precompute

        with console_listener() as console:
            drain(iter_precompute(plan, stop), [heartbeat, console])
