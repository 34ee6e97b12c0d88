"""What would help most where memory runs out: each way to make a phase smaller, by what the estimate says it saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ltxtrain.config.conflicts import conflict_faults
from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.facts.machine import OWN_MEMORY
from ltxtrain.plan.budget import NAME, with_values, word
from ltxtrain.plan.filling import largest_batches, sizes_of
from ltxtrain.plan.memory import TrainingSetup, estimate_memory
from ltxtrain.plan.records import SPATIAL_RATIO, TEMPORAL_RATIO, Bucket, PhaseMemory, Plan
from ltxtrain.plan.savings import Values, savings
from ltxtrain.plan.setup import base_facts, training_setup, with_batches
from ltxtrain.plan.support import computes
from ltxtrain.units import format_bytes, format_need

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig
    from ltxtrain.facts.models import ModelFacts

LISTED = 2
WORTH = 16 * 1024**2  # bytes that are worth a word
SMALL_OPTIMIZER = "bnb-adamw8bit"
Case = tuple[str, tuple[Bucket, ...], TrainingSetup]  # what is to be done, and what is estimated then


def help_most(plan: Plan, phase: str) -> tuple[str, ...]:
    """The two options that would save most in ``phase``, by estimate: ``set gradient_checkpointing to true (saves about
    4.5 GiB)``. ``phase`` is a name of the estimate.

    Fewer, or none, where little would help or the model's sizes are not known.
    """
    model = base_facts(plan.config)
    if model is None or not plan.buckets:
        return ()
    buckets = tuple(entry.bucket for entry in plan.buckets)
    setup = _setup(plan, plan.config)
    before = _need(model, buckets, setup, phase)
    if before is None:
        return ()
    saved: dict[str, tuple[int, str]] = {}  # by the first option of each
    for words, shapes, case in (*_options(plan, buckets), *_smaller(plan, buckets, setup)):
        after = _need(model, shapes, case, phase)
        if after is not None and before - after >= WORTH:
            option = words.split(" to ")[0]
            saved[option] = max(saved.get(option, (0, "")), (before - after, words), key=lambda found: found[0])
    best = sorted(saved.values(), key=lambda found: -found[0])[:LISTED]
    return tuple(f"{words} (saves about {format_bytes(size)})" for size, words in best)


def memory_warnings(plan: Plan) -> list[str]:
    """Phases whose estimate is more than the smallest device of this machine has, each with what would help."""
    warnings = []
    for phase in plan.memory:
        available = phase.available(plan.machine)
        if available and phase.total > available:
            warnings.append(
                f"memory: {phase.phase} needs about {format_need(phase.total, available)} on {phase.device}, "
                f"{format_bytes(available)} are there; {_help(plan, phase)}"
            )
    return warnings


def _help(plan: Plan, phase: PhaseMemory) -> str:
    ways = list(help_most(plan, phase.phase))
    if phase.on_device and not any(source.startswith(NAME) for source in plan.sources.values()):
        ways.append(f"let {NAME} choose")
    return ", or ".join(ways) or "a machine with more memory is needed for this model"


def _setup(plan: Plan, config: TrainConfig) -> TrainingSetup:
    samples = (*plan.samples, *plan.eval_samples)
    rules = {dataset.id: dataset.cache for dataset in plan.datasets}
    setup = with_batches(training_setup(config, plan.machine.device, plan.videos), plan.buckets, samples, rules)
    if config.validation.eval_loss_disable:
        return setup
    return replace(setup, measured=largest_batches(plan.eval_samples, sizes_of(config.data, plan.settled)))


def _need(model: ModelFacts, buckets: Sequence[Bucket], setup: TrainingSetup, phase: str) -> int | None:
    found: dict[str, PhaseMemory] = {each.phase: each for each in estimate_memory(model, buckets, setup)}
    return found[phase].total if phase in found else None


def _options(plan: Plan, buckets: tuple[Bucket, ...]) -> Iterator[Case]:
    """Options that change how something is computed, not what is trained on."""
    faults = {str(fault) for fault in conflict_faults(plan.config, plan.sources)}
    for values in _changes(plan):
        config = with_values(plan.config, values)
        if config != plan.config and all(str(fault) in faults for fault in conflict_faults(config, plan.sources)):
            changed = (name for name in values if with_values(plan.config, {name: values[name]}) != plan.config)
            words = " and ".join(f"{name} to {word(values[name])}" for name in changed)
            yield f"set {words}", buckets, _setup(plan, config)


def _changes(plan: Plan) -> Iterator[Values]:
    yield from savings(plan.machine)
    if computes(OPTIMIZERS[SMALL_OPTIMIZER].verdict, plan.machine):
        yield {"optimizer": SMALL_OPTIMIZER}
    yield {"optimizer_release_gradients": True}
    if plan.machine.device in OWN_MEMORY:
        yield {"optimizer_cpu_offload_method": "torchao"}
        yield {"optimizer_cpu_offload_method": "torchao", "optimizer_offload_gradients": True}


def _smaller(plan: Plan, buckets: tuple[Bucket, ...], setup: TrainingSetup) -> Iterator[Case]:
    """Smaller batches, frames and clips."""
    size = max(setup.batches.values(), default=plan.batch_size)
    if size > 1:
        halved, measured = (
            {bucket: max(1, clips // 2) for bucket, clips in found.items()} for found in (setup.batches, setup.measured)
        )
        case = replace(setup, batches=halved, measured=measured)
        yield f"lower train_batch_size to {max(1, size // 2)}", buckets, case
    for words, shrink in (("lower resolution by a quarter", _narrower), ("lower num_frames by a quarter", _shorter)):
        changed = {bucket: shrink(bucket) for bucket in {*buckets, *setup.encoded, *setup.measured}}
        case = replace(
            setup,
            batches={changed[bucket]: clips for bucket, clips in setup.batches.items()},
            encoded={changed[bucket]: clips for bucket, clips in setup.encoded.items()},
            measured={changed[bucket]: clips for bucket, clips in setup.measured.items()},
        )
        yield words, tuple(changed[bucket] for bucket in buckets), case
    if setup.validation is not None:
        yield (
            "lower validation_resolution by a quarter",
            buckets,
            replace(setup, validation=_narrower(setup.validation)),
        )
    if plan.config.adapter.lora_rank > 1 and not setup.full:
        half = plan.config.adapter.lora_rank // 2
        yield f"lower lora_rank to {half}", buckets, replace(setup, rank=half)
    if setup.latents_on_demand:
        yield "encode clips before training, not on demand", buckets, replace(setup, latents_on_demand=False)
    if setup.texts_on_demand:
        yield "encode captions before training, not on demand", buckets, replace(setup, texts_on_demand=False)


def _narrower(bucket: Bucket) -> Bucket:
    cells = (max(1, round(0.75 * side / SPATIAL_RATIO)) for side in (bucket.width, bucket.height))
    width, height = (count * SPATIAL_RATIO for count in cells)
    return Bucket(width, height, bucket.frames)


def _shorter(bucket: Bucket) -> Bucket:
    return Bucket(bucket.width, bucket.height, int(0.75 * (bucket.frames - 1)) // TEMPORAL_RATIO * TEMPORAL_RATIO + 1)
