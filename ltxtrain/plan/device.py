"""A real model without a GPU: a warning, and a refusal where the image is made for one and was given none."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ltxtrain.errors import MachineError
from ltxtrain.facts.container import cloud_machine
from ltxtrain.facts.image import image_facts
from ltxtrain.facts.machine import Machine, has_gpu_files
from ltxtrain.facts.models import TINY_MODEL
from ltxtrain.plan.records import Plan

WHOSE = {"cuda": "NVIDIA", "rocm": "AMD"}
GIVE = {
    "cuda": "docker run --gpus all ... (the host needs its driver and nvidia-container-toolkit)",
    "rocm": "docker run --device /dev/kfd --device /dev/dri ... (and --group-add with the number of the group render)",
}


def device_warnings(machine: Machine, model: str, env: Mapping[str, str]) -> list[str]:
    """For the plan. The tiny model needs no GPU."""
    if machine.device != "cpu" or model == TINY_MODEL:
        return []
    if told := _not_given(machine, model, env):
        return [f"{told[0]}; start it with {told[1]}"]
    return [f"no GPU was found: {model} would train on the CPU for weeks"]


def refuse_without_gpu(plan: Plan) -> None:
    """Raise ``MachineError`` before anything is downloaded, in an image for GPUs that was given none."""
    told = _not_given(plan.machine, plan.config.model.pretrained_model_name_or_path, os.environ)
    if told:
        raise MachineError(told[0], hint=told[1])


def _not_given(machine: Machine, model: str, env: Mapping[str, str], root: Path = Path("/")) -> tuple[str, str] | None:
    """What is wrong and what to do. A card whose driver's tool is missing is not found, but its files are there."""
    kind = image_facts(env).facts.get("kind", "")
    if kind not in WHOSE or model == TINY_MODEL or machine.device != "cpu" or has_gpu_files(kind, root):
        return None
    says = f"this image is for {WHOSE[kind]}, and the container was given no GPU: {model} cannot be trained without one"
    machine_word = cloud_machine(env)
    return says, f"rent a {machine_word} with a GPU" if machine_word else GIVE[kind]
