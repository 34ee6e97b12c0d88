"""All checks in one order. What takes long (torch's import, the network) runs beside the rest."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from ltxtrain import __version__
from ltxtrain.config import LoadedConfig, TrainConfig
from ltxtrain.doctor import device, needs, process, software, surroundings, wheels
from ltxtrain.doctor.findings import Finding, counts, skipped
from ltxtrain.doctor.software import Installed, guarded
from ltxtrain.doctor.surroundings import Surroundings
from ltxtrain.doctor.torch_facts import TORCH_SECONDS, TorchFacts, TorchProbe
from ltxtrain.facts.machine import Machine, physical_memory_bytes, probe_machine
from ltxtrain.facts.models import TINY_MODEL

SCHEMA = 1
MACHINE_CODE, DATA_CODE, MODEL_CODE = 4, 3, 5


@dataclass(frozen=True)
class Group:
    """Findings that stand together. ``exit_code`` is what a fault among them means, as in ``errors.py``."""

    title: str
    exit_code: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Examination:
    """All that was found, and the facts that it was found from."""

    groups: tuple[Group, ...]
    machine: Machine
    torch: TorchFacts
    around: Surroundings
    packages: tuple[Installed, ...]
    image: Mapping[str, str] | None
    presets: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        return tuple(finding for group in self.groups for finding in group.findings)

    @property
    def exit_code(self) -> int:
        """0 without a fault, else that of the first fault's group."""
        faulty = (group for group in self.groups if any(finding.state == "fault" for finding in group.findings))
        return next((group.exit_code for group in faulty), 0)

    def to_json(self) -> dict[str, Any]:
        found = counts(self.findings)
        return {
            "schema": SCHEMA,
            "ltxtrain": __version__,
            "python": ".".join(map(str, sys.version_info[:3])),
            "exit_code": self.exit_code,
            "counts": found | {"checks": len(self.findings) - found["skipped"]},
            "presets": list(self.presets),
            "findings": [
                {"group": group.title, **asdict(finding)} for group in self.groups for finding in group.findings
            ],
            "machine": asdict(self.machine) | {"container": self.around.container},
            "torch": asdict(self.torch),
            "packages": {entry.package.name: entry.version for entry in self.packages if entry.found},
            "image": None if self.image is None else dict(self.image),
        }


def examine(loaded: LoadedConfig, offline: bool = False, seconds: float = TORCH_SECONDS) -> Examination:
    """Look at everything that a run with this configuration would use. Nothing large is read, written or downloaded."""
    env, config, presets = os.environ, loaded.config, loaded.presets
    packages = software.installed_packages()
    probe = TorchProbe(software.tried_modules(packages), seconds)
    around, machine = surroundings.look_around(), probe_machine(surroundings.ROOT)
    volumes = _volumes(config, env, presets)
    process_findings, data = _process(volumes), _data(config)
    model, clock = _model(config, env, offline)
    torch = probe.facts()
    image = software.read_image(env)
    tiny = config.model.pretrained_model_name_or_path == TINY_MODEL
    seen = device.Seen(torch, machine, around, tiny, (image or {}).get("kind"))
    computed = replace(machine, device=device.kind(torch))
    chosen, budget = needs.in_budget(loaded, computed)
    wants = needs.wants_of(chosen, computed.device)
    system = [
        *software.system_findings(packages, torch.packages, torch.state == "ok", machine.cpu),
        *software.check_image(image, torch.version),
    ]
    groups = (
        Group("System", MACHINE_CODE, tuple(system)),
        Group("Device", MACHINE_CODE, tuple(_device(seen, wants))),
        Group("Memory", MACHINE_CODE, (*_memory(seen, wants), *budget)),
        Group("Places", MACHINE_CODE, tuple(_places(volumes))),
        Group("Process", MACHINE_CODE, tuple([*process_findings, *clock])),
        Group("Data", DATA_CODE, tuple(data)),
        Group("Model", MODEL_CODE, tuple(model)),
    )
    return Examination(groups, machine, torch, around, packages, image, tuple(presets))


