"""The optimiser that the configuration names. Its library is imported only here, and only the one that is asked for."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.config.optimizers import OPTIMIZERS, SMALLEST_PAGED, TRITON, settings_of, taken_words
from ltxtrain.errors import ConfigError, Fault
from ltxtrain.learn.optimizers.early import EARLY, Alone, Early, take_over
from ltxtrain.learn.optimizers.gradients import clip
from ltxtrain.learn.optimizers.main_memory import Room, in_main_memory, move_in

NAME = "ltxtrain_name"
"""The key of a parameter group under which the optimiser's documented name stands."""

GROUP_STATE = {
    "optimi": ("setup", "step"),
    "prodigyopt": ("d", "d0", "d_max", "d_numerator", "d_denom", "d_hat", "k"),
    "pytorch_optimizer": ("step",),
    "schedulefree": ("k", "weight_sum", "lr_max", "scheduled_lr"),
}
"""What of a parameter group is state; the rest are settings, which are those of now."""


def make_optimizer(
    parameters: Mapping[str, torch.nn.Parameter], section: OptimizerConfig, seed: int
) -> torch.optim.Optimizer:
    """The optimiser of ``section`` on ``parameters``, by name in a fixed order.

    Raises ``ConfigError`` for a name that works nowhere, a package that is not installed, and settings that it cannot
    take. ``seed`` is for those that draw random numbers.
    """
    name = section.optimizer
    facts = OPTIMIZERS[name]
    if facts.verdict.refused:
        hint = f"use {facts.verdict.instead}"
        raise ConfigError([Fault("optimizer", f"{name} does not work here: {facts.verdict.why}", "", hint)])
    try:
        settings: dict[str, Any] = dict(settings_of(name, section.optimizer_config))
    except ValueError as error:
        hint = taken_words(name, section.optimizer_config)
        raise ConfigError([Fault("optimizer_config", str(error), "", hint)]) from error
    settings["lr"] = section.learning_rate
    if facts.betas is not None:
        settings["betas"] = facts.betas
        if section.optimizer_beta1 is not None and section.optimizer_beta2 is not None:
            settings["betas"] = (section.optimizer_beta1, section.optimizer_beta2)
        if "beta3" in settings:
            settings["betas"] += (settings.pop("beta3"),)
    room = Room(parameters) if section.optimizer_cpu_offload_method != "none" else None
    try:
        optimizer = _make(parameters if room is None else room.mirrors, section, seed, settings)
    except ImportError as error:
        hint = f"pip install '{facts.verdict.needs}', or use {facts.verdict.instead or 'torch-adamw'}"
        if facts.fuses == TRITON and section.fuse_optimizer and "Triton" in str(error):
            hint = "set fuse_optimizer to false"
        raise ConfigError([Fault("optimizer", f"{name} cannot be loaded: {error}", "", hint)]) from error
    except ValueError as error:
        raise ConfigError([Fault("optimizer", f"{name} cannot be made: {error}", "", "use torch-adamw")]) from error
    for group in optimizer.param_groups:
        group[NAME] = name
    _arrange(optimizer, section, room)
    take_over(optimizer)
    return optimizer


def _arrange(optimizer: torch.optim.Optimizer, section: OptimizerConfig, room: Room | None) -> None:
    """Where the optimiser computes, and when it takes its gradients."""
    (group,) = optimizer.param_groups
    if room is not None:
        move_in(optimizer, room)
        if section.optimizer_offload_gradients:
            early = group[EARLY] = Early(room.trained, room.send_gradient)
            optimizer.step = partial(_clip_and_step, optimizer, optimizer.step, early, section)
    elif section.optimizer_release_gradients:
        alone = Alone(optimizer, GROUP_STATE.get(OPTIMIZERS[section.optimizer].library, ()))
        early = group[EARLY] = Early(group["params"], partial(_clip_and_update, alone, section))
        optimizer.step = partial(_finish, alone, early)


def _clip_and_step(
    optimizer: torch.optim.Optimizer, step: Callable[[], None], early: Early, section: OptimizerConfig
) -> None:
    with in_main_memory(optimizer):
        clip(optimizer.param_groups[0]["params"], section, early.norm().cpu())
        step()
    early.forget()


