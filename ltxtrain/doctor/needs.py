"""What the configured run would need: places, number formats, and memory at the least."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ltxtrain.config import Dataset, LoadedConfig, TrainConfig, resolve_datasets
from ltxtrain.config.formats import FORMATS
from ltxtrain.doctor.findings import Finding, fault, ok
from ltxtrain.doctor.wheels import Wants
from ltxtrain.errors import ConfigError, DataError, MachineError, ModelError
from ltxtrain.facts.access import nearest
from ltxtrain.facts.machine import OWN_MEMORY, Machine
from ltxtrain.facts.models import BUILT_IN, TINY_MODEL, ModelFacts, lora_params, model_facts, transformer_facts
from ltxtrain.plan import disk
from ltxtrain.plan.budget import choose
from ltxtrain.plan.folder import run_name_of
from ltxtrain.plan.memory import estimate_memory
from ltxtrain.plan.places import inside_cache, inside_downloads, inside_run, keep_out, written_places
from ltxtrain.plan.records import Bucket, PhaseMemory
from ltxtrain.plan.setup import base_facts, training_setup
from ltxtrain.plan.targets import lora_targets

# The smallest clips that are worth training on: what a run needs whatever its clips are.
SMALLEST = Bucket(256, 256, 9)
CACHE_BYTES = 1024**3
OUTPUT_BYTES = 1024**3
# The tiny model itself, and clips, latents and videos of the sizes that it is used with: the plan tells some MiB.
TINY_BYTES = 32 * 1024**2
COMPILED_ATTENTION = ("flex", "sageattention", "sageattention-int8-fp16-triton")


@dataclass(frozen=True)
class Volume:
    """A folder that a run writes to, how much about, and what in it runs write into."""

    name: str
    folder: Path
    need_bytes: int
    inside: tuple[Path, ...] = ()


def wants_of(config: TrainConfig, device: str) -> Wants:
    """``device`` is the kind of the machine: cuda, rocm, mps or cpu."""
    precision, speed = config.precision, config.speed
    asked = {"--mixed-precision no": precision.mixed_precision, "--vae-dtype fp32": precision.vae_dtype}
    gpu, host = _least_memory(config, device)
    formats = (precision.base_model_precision, precision.text_encoder_1_precision)
    return Wants(
        bf16_flags=tuple(flag for flag, named in asked.items() if named == "bf16"),
        fp8=precision.mixed_precision == "fp8" or any(FORMATS[name].activations for name in formats),
        compiler=speed.dynamo_backend == "inductor" or speed.attention_mechanism in COMPILED_ATTENTION,
        gpu_bytes=gpu,
        host_bytes=host,
    )


def in_budget(loaded: LoadedConfig, machine: Machine) -> tuple[TrainConfig, list[Finding]]:
    """The configuration with what ``memory_budget_gb`` chooses for the smallest clips, and whether anything fits.

    As it is where there is no budget, and where sizes are not known.
    """
    config = loaded.config
    facts = _facts(config)
    if config.memory.memory_budget_gb is None or facts is None:
        return config, []
    try:
        choice = choose(
            config, loaded.sources, machine, facts.transformer.layers, partial(_least_phases, facts, machine.device)
        )
    except (ConfigError, MachineError) as error:
        hint = error.hint or "leave the budget out"
        return config, [fault("memory budget", "budget-too-small", error.message.splitlines()[0], hint)]
    says = f"{config.memory.memory_budget_gb:g} GiB are enough for the smallest clips"
    return choice.config, [ok("memory budget", says)]


def _least_memory(config: TrainConfig, device: str) -> tuple[int, int]:
    """The plan's estimate for the smallest clips, on the device and in main memory; 0 where sizes are not known."""
    facts = _facts(config)
    if facts is None:
        return 0, 0
    phases = _least_phases(facts, device, config)
    host = max((phase.total for phase in phases if not phase.on_device), default=0)
    there = max(phase.total for phase in phases if phase.on_device)
    return (there, host) if device in OWN_MEMORY else (0, there)


def _least_phases(facts: ModelFacts, device: str, config: TrainConfig) -> tuple[PhaseMemory, ...]:
    return estimate_memory(facts, [SMALLEST], training_setup(config, device, ()))


def _facts(config: TrainConfig) -> ModelFacts | None:
    try:
        return base_facts(config)
    except (ModelError, OSError):
        return None


