"""The text of docs/presets.md: the estimated peak of each phase of each preset, the cards that it fits on, and what a
budget chooses on them."""

from __future__ import annotations

from typing import Any

from names import table

from ltxtrain.config import TrainConfig, load_config, resolve_datasets
from ltxtrain.config.catalogue import value_of
from ltxtrain.config.layers import document_layer
from ltxtrain.config.presets import preset_chain, preset_names, read_preset
from ltxtrain.errors import ConfigError, MachineError
from ltxtrain.events import LATENTS, TEXTS, TRAINING, VALIDATION
from ltxtrain.facts.machine import Gpu, Machine
from ltxtrain.facts.models import ModelFacts, model_facts
from ltxtrain.plan.buckets import SizeRule, target_of_ratio
from ltxtrain.plan.budget import NAME, PLAIN, choose, with_values
from ltxtrain.plan.frames import floor_frames
from ltxtrain.plan.memory import estimate_memory
from ltxtrain.plan.prompts import validation_videos
from ltxtrain.plan.records import Bucket, PhaseMemory
from ltxtrain.plan.setup import training_setup

GIB = 1024**3
CARDS = (8, 12, 16, 24, 80)
DEVICES = {"apple-mps": "mps", "rocm-mi300x": "rocm", "smoke": "cpu"}
RATIO = 1.5  # of clips and videos: 768x512
SHORT = {TEXTS: "text", LATENTS: "latents", TRAINING: "training", VALIDATION: "validation"}

INTRODUCTION = """# Presets on cards

The estimated peak of each phase, in GiB with the margin that a plan adds, for clips of three to two at the preset's own
resolution and length. A preset fits on a card when its largest phase does; `memory_gb` is what the preset promises, and
a test holds it to that. `ltxtrain plan` tells the same of your clips, but for presets that ask for options that are not
built yet, which `ltxtrain plan` and `train` refuse with exit code 2:
{refused}.

This page is written by `make docs` from the presets and the plan's estimate; do not edit it. Nothing on it has been
measured on a GPU.
"""
LEGEND = """
"no" tells the phase that does not fit. What would: `--memory-budget-gb` with the card's size lets the plan choose, and
[memory.md](memory.md) tells what each way costs.
"""

BUDGETS = (4, 6, 8, 12, 16, 24)
SHAPES = (Bucket(480, 480, 49), Bucket(768, 512, 49), Bucket(768, 512, 121))
BUDGETS_TEXT = """
## What a budget chooses

`--memory-budget-gb N` without a preset, with one clip a step and videos of the same size, on an NVIDIA card that
computes in bf16. What is not named is as it is fastest: bf16, no checkpointing, nothing offloaded.

"""
WORDS = {
    "base_model_precision": "base in {}",
    "text_encoder_1_precision": "text encoder in {}",
    "gradient_checkpointing": "checkpointing",
    "gradient_checkpointing_free_blocks": "but for {} of the blocks",
    "gradient_checkpointing_interval": "pieces of {}",
    "gradient_checkpointing_segment_stride": "one in each {} blocks",
    "gradient_checkpointing_backend": "by {}",
    "enable_group_offload": "group offload",
    "musubi_blocks_to_swap": "{} blocks swapped",
    "group_offload_blocks_per_group": "{} blocks to a group",
    "group_offload_use_stream": "",
    "group_offload_text_encoder": "of the text encoder too",
    "group_offload_vae": "of the VAE too",
    "enable_model_cpu_offload": "models take turns",
    "vae_enable_slicing": "",
    "vae_enable_tiling": "VAE in tiles",
    "vae_enable_framewise_encoding": "VAE in groups of frames",
}


def presets_page() -> str:
    rows = (_budget_row(bucket, card) for bucket in SHAPES for card in BUDGETS)
    budgets = table(("clips", "budget", "what is chosen"), rows)
    *some, last = (f"`{name}`" for name in preset_names() if _is_refused(name))
    introduction = INTRODUCTION.format(refused=f"{', '.join(some)} and {last}")
    return introduction + "\n" + presets_table() + LEGEND + BUDGETS_TEXT + budgets


def _is_refused(name: str) -> bool:
    try:
        load_config([name], env={}, flags={})
    except ConfigError:
        return True
    return False


def presets_table() -> str:
    head = ("preset", "clips a step", *SHORT.values(), "`memory_gb`", *(f"{card} GB" for card in CARDS))
    names = sorted(preset_names(), key=lambda name: (read_preset(name).memory_gb, name))
    return table(head, map(_row, names))


def _row(name: str) -> tuple[str, ...]:
    config = config_of(name)
    phases = phases_of(config, DEVICES.get(name, "cuda"))
    sizes = {phase.phase: phase.total / GIB for phase in phases if phase.on_device}
    too_large = (next((short for phase, short in SHORT.items() if sizes.get(phase, 0.0) > card), "") for card in CARDS)
    return (
        f"`{name}`",
        f"{config.data.train_batch_size} x {bucket_of(config).key}",
        *(f"{sizes[phase]:.1f}" if phase in sizes else "" for phase in SHORT),
        f"{read_preset(name).memory_gb:g}",
        *(f"no: {phase}" if phase else "yes" for phase in too_large),
    )


def _budget_row(bucket: Bucket, budget: int) -> tuple[str, ...]:
    return bucket.key, f"{budget} GB", chosen_words(bucket, budget)


def chosen_words(bucket: Bucket, budget: int) -> str:
    """What the plan chooses for clips of one bucket on a card of that size, or that nothing fits."""
    flags = {
        "data": "clips",
        NAME: str(budget),
        "train_batch_size": "1",
        "validation_resolution": f"{bucket.width}x{bucket.height}",
        "validation_num_video_frames": str(bucket.frames),
    }
    loaded = load_config([], env={}, flags=flags)
    card = Machine("Linux", "a CPU", 8, 64 * GIB, "cuda", (Gpu("a card", budget * GIB, "8.9"),))

    def estimate(config: TrainConfig) -> tuple[PhaseMemory, ...]:
        return phases_of(config, "cuda", bucket)

    facts = known_facts(loaded.config)
    try:
        choice = choose(loaded.config, loaded.sources, card, facts.transformer.layers, estimate)
    except MachineError:
        return "nothing fits"
    values = {name: value_of(choice.config, name) for name in PLAIN}
    told = [WORDS[name].format(value) for name, value in values.items() if value != PLAIN[name]]
    return ", ".join(word for word in told if word) or "all of it as it is fastest"


def phases_of(config: TrainConfig, device: str, bucket: Bucket | None = None) -> tuple[PhaseMemory, ...]:
    """The plan's estimate without clips, for one bucket."""
    videos = validation_videos(config.validation, config.model.seed, ["a caption"])
    setup = training_setup(config, device, videos)
    return estimate_memory(known_facts(config), [bucket or bucket_of(config)], setup)


def known_facts(config: TrainConfig) -> ModelFacts:
    name = config.model.pretrained_model_name_or_path
    facts = model_facts(name)
    if facts is None:
        raise ValueError(f"the sizes of {name} are not known")
    return facts


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
