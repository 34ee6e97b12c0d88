"""The text of docs/presets.md: the estimated peak of each phase of each preset, and the cards that it fits on."""

from __future__ import annotations

from typing import Any

from names import table

from ltxtrain.config import TrainConfig, load_config, resolve_datasets
from ltxtrain.config.catalogue import options
from ltxtrain.config.layers import document_layer
from ltxtrain.config.presets import preset_chain, preset_names, read_preset
from ltxtrain.facts.models import model_facts
from ltxtrain.plan.buckets import SizeRule, target_of_ratio
from ltxtrain.plan.frames import floor_frames
from ltxtrain.plan.memory import estimate_memory
from ltxtrain.plan.prompts import validation_videos
from ltxtrain.plan.records import Bucket, PhaseMemory
from ltxtrain.plan.setup import training_setup

GIB = 1024**3
CARDS = (8, 12, 16, 24, 80)
DEVICES = {"apple-mps": "mps", "rocm-mi300x": "rocm", "smoke": "cpu"}
RATIO = 1.5  # of clips and videos: 768x512
SHORT = {"text embeddings": "text", "latents": "latents", "training": "training", "validation": "validation"}

INTRODUCTION = """# Presets on cards

The estimated peak of each phase, in GiB with the margin that a plan adds, for clips of three to two at the preset's own
resolution and length. `ltxtrain plan` tells the same of your clips. A preset fits on a card when its largest phase
does; `memory_gb` is what the preset promises, and a test holds it to that.

This page is written by `make docs` from the presets and the plan's estimate; do not edit it. Nothing on it has been
measured on a GPU.
"""
LEGEND = """
"no" tells the phase that does not fit. What would: `--memory-budget-gb` with the card's size lets the plan choose, and
[memory.md](memory.md) tells what each way costs.
"""


def presets_page() -> str:
    head = ("preset", "clips a step", *SHORT.values(), "`memory_gb`", *(f"{card} GB" for card in CARDS))
    names = sorted(preset_names(), key=lambda name: (read_preset(name).memory_gb, name))
    return "\n".join((INTRODUCTION, table(head, map(_row, names)))) + LEGEND


def _row(name: str) -> tuple[str, ...]:
    config = config_of(name)
    phases = phases_of(config, DEVICES.get(name, "cuda"))
    sizes = {phase.phase: phase.total / GIB for phase in phases if phase.device != "main memory"}
    too_large = (next((short for phase, short in SHORT.items() if sizes.get(phase, 0.0) > card), "") for card in CARDS)
    return (
        f"`{name}`",
        f"{config.data.train_batch_size} x {bucket_of(config).key}",
        *(f"{sizes[phase]:.1f}" if phase in sizes else "" for phase in SHORT),
        f"{read_preset(name).memory_gb:g}",
        *(f"no: {phase}" if phase else "yes" for phase in too_large),
    )


def phases_of(config: TrainConfig, device: str) -> tuple[PhaseMemory, ...]:
    """The plan's estimate without clips, for one bucket."""
    name = config.model.pretrained_model_name_or_path
    facts = model_facts(name)
    if facts is None:
        raise ValueError(f"the sizes of {name} are not known")
    videos = validation_videos(config.validation, config.model.seed, ["a caption"])
    return estimate_memory(facts, [bucket_of(config)], training_setup(config, device, videos))


def bucket_of(config: TrainConfig) -> Bucket:
    """The bucket of a clip of three to two that is long enough."""
    (dataset,) = resolve_datasets(config.data, config.cache, config.validation)
    rounding, alignment = config.data.aspect_bucket_rounding, config.data.aspect_bucket_alignment
    rule = SizeRule(dataset.resolution, dataset.resolution_type, alignment, rounding)
    return Bucket(*target_of_ratio(RATIO, rule), floor_frames(dataset.num_frames))


def config_of(name: str) -> TrainConfig:
    """The preset's configuration, with what is not built yet in it: the estimate knows it all the same."""
    loaded = load_config([name], env={}, flags={"data": "clips"}, set_aside_unbuilt=True)
    asked: dict[str, Any] = {}
    for preset in preset_chain((name,)):
        asked |= document_layer(preset.document, {}).values
    aside = [option for option, source in loaded.sources.items() if source.startswith("default, instead of")]
    return with_values(loaded.config, {option: asked[option] for option in aside})


def with_values(config: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    for name, value in values.items():
        section = options()[name].section
        changed = getattr(config, section).model_copy(update={name: value})
        config = config.model_copy(update={section: changed})
    return config