def volumes_of(config: TrainConfig, env: Mapping[str, str], presets: Sequence[str] = ()) -> tuple[Volume, ...]:
    """Cache, output and, when the model comes from the Hub and they go elsewhere, downloads."""
    name, facts = config.model.pretrained_model_name_or_path, _facts(config)
    tiny = name == TINY_MODEL
    cache_dir, output_dir = config.cache.cache_dir, config.checkpoint.output_dir
    cache = Volume("cache", cache_dir, TINY_BYTES if tiny else CACHE_BYTES, tuple(inside_cache(cache_dir)))
    output = Volume(
        "output",
        output_dir,
        (TINY_BYTES if tiny else OUTPUT_BYTES) + _checkpoint_bytes(config, facts),
        tuple(inside_run(output_dir / run_name_of(config, presets))),
    )
    if not comes_from_hub(config):
        return cache, output
    hub = disk.hub_cache(env)
    size, below = disk.download_bytes(facts, env) if facts else 0, tuple(inside_downloads(hub, name))
    if _on_one_disk(hub, cache_dir):  # one place, one finding
        return replace(cache, need_bytes=cache.need_bytes + size, inside=(*cache.inside, *below)), output
    return cache, output, Volume("downloads", hub, size, below)


def _on_one_disk(folder: Path, above: Path) -> bool:
    if not folder.absolute().is_relative_to(above.absolute()):
        return False
    try:
        return nearest(folder).stat().st_dev == nearest(above).stat().st_dev
    except OSError:
        return False


def _checkpoint_bytes(config: TrainConfig, facts: ModelFacts | None) -> int:
    if facts is None:
        return 0
    params = lora_params(facts.transformer, config.adapter.lora_rank, lora_targets(config.adapter))
    kept = config.checkpoint.checkpoints_total_limit or 1
    return disk.checkpoint_bytes(disk.RunOutputs(kept, params, 2, ()))


def comes_from_hub(config: TrainConfig) -> bool:
    """Whether the model's name is none of a place on this disk; a faulty one is the Hub's to refuse."""
    name = config.model.pretrained_model_name_or_path
    return name not in BUILT_IN and not name.startswith((".", "/", "~")) and not os.path.lexists(name)


def is_cached(name: str, env: Mapping[str, str]) -> bool:
    """Whether a download of the model is there, whole or in part."""
    fetched = disk.hub_cache(env) / f"models--{name.replace('/', '--')}" / "snapshots"
    return fetched.is_dir() and any(fetched.iterdir())


def check_model(config: TrainConfig) -> Finding | None:
    """A model on this disk: whether it is there, and is what it should be. None for one of the Hub."""
    name = config.model.pretrained_model_name_or_path
    if name in BUILT_IN:
        return ok("model", f"{name}, which the program makes itself")
    if comes_from_hub(config):
        return None
    try:
        os.stat(os.path.expanduser(name))  # noqa: PTH111, PTH116 - Path's own raises where nobody has a home
    except FileNotFoundError:
        return fault("model", "model-missing", f"{name} does not exist", "check pretrained_model_name_or_path")
    except OSError as error:
        says = f"{name} cannot be read by uid {os.geteuid()}: {error.strerror}"
        return fault("model", "model-unreadable", says, "let this user read it, or name another folder")
    try:
        facts = model_facts(name)
        other = config.model.pretrained_transformer_model_name_or_path
        if other:
            transformer_facts(other, config.model.pretrained_transformer_subfolder)
    except ModelError as error:
        return fault("model", "model-unreadable", error.message.splitlines()[0], error.hint or "copy the model again")
    if facts is None:
        says = f"{name} is no folder in diffusers' layout"
        return fault("model", "model-unreadable", says, "name a diffusers folder or a repository of the Hub")
    return ok("model", f"{name}, {facts.transformer.params / 1e9:.1f} billion parameters")


def is_listed(config: TrainConfig) -> bool:
    """Whether there is a list of data sets, not a folder alone."""
    return bool(config.data.datasets or config.data.data_backend_config)


def data_sets(config: TrainConfig) -> list[Dataset] | Finding | None:
    """The data sets, each place once; None when none is named; a finding when the list of them cannot be read."""
    data = config.data
    if not (data.instance_data_dir or is_listed(config)):
        return ok("data", "none is named: this run makes its own clips") if data.made_clips else None
    try:
        found = resolve_datasets(data, config.cache, config.validation)
    except (ConfigError, DataError) as error:
        return fault("data", "data-list", error.message.splitlines()[0], error.hint or "mend the list of data sets")
    try:
        keep_out(written_places(config), found)
    except ConfigError as error:
        return fault("data", "data-written", error.message.splitlines()[0], error.hint or "name another place")
    places: dict[object, Dataset] = {}
    for each in found:
        places.setdefault((each.root, each.kind, each.captions, each.hub and each.hub.name), each)
    return list(places.values())