def _clip_and_update(alone: Alone, section: OptimizerConfig, parameter: torch.nn.Parameter) -> None:
    """Nothing is known of the other gradients: the norm of all is not clipped."""
    if section.grad_clip_method == "value":
        clip([parameter], section, torch.tensor(0.0))
    alone.step(parameter)


def _finish(alone: Alone, early: Early) -> None:
    alone.finish()
    early.forget()


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # torchao's, which its compiled step reads
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _make(
    parameters: Mapping[str, torch.nn.Parameter], section: OptimizerConfig, seed: int, settings: dict[str, Any]
) -> torch.optim.Optimizer:
    name, values, fuse = section.optimizer, list(parameters.values()), section.fuse_optimizer
    match OPTIMIZERS[name].library:
        case "own":
            from ltxtrain.learn.optimizers.adamw_bf16 import AdamWBF16

            return AdamWBF16(parameters, seed, **settings)
        case "bitsandbytes":
            return _bitsandbytes(name.removeprefix("bnb-"), values, settings)
        case "torchao":
            from ltxtrain.learn.optimizers.torchao_adam import COMPILED, EAGER

            return (COMPILED if fuse else EAGER)[name.removeprefix("ao-")](values, **settings)
        case "optimi":
            import optimi

            kinds = {kind.lower(): getattr(optimi, kind) for kind in OPTIMI}
            # Told, not left to be found out: a resumed optimi finds its state there and would go on without Kahan's.
            return kinds[name.removeprefix("optimi-")](values, kahan_sum=True, triton=fuse, foreach=False, **settings)
        case "schedulefree":
            from schedulefree import AdamWScheduleFree

            optimizer = AdamWScheduleFree(values, **settings)
            optimizer.train()
            return optimizer
        case "prodigyopt":
            from prodigyopt import Prodigy

            with contextlib.redirect_stdout(io.StringIO()):  # it prints when there is weight decay
                return Prodigy(values, **settings)
        case "pytorch_optimizer":
            from ltxtrain.learn.optimizers.soap import Soap

            return Soap(values, **settings)
        case "torch":
            if fuse:
                settings["fused"] = True
            kinds = {kind.lower(): getattr(torch.optim, kind) for kind in TORCH}
            return kinds[name.removeprefix("torch-")](values, **settings)


OPTIMI = ("Adam", "AdamW", "Adan", "Lion", "RAdam", "Ranger", "SGD", "StableAdamW")
TORCH = (
    *("Adam", "AdamW", "SGD", "RAdam", "NAdam", "RMSprop", "Adagrad", "Adadelta", "Adafactor", "Adamax", "ASGD"),
    "Muon",
)


def _bitsandbytes(kind: str, values: list[torch.nn.Parameter], settings: dict[str, Any]) -> torch.optim.Optimizer:
    """``kind`` is ``lion8bit-paged`` and the like. Pages are for large tensors on a GPU; on the CPU all memory is main
    memory."""
    from bitsandbytes import optim

    from ltxtrain.learn.optimizers.bitsandbytes_steps import unwaiting

    kinds = {
        "adagrad": optim.Adagrad,
        "adagrad8bit": optim.Adagrad8bit,
        "adam": optim.Adam,
        "adam8bit": optim.Adam8bit,
        "adamw": optim.AdamW,
        "adamw8bit": optim.AdamW8bit,
        "lion": optim.Lion,
        "lion8bit": optim.Lion8bit,
        "ademamix": optim.AdEMAMix,
        "ademamix8bit": optim.AdEMAMix8bit,
    }
    large = any(value.device.type != "cpu" and value.numel() >= SMALLEST_PAGED for value in values)
    if paged := kind.endswith("-paged") and large:
        settings["is_paged"] = True
    for name in ("t_alpha", "t_beta3"):
        if name in settings:
            settings[name] = settings[name] or None
    made = kinds[kind.removesuffix("-paged")]
    return (made if paged else unwaiting(made))(values, **settings)
