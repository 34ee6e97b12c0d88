"""Whether this machine can compute what a configuration names: formats, optimisers and attention have their verdicts.

What works nowhere is refused when the configuration is read. Here it is about the kind of device, the age of the card,
and packages that are not installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ltxtrain.config.catalogue import value_of
from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.config.optimizers import COMPILED, OPTIMIZERS, TRITON
from ltxtrain.config.tables import VERDICTS
from ltxtrain.config.verdicts import Verdict
from ltxtrain.errors import MachineError
from ltxtrain.facts.machine import Machine
from ltxtrain.facts.packages import package_lacking
from ltxtrain.plan.compiler import compiler_lacking, tools_lacking

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig

DEVICES = {"cuda": "an NVIDIA GPU", "rocm": "an AMD GPU", "mps": "an Apple GPU", "cpu": "a CPU"}
# AMD's architectures with fp8 products, as its first cards with them count: MI300 and later.
FP8_CAPABILITY = (8, 9)
FP8_ON_AMD = ("gfx94", "gfx95", "gfx12")


@dataclass(frozen=True)
class Unsupported:
    """``problem`` says what and why, ``hint`` one thing to do."""

    problem: str
    hint: str


def check_support(config: TrainConfig, machine: Machine, *, training: bool = True) -> None:
    """Raise ``MachineError`` for the first name that this machine cannot compute, with the nearest that it can.

    Without ``training`` there is no optimiser.
    """
    for found in unsupported(config, machine, training=training):
        raise MachineError(found.problem, hint=found.hint)


def support_warnings(config: TrainConfig, machine: Machine) -> list[str]:
    """For the plan, which may be made on another machine than the one that is to train."""
    return [f"a run here would be refused: {found.problem}; {found.hint}" for found in unsupported(config, machine)]


def unsupported(config: TrainConfig, machine: Machine, *, training: bool = True) -> Iterator[Unsupported]:
    """Everything that the configuration names and this machine cannot compute."""
    for key, name, verdict in named(config):
        if verdict.refused or (key == "optimizer" and not training):
            continue  # what is refused is told without looking at the machine
        instead = _nearest(key, verdict, machine)
        hint = f"set {key} to {instead}" if instead else f"leave out {key}"
        if problem := _problem(verdict, machine):
            yield Unsupported(f"{key} {name} {problem}", hint)
        elif lacking := package_lacking(verdict.needs):
            install = verdict.install or f"pip install '{verdict.needs}'"
            yield Unsupported(f"{key} {name} needs another package: {lacking}", f"{install}, or {hint}")
    if found := compiler_lacking(config.speed, machine.device, os.environ):
        yield Unsupported(*found)
    if training and (found := _fusing_lacks(config.optimizer, machine.device)):
        yield Unsupported(*found)


def _fusing_lacks(section: OptimizerConfig, device: str) -> tuple[str, str] | None:
    """torch's own fused kernels are there for every device."""
    fuses = OPTIMIZERS[section.optimizer].fuses if section.fuse_optimizer else ""
    asked, off = f"fuse_optimizer with optimizer {section.optimizer}", "set fuse_optimizer to false"
    if fuses == TRITON and device not in ("cuda", "rocm"):
        return f"{asked} does not work on {DEVICES[device]}: it is {TRITON}", off
    return tools_lacking(asked, off, device, os.environ) if fuses == COMPILED else None


def named(config: TrainConfig) -> Iterator[tuple[str, str, Verdict]]:
    """(option, value, verdict) of every name with a verdict that the run uses."""
    for key, verdicts in VERDICTS.items():
        name = value_of(config, key)
        yield key, name, verdicts[name]


def computes(verdict: Verdict, machine: Machine) -> bool:
    """Whether the machine can, with the packages that are installed."""
    return not (verdict.refused or _problem(verdict, machine) or package_lacking(verdict.needs))


def _problem(verdict: Verdict, machine: Machine) -> str:
    """Why the device cannot, empty where it can."""
    if machine.device not in verdict.on:
        return f"does not work on {DEVICES[machine.device]}"
    if verdict.capability is None or machine.device not in ("cuda", "rocm") or not machine.gpus:
        return ""
    card = machine.gpus[0]
    if machine.device == "rocm":
        fp8 = verdict.capability >= FP8_CAPABILITY
        known = not fp8 or card.capability is None or card.capability.startswith(FP8_ON_AMD)
        return "" if known else f"needs an MI300 or newer, and {card.name} is older"
    least = ".".join(map(str, verdict.capability))
    if card.capability is None or _version(card.capability) >= verdict.capability:
        return ""
    return f"needs compute capability {least}, and {card.name} has {card.capability}"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def _nearest(key: str, verdict: Verdict, machine: Machine) -> str:
    """The first name that works, along what each names in its place; else the first of all that do."""
    verdicts = VERDICTS[key]
    asked, seen = _names(verdict.instead), set()
    while asked:
        name = asked.pop(0)
        if name not in verdicts or name in seen:
            continue
        if computes(verdicts[name], machine):
            return name
        seen.add(name)
        asked += _names(verdicts[name].instead)
    return next((name for name, found in verdicts.items() if computes(found, machine)), "")


def _names(text: str) -> list[str]:
    """The names in a verdict's ``instead``, which may be a sentence: ``native-flash, which needs no package``."""
    return re.findall(r"[\w+-]+", text)