def _device(seen: device.Seen, wants: wheels.Wants) -> list[Finding]:
    torch = seen.torch
    visible = device.check_device(seen)
    # A driver at fault is one fault: what the card could do with a good one is the next question.
    gpus = seen.machine.gpus if visible.state != "skipped" else ()
    compiler = wheels.find_compiler(os.environ)
    return [
        device.check_torch(seen),
        device.check_driver(seen),
        device.check_nvidia_smi(seen),
        visible,
        *_once(
            wheels.check_architecture(torch, gpus if torch.cuda and seen.machine.device == "cuda" else ()),
            wheels.check_computing(torch),
        ),
        wheels.check_bf16(torch, wants),
        wheels.check_fp8(torch, wants),
        wheels.check_compiler(compiler, wheels.has_python_header(), wants.compiler),
        *wheels.check_mps_limits(torch, seen.around.variables),
    ]


def _once(architecture: Finding, computing: Finding) -> list[Finding]:
    """A build without code for a card does not compute on it: that is one fault."""
    if architecture.state == "fault" and computing.state == "fault":
        computing = skipped("computing", "architecture-at-fault", "not without code for this architecture")
    return [architecture, computing]


def _memory(seen: device.Seen, wants: wheels.Wants) -> list[Finding]:
    from ltxtrain.doctor.places import check_shared_memory

    return [
        *wheels.check_gpu_memory(seen.torch, seen.machine, wants),
        wheels.check_main_memory(seen.machine.memory_bytes, physical_memory_bytes(), wants.host_bytes),
        wheels.check_cores(seen.machine.cores),
        *guarded("shared memory", check_shared_memory),
    ]


def _volumes(
    config: TrainConfig, env: Mapping[str, str], presets: Sequence[str]
) -> list[tuple[needs.Volume, list[Finding]]]:
    from ltxtrain.doctor.places import check_volume

    def look(volume: needs.Volume) -> list[Finding]:
        return check_volume(volume.name, volume.folder, volume.need_bytes, volume.inside)

    return [(volume, guarded(volume.name, partial(look, volume))) for volume in needs.volumes_of(config, env, presets)]


def _places(volumes: Sequence[tuple[needs.Volume, list[Finding]]]) -> list[Finding]:
    from ltxtrain.doctor.places import check_temporary

    findings = [finding for _, found in volumes for finding in found]
    return [*findings, *guarded("temporary files", check_temporary)]


def _process(volumes: Sequence[tuple[needs.Volume, list[Finding]]]) -> list[Finding]:
    """The user is looked at in the folders that are fine themselves: one cause is told once."""
    folders = [volume.folder for volume, found in volumes if all(finding.state != "fault" for finding in found)]
    return [*guarded("user", lambda: process.check_user(folders)), *guarded("limits", process.check_limits)]


def _data(config: TrainConfig) -> list[Finding]:
    from ltxtrain.doctor.clips import check_data, check_dataset

    sets = needs.data_sets(config)
    if isinstance(sets, Finding):
        return [sets]
    if sets is None:
        return guarded("data", lambda: check_data(None))
    listed = needs.is_listed(config)
    findings = [finding for each in sets for finding in guarded("data", partial(check_dataset, each, listed))]
    if len(findings) == 1:
        return findings
    return [replace(finding, check=f"data {number}") for number, finding in enumerate(findings, 1)]


def _model(config: TrainConfig, env: Mapping[str, str], offline: bool) -> tuple[list[Finding], list[Finding]]:
    """The model and what the Hub says of it; and the clock, by the Hub's time where it was told."""
    name = config.model.pretrained_model_name_or_path
    here = needs.check_model(config)
    if here is not None or offline:
        why = ("offline", "--offline: it is not asked") if offline else ("not-needed", "the model needs none")
        asked = [here or skipped("model", "offline", f"{name}: not asked for"), skipped("hub", *why)]
        return asked, guarded("clock", lambda: process.check_clock(None))
    from ltxtrain.doctor.hub import check_hub

    cached = needs.is_cached(name, env)
    found = guarded("hub", lambda: check_hub(name, config.model.revision, cached))
    return [each for each in found if each.check != "clock"], [each for each in found if each.check == "clock"]
