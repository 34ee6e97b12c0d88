"""``memory_budget_gb``: the fastest precision, checkpointing and offload whose estimated peaks fit.

What is set in a file, in the environment or by a flag stays as it is. A preset gives way: it is somebody's guess for
cards of one kind, and the budget is what the user says of his own; each value that gave way is told. The choice is
written into the configuration in place of the budget, so that config.toml leads to the same run on any machine and with
any later estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ltxtrain.config.catalogue import options, value_of
from ltxtrain.config.conflicts import conflict_faults
from ltxtrain.config.formats import FORMATS
from ltxtrain.errors import ConfigError, Fault, MachineError
from ltxtrain.events import EVALUATION, LATENTS, TEXTS, TRAINING, VALIDATION
from ltxtrain.facts.machine import OWN_MEMORY, Machine
from ltxtrain.plan.records import PhaseMemory
from ltxtrain.plan.savings import Values, precisions, savings
from ltxtrain.plan.support import computes
from ltxtrain.units import format_bytes, format_need

if TYPE_CHECKING:
    from ltxtrain.config import TrainConfig

GIB = 1024**3
NAME = "memory_budget_gb"
CPU_ALONE = "; all of this is for this computer's CPU and its main memory: docs/presets.md has the choices for cards"
Estimate = Callable[["TrainConfig"], Sequence[PhaseMemory]]

PLAIN: Final[Values] = {
    "base_model_precision": "no_change",
    "text_encoder_1_precision": "no_change",
    "gradient_checkpointing": False,
    "gradient_checkpointing_interval": None,
    "gradient_checkpointing_free_blocks": 0,
    "gradient_checkpointing_segment_stride": None,
    "gradient_checkpointing_backend": "torch",
    "enable_group_offload": False,
    "enable_model_cpu_offload": False,
    "musubi_blocks_to_swap": 0,
    "group_offload_blocks_per_group": 1,
    "group_offload_use_stream": False,
    "group_offload_text_encoder": False,
    "group_offload_vae": False,
    "vae_enable_slicing": False,
    "vae_enable_tiling": False,
    "vae_enable_framewise_encoding": False,
}
"""What the budget decides on, each as it is fastest."""

FRAMES: Final[Sequence[Values]] = (
    {},
    {"vae_enable_slicing": True},
    {"vae_enable_slicing": True, "vae_enable_tiling": True},
    {"vae_enable_slicing": True, "vae_enable_tiling": True, "vae_enable_framewise_encoding": True},
)


@dataclass(frozen=True)
class Choice:
    """``config`` is without a budget; ``sources`` are those of what was chosen."""

    config: TrainConfig
    sources: dict[str, str]
    notice: str


def choose(
    config: TrainConfig, sources: Mapping[str, str], machine: Machine, layers: int, estimate: Estimate
) -> Choice:
    """The first combination whose phases all fit the budget. ``layers`` are the transformer's blocks.

    A budget above what the device has is taken as that, and the notice says so. It is the most that may be used, and
    is not refused: one file is for cards of several sizes, and what fits the smaller of the two breaks no word of it.
    Raises ``MachineError`` with the smallest need where none fits.
    """
    budget = config.memory.memory_budget_gb
    if budget is None:
        raise ValueError("there is no budget")
    fixed = {name for name in PLAIN if is_explicit(sources.get(name, "default"))}
    room = min((phase.available(machine) for phase in estimate(config) if phase.on_device), default=0)
    search = _Search(config, sources, fixed, _Limit(budget, room), estimate)
    missed: tuple[Values, PhaseMemory] | None = None
    least: tuple[Values, PhaseMemory] | None = None
    for values in _combinations(machine, layers, search):
        over = search.over(values)
        if over is None:
            chosen = search.applied(values)
            notice = _notice(search, chosen, missed) + (CPU_ALONE if machine.device == "cpu" else "")
            source = f"{NAME} {budget:g}"
            told = {name: source for name in PLAIN if name not in fixed}
            return Choice(_without_budget(chosen), {**told, NAME: "default"}, notice)
        # What differs least from the choice explains it best: the one before it, or before its smaller variants.
        missed = values, over
        least = min(least or missed, missed, key=lambda found: found[1].total)
    raise _nothing_fits(search, least, machine)


def is_explicit(source: str) -> bool:
    """Whether somebody has set the option for this run, and not a preset for many."""
    return not source.startswith(("default", "preset "))


@dataclass(frozen=True)
class _Limit:
    """``asked`` is the budget in GiB, ``room`` what the device has in bytes, 0 where that is not known."""

    asked: float
    room: int

    @property
    def size(self) -> int:
        """The smaller of the two, in bytes."""
        asked = round(self.asked * GIB)
        return min(asked, self.room or asked)

    def __str__(self) -> str:
        there, same = format_bytes(self.size), format_bytes(round(self.asked * GIB))
        return f"{NAME} {self.asked:g}" + (f" (taken as the {there} that there are)" if there != same else "")


@dataclass(frozen=True)
class _Search:
    config: TrainConfig
    sources: Mapping[str, str]
    fixed: set[str]
    limit: _Limit
    estimate: Estimate

    def applied(self, values: Values) -> TrainConfig:
        """The configuration with ``values``, and all else that the budget decides on at its fastest."""
        pieces = "gradient_checkpointing_interval" in self.fixed  # which is for what is recomputed alone
        return with_values(self.config, self.free({**PLAIN, "gradient_checkpointing": pieces, **values}))

    def ways(self, name: str, values: Sequence[str]) -> Sequence[str]:
        """What the option may be: ``values``, or the one that is set by hand."""
        return [value_of(self.config, name)] if name in self.fixed else values

    def free(self, values: Values) -> Values:
        """Those of ``values`` that are not set by hand."""
        return {name: value for name, value in values.items() if name not in self.fixed}

    def allowed(self, values: Values) -> bool:
        """Whether ``values`` contradict nothing that is set by hand, and work together."""
        config = self.applied(values)
        if any(value_of(config, name) != value for name, value in values.items()):
            return False
        before = {str(fault) for fault in conflict_faults(self.config, self.sources)}
        return all(str(fault) in before for fault in conflict_faults(config, self.sources))

    def over(self, values: Values, phases: Sequence[str] = ()) -> PhaseMemory | None:
        """The phase on the device that is furthest above the budget, of those named; None where all fit."""
        found = [phase for phase in self.estimate(self.applied(values)) if phase.on_device]
        found = [phase for phase in found if phase.total > self.limit.size and (not phases or phase.phase in phases)]
        return max(found, key=lambda phase: phase.total, default=None)

    def need(self, config: TrainConfig, phase: str) -> int:
        """Bytes that ``phase`` takes, 0 where there is none of it."""
        return next((each.total for each in self.estimate(config) if each.phase == phase), 0)

    def bears(self, name: str, value: object, config: TrainConfig, phase: PhaseMemory) -> bool:
        """Whether ``name`` as ``value`` in ``config`` would change ``phase``."""
        return self.need(with_values(config, {name: value}), phase.phase) != phase.total


def _combinations(machine: Machine, layers: int, search: _Search) -> Iterator[Values]:
    """From the fastest to the smallest. Text encoder and VAE are alone on the device while they work, so each is made
    as small as its own phase needs; what stays open is what the transformer does."""
    names = search.ways("text_encoder_1_precision", precisions(machine))
    text = _first(({"text_encoder_1_precision": name} for name in names), search, TEXTS)
    frames = [free for values in FRAMES if search.allowed(free := search.free(values))]
    fitting = [values for values in frames if search.over({**text, **values}, [LATENTS]) is None] or frames[-1:]
    bases = search.ways("base_model_precision", precisions(machine))
    for more in _transformer(machine, bases, layers, search):
        for pixels in fitting:
            values = {**text, **pixels, **more}
            yield values
            turns = {**values, "enable_model_cpu_offload": True}
            if machine.device in OWN_MEMORY and not values.get("enable_group_offload") and search.allowed(turns):
                yield turns
    # What presets ask for is never refused where it fits.
    asked = {name: value_of(search.config, name) for name in PLAIN}
    formats = (asked["base_model_precision"], asked["text_encoder_1_precision"])
    if all(computes(FORMATS[name].verdict, machine) for name in formats) and search.allowed(asked):
        yield asked


def _transformer(machine: Machine, bases: Sequence[str], layers: int, search: _Search) -> Iterator[Values]:
    """Precisions from the base model's own down, each without checkpointing, with as many free blocks as fit, and with
    none. Published trainers take 1.2 to 2.5 times as long over a quantised base, and 1.5 times with checkpointing."""
    for precision in bases:
        base = {"base_model_precision": precision}
        if not search.allowed(base):
            continue
        if search.allowed(plain := {**base, "gradient_checkpointing": False}):
            yield plain
        if search.allowed(recomputed := {**base, "gradient_checkpointing": True}):
            if free := _most_free(recomputed, layers, search):
                yield {**recomputed, "gradient_checkpointing_free_blocks": free}
            yield recomputed
    if machine.device not in OWN_MEMORY:
        return  # weights have nowhere else to be
    streams = machine.device == "cuda" and not search.config.memory.group_offload_to_disk_path
    stream = search.free({"group_offload_use_stream": streams, "gradient_checkpointing": True})
    others = search.free({"group_offload_text_encoder": True, "group_offload_vae": True})
    for precision in bases:
        for more in ({}, others):
            values = {"base_model_precision": precision, "enable_group_offload": True, **stream, **more}
            if search.allowed(values):
                yield values


def _most_free(values: Values, layers: int, search: _Search) -> int:
    """So many blocks may keep their activations for the training to fit; found by halving, for more is never less."""
    if not search.allowed({**values, "gradient_checkpointing_free_blocks": 1}):
        return 0
    low, high = 0, layers - 1
    while low < high:
        middle = (low + high + 1) // 2
        fits = search.over({**values, "gradient_checkpointing_free_blocks": middle}, [TRAINING]) is None
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _first(candidates: Iterator[Values], search: _Search, phase: str) -> Values:
    """The first of ``candidates`` with which ``phase`` fits, else the last; nothing where all is set by hand."""
    last: Values = {}
    for values in candidates:
        if search.allowed(values):
            last = values
            if search.over(values, [phase]) is None:
                break
    return last


def with_values(config: TrainConfig, values: Values) -> TrainConfig:
    """``config`` with options set by their names, whichever section they stand in."""
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        sections.setdefault(options()[name].section, {})[name] = value
    changed = {name: getattr(config, name).model_copy(update=update) for name, update in sections.items()}
    return config.model_copy(update=changed)


def _without_budget(config: TrainConfig) -> TrainConfig:
    return with_values(config, {NAME: None})


def _notice(search: _Search, chosen: TrainConfig, missed: tuple[Values, PhaseMemory] | None) -> str:
    told = [words for name in PLAIN if name not in search.fixed and (words := _told(name, search, chosen))]
    phases = [phase for phase in search.estimate(chosen) if phase.on_device]
    largest = max(phases, key=lambda phase: phase.total)
    text = f"{search.limit} chooses {', '.join(told) or 'nothing that saves memory'}"
    text += f": {largest.phase}, its largest phase, needs {format_bytes(largest.total)}"
    if missed is None:
        return text
    faster, phase = search.applied(missed[0]), missed[1]
    other = [name for name in PLAIN if value_of(faster, name) != value_of(chosen, name)]
    bearing = [name for name in other if search.bears(name, value_of(chosen, name), faster, phase)]
    instead = ", ".join(f"{name} {word(value_of(faster, name))}" for name in bearing or other)
    return f"{text}; with {instead}, {phase.phase} would need {format_need(phase.total, search.limit.size)}"


def _told(name: str, search: _Search, chosen: TrainConfig) -> str:
    """The chosen value where it is not the fastest, or takes the place of what a preset asks for."""
    value, asked, source = value_of(chosen, name), value_of(search.config, name), search.sources.get(name, "default")
    if value != asked and source.startswith("preset "):
        return f"{name} {word(value)} (instead of {word(asked)} from {source})"
    return f"{name} {word(value)}" if value != PLAIN[name] else ""


def _nothing_fits(search: _Search, least: tuple[Values, PhaseMemory] | None, machine: Machine) -> Exception:
    if least is None:
        problem = "nothing is left to choose: all that saves memory is set by hand, or does not work together"
        hint = "leave the budget out, or some of " + ", ".join(sorted(search.fixed))
        return ConfigError([Fault(NAME, problem, "", hint)])
    values, phase = least
    return MachineError(
        f"nothing fits {search.limit}: with the smallest choice that is left, {phase.phase} needs "
        f"{format_need(phase.total, search.limit.size)} on {phase.device}",
        hint=_hint(search, search.applied(values), phase, machine),
    )


def _hint(search: _Search, least: TrainConfig, phase: PhaseMemory, machine: Machine) -> str:
    """What would make ``phase`` smaller: first what is set by hand and stands in the way, then what is asked for."""
    (beside, size), *_ = phase.lines
    if size >= search.limit.size:
        return f"more than {format_bytes(size)} are needed for the {beside} alone"
    given = [name for name in _set_by_hand(search) if _stands_in_the_way(name, search, least, phase, machine)]
    ways = [f"leave out {' and '.join(given)}"] if given else []
    data, cache = least.data, least.cache
    batch = ("train_batch_size",) if data.train_batch_size > 1 else ()
    lower = {
        TEXTS: ("text_encoder_batch_size",) if cache.text_encoder_batch_size > 1 else (),
        LATENTS: (*(("vae_batch_size",) if cache.vae_batch_size > 1 else ()), "resolution", "num_frames"),
        TRAINING: (*batch, "resolution", "num_frames", "lora_rank"),
        EVALUATION: (*batch, "resolution", "num_frames"),
        VALIDATION: ("validation_resolution", "validation_num_video_frames"),
    }.get(phase.phase, ())
    if lower:
        ways.append("lower " + " or ".join([", ".join(lower[:-1]), lower[-1]] if len(lower) > 1 else lower))
    return ", or ".join(ways) or f"a device with more memory is needed: {phase.phase} cannot be made smaller"


def _set_by_hand(search: _Search) -> list[str]:
    """What the budget decides on, and the other options of formats and memory, where somebody has set them."""
    others = [name for name, option in options().items() if option.section in ("precision", "memory")]
    names = dict.fromkeys([*PLAIN, *(name for name in others if name != NAME)])
    return [name for name in names if is_explicit(search.sources.get(name, "default"))]


def _stands_in_the_way(name: str, search: _Search, least: TrainConfig, phase: PhaseMemory, machine: Machine) -> bool:
    """Whether ``phase`` would be smaller with another value of what is set by hand."""
    for values in _smaller(name, search, machine):
        config = with_values(least, values)
        before = {str(fault) for fault in conflict_faults(least, search.sources)}
        if any(str(fault) not in before for fault in conflict_faults(config, search.sources)):
            continue
        if search.need(config, phase.phase) < phase.total:
            return True
    return False


def _smaller(name: str, search: _Search, machine: Machine) -> Iterator[Values]:
    """Values of ``name`` that may take less, with what they need beside them."""
    found = [values for values in savings(machine) if name in values]
    yield from ({**search.free(values), name: values[name]} for values in found or [{name: options()[name].default}])


def word(value: object) -> str:
    """A value as it is written in a file."""
    if value is None:
        return "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)
