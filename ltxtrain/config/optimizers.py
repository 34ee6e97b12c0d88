"""Every documented optimiser: whether it works and where, what it takes, and the memory that its state needs.

No torch here: the plan reads this table before anything is loaded, and ``learn/optimizers`` builds what it says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Final, Literal

from ltxtrain.config.optimizer_settings import (
    Setting,
    is_whole,
    parse_optimizer_settings,
    range_words,
    spelled,
    takes,
)
from ltxtrain.config.verdicts import Verdict

Library = Literal[
    "own", "torch", "bitsandbytes", "torchao", "optimi", "schedulefree", "prodigyopt", "pytorch_optimizer"
]


@dataclass(frozen=True)
class OptimizerFacts:
    """One optimiser.

    ``settings`` are what ``optimizer_config`` takes, with their defaults; a whole number there takes whole numbers
    only. ``betas`` are the defaults of ``optimizer_beta1`` and ``optimizer_beta2``, None where there are none.
    ``state`` is the bytes of state for each trained value, and ``small_state`` that of tensors below ``coded_from``
    values, which 8-bit optimisers keep in full precision. ``grows`` says how many bytes a setting adds when it is on,
    and ``state_words`` what there is to the state that no number of bytes for each value tells.
    ``dtype`` is that of the trained weights: float32, or bfloat16 where the optimiser carries the rounding error along.
    ``clips`` is false for those that bound their own updates: gradients are not clipped then.
    ``fuses`` says what ``fuse_optimizer`` does, empty where it can do nothing. ``paged`` says that the state of large
    tensors may move to main memory, and ``waits`` that the step reads back from the device for each trained tensor.
    """

    library: Library
    verdict: Verdict = field(default_factory=Verdict)
    settings: Mapping[str, Setting] = field(default_factory=dict)
    betas: tuple[float, float] | None = (0.9, 0.999)
    state: float = 0.0
    small_state: float = 0.0
    coded_from: int = 0
    grows: Mapping[str, float] = field(default_factory=dict)
    state_words: str = ""
    dtype: Literal["float32", "bfloat16"] = "float32"
    clips: bool = True
    fuses: str = ""
    paged: bool = False
    waits: bool = False


DECAY: Final = 1e-2
FUSED: Final = "torch's fused kernel"
COMPILED: Final = "the step is compiled, which needs Triton and a C compiler"
TRITON: Final = "optimi's Triton kernel"
_ROUNDED_SUMS: Final = "gradients of several batches to a step add up in bfloat16: 64 of them are 1 % off"


def _torch(
    state: float, *, fuses: str = "", betas: tuple[float, float] | None = (0.9, 0.999), **settings: Setting
) -> OptimizerFacts:
    grows = {name: 4.0 for name in settings if name in ("amsgrad", "momentum", "centered")}
    return OptimizerFacts("torch", Verdict(), settings, betas, state, grows=grows, fuses=fuses)


def _refused(why: str, instead: str) -> OptimizerFacts:
    return OptimizerFacts("own", Verdict(on=(), why=why, instead=instead), betas=None)


def _optimi(buffers: int, betas: tuple[float, float] | None = (0.9, 0.99), **settings: Setting) -> OptimizerFacts:
    """``buffers`` in bfloat16, and one more that holds what rounding took from the weights (Kahan 1965)."""
    why = f"the adapter is kept in bfloat16, with Kahan's compensation; {_ROUNDED_SUMS}"
    grows = {"momentum": 2.0} if "momentum" in settings else {}
    verdict = Verdict(needs="torch-optimi", why=why, instead="torch-adamw")
    state = 2.0 * (buffers + 1)
    return OptimizerFacts("optimi", verdict, settings, betas, state, grows=grows, dtype="bfloat16", fuses=TRITON)


BLOCK: Final = 256  # values that share one float32 scale in an 8-bit state
SMALLEST_CODED: Final = 4096  # bitsandbytes' and torchao's: smaller tensors keep float32 states
SMALLEST_PAGED: Final = 100_000  # bitsandbytes': states of tensors with fewer values stay on the GPU
_PAGED: Final = (
    f"states of tensors from {SMALLEST_PAGED:,} values on may move to main memory when the GPU's is full; where there "
    "are such, each step waits for the GPU"
)


def _bnb(
    buffers: int,
    *,
    coded: bool = False,
    paged: bool = False,
    betas: tuple[float, float] | None = (0.9, 0.999),
    **settings: Setting,
) -> OptimizerFacts:
    full = 4.0 * buffers
    if coded:
        settings["min_8bit_size"] = SMALLEST_CODED
    return OptimizerFacts(
        "bitsandbytes",
        Verdict(
            on=("cuda", "rocm", "cpu"),
            needs="bitsandbytes",
            why=_PAGED if paged else "",
            instead="optimi-lion" if buffers == 1 else "optimi-adamw",
        ),
        settings,
        betas,
        state=buffers * (1 + 4 / BLOCK) if coded else full,
        small_state=full,
        coded_from=SMALLEST_CODED if coded else 0,
        paged=paged,
    )


def _torchao(bytes_per_buffer: float, why: str, capability: tuple[int, int] | None = None) -> OptimizerFacts:
    return OptimizerFacts(
        "torchao",
        Verdict(
            on=("cuda", "rocm", "cpu"),
            needs="torchao",
            capability=capability,
            why=f"{why}; steps run as plain operations, for which no compiler is needed",
            instead="ao-adamw8bit" if capability else "optimi-adamw",
        ),
        {"weight_decay": DECAY, "eps": 1e-8},
        state=2 * bytes_per_buffer,
        small_state=8.0,
        coded_from=SMALLEST_CODED,
        fuses=COMPILED,
    )


def _schedule_free(why: str, weight_decay: float, eps: float) -> OptimizerFacts:
    return OptimizerFacts(
        "schedulefree",
        Verdict(needs="schedulefree", why=why, instead="torch-adamw"),
        {"weight_decay": weight_decay, "eps": eps, "r": 0.0, "weight_lr_power": 2.0},
        state=8.0,
    )


_SDNQ: Final = "it is of the sdnq package, which is under the GPL version 3 alone and cannot be part of this program"
_SIDE: Final = 1024  # longer sides of a tensor get no preconditioner: of an adapter, all but those of its rank
_AVERAGED: Final = "it averages the weights by itself: validation and export use the average"
_LION: Final = (0.9, 0.99)

OPTIMIZERS: Final[Mapping[str, OptimizerFacts]] = MappingProxyType(
    {
        "adamw_bf16": OptimizerFacts(
            "own",
            Verdict(why=f"the adapter is kept in bfloat16, with stochastic rounding and a carry; {_ROUNDED_SUMS}"),
            {"weight_decay": DECAY, "eps": 1e-6},
            state=6.0,
            dtype="bfloat16",
        ),
        "torch-adam": _torch(8, fuses=FUSED, weight_decay=0.0, eps=1e-8, amsgrad=False),
        "torch-adamw": _torch(8, fuses=FUSED, weight_decay=DECAY, eps=1e-8, amsgrad=False),
        "torch-sgd": _torch(0, fuses=FUSED, betas=None, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False),
        "torch-radam": _torch(8, weight_decay=0.0, eps=1e-8, decoupled_weight_decay=False),
        "torch-nadam": _torch(8, weight_decay=0.0, eps=1e-8, momentum_decay=4e-3, decoupled_weight_decay=False),
        "torch-rmsprop": _torch(4, betas=None, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False),
        "torch-adagrad": _torch(
            4, fuses=FUSED, betas=None, lr_decay=0.0, weight_decay=0.0, initial_accumulator_value=0.0, eps=1e-10
        ),
        "torch-adadelta": _torch(8, betas=None, rho=0.9, eps=1e-6, weight_decay=0.0),
        "torch-adafactor": replace(
            _torch(0, betas=None, beta2_decay=-0.8, weight_decay=0.0),
            state_words="rows and columns only",
            waits=True,
        ),
        "torch-adamax": _torch(8, weight_decay=0.0, eps=1e-8),
        "torch-asgd": replace(
            _torch(4, betas=None, lambd=1e-4, alpha=0.75, weight_decay=0.0),
            verdict=Verdict(why="its average of the weights is not used: the weights are those of its last step"),
            waits=True,
        ),
        "torch-sparseadam": _refused(
            "it takes sparse gradients alone, and those of an adapter are dense", "torch-adam"
        ),
        "ao-adamw8bit": _torchao(1 + 4 / BLOCK, "states in 8 bit"),
        "ao-adamw4bit": _torchao(0.5 + 4 / 128, "states in 4 bit"),
        "ao-adamfp8": replace(
            _torchao(1 + 4 / BLOCK, "states in 8-bit floating point", (8, 9)),
            settings={"weight_decay": 0.0, "eps": 1e-8},
        ),
        "ao-adamwfp8": _torchao(1 + 4 / BLOCK, "states in 8-bit floating point", (8, 9)),
        "adamw_schedulefree": _schedule_free(_AVERAGED, DECAY, 1e-8),
        "adamw_schedulefree+aggressive": _schedule_free(
            f"{_AVERAGED}; with less weight decay and a larger epsilon", 1e-3, 1e-6
        ),
        "adamw_schedulefree+no_kahan": _schedule_free(
            f"{_AVERAGED}; weights are in float32, where there is nothing to compensate: all three are without Kahan's",
            1e-3,
            1e-6,
        ),
        "optimi-stableadamw": replace(_optimi(2, weight_decay=DECAY, eps=1e-6), clips=False, waits=True),
        "optimi-adamw": _optimi(2, weight_decay=DECAY, eps=1e-6),
        "optimi-lion": _optimi(1, weight_decay=0.0),
        "optimi-radam": _optimi(2, weight_decay=0.0, eps=1e-6, decouple_wd=False),
        "optimi-ranger": _optimi(3, weight_decay=0.0, eps=1e-6, k=6, alpha=0.5, decouple_wd=True),
        "optimi-adan": _optimi(4, betas=(0.98, 0.92), beta3=0.99, weight_decay=2e-2, eps=1e-6),
        "optimi-adam": _optimi(2, weight_decay=0.0, eps=1e-6, decouple_wd=False),
        "optimi-sgd": _optimi(0, betas=None, momentum=0.0, weight_decay=0.0, dampening=False, decouple_wd=False),
        "bnb-adagrad": _bnb(1, betas=None, weight_decay=0.0, eps=1e-10),
        "bnb-adagrad8bit": _bnb(1, coded=True, betas=None, weight_decay=0.0, eps=1e-10),
        "bnb-adam": _bnb(2, weight_decay=0.0, eps=1e-8),
        "bnb-adam8bit": _bnb(2, coded=True, weight_decay=0.0, eps=1e-8),
        "bnb-adamw": _bnb(2, weight_decay=DECAY, eps=1e-6),
        "bnb-adamw8bit": _bnb(2, coded=True, weight_decay=DECAY, eps=1e-6),
        "bnb-adamw-paged": _bnb(2, paged=True, weight_decay=DECAY, eps=1e-6),
        "bnb-adamw8bit-paged": _bnb(2, coded=True, paged=True, weight_decay=DECAY, eps=1e-6),
        "bnb-lion": _bnb(1, betas=_LION, weight_decay=0.0),
        "bnb-lion8bit": _bnb(1, coded=True, betas=_LION, weight_decay=0.0),
        "bnb-lion-paged": _bnb(1, paged=True, betas=_LION, weight_decay=0.0),
        "bnb-lion8bit-paged": _bnb(1, coded=True, paged=True, betas=_LION, weight_decay=0.0),
        **{
            f"bnb-ademamix{kind}": _bnb(
                3,
                coded=kind.startswith("8bit"),
                paged=kind.endswith("paged"),
                beta3=0.9999,
                alpha=5.0,
                t_alpha=0,
                t_beta3=0,
                weight_decay=DECAY,
                eps=1e-8,
            )
            for kind in ("", "8bit", "-paged", "8bit-paged")
        },
        "soap": OptimizerFacts(
            "pytorch_optimizer",
            Verdict(
                on=("cuda", "rocm", "cpu"),  # Metal computes no eigenvectors
                needs="pytorch-optimizer>=4.1",
                why=f"sides of tensors up to max_precondition_dim are preconditioned: with {_SIDE} those of the rank, "
                "whose eigenvectors cost little; its first step only measures",
                instead="muon",
            ),
            {
                "weight_decay": DECAY,
                "eps": 1e-8,
                "shampoo_beta": 0.95,
                "precondition_frequency": 10,
                "max_precondition_dim": _SIDE,
                "correct_bias": True,
                "normalize_gradient": False,
            },
            betas=(0.95, 0.95),
            state=8.0,
            state_words="8, and two matrices for each short side",
        ),
        "muon": OptimizerFacts(
            "torch",
            Verdict(why="for adapters whose weights are all matrices"),
            {"weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "ns_steps": 5},
            betas=None,
            state=4.0,
        ),
        "prodigy": OptimizerFacts(
            "prodigyopt",
            Verdict(
                needs="prodigyopt",
                why="it finds the step size by itself: set learning_rate to 1; Prodigy as in its paper, no averaging",
                instead="torch-adamw",
            ),
            {
                "weight_decay": 0.0,
                "eps": 1e-8,
                "decouple": True,
                "use_bias_correction": False,
                "safeguard_warmup": False,
                "d0": 1e-6,
                "d_coef": 1.0,
                "slice_p": 1,
            },
            state=14.0,  # of an adapter, whose second factors start at zero: those keep no copy of their start
            clips=False,
            waits=True,
        ),
        "sdnq-adamw": _refused(_SDNQ, "bnb-adamw8bit"),
        "sdnq-adamw+no_quant": _refused(_SDNQ, "torch-adamw"),
        "sdnq-adafactor": _refused(_SDNQ, "torch-adafactor"),
        "sdnq-came": _refused(_SDNQ, "torch-adafactor"),
        "sdnq-lion": _refused(_SDNQ, "bnb-lion8bit"),
        "sdnq-muon": _refused(_SDNQ, "muon"),
        "sdnq-muon+quantized_matmul": _refused(_SDNQ, "muon"),
    }
)
"""One row for each name of ``OptimizerName``."""


def state_bytes(name: str, count: int, shapes: Iterable[tuple[int, ...]] = (), text: str | None = None) -> int:
    """Bytes of the optimiser's state for ``count`` trained values, without what a step needs for a moment.

    ``shapes`` are those of the trained tensors, where known: small ones keep float32 states under 8-bit optimisers,
    Adafactor keeps one value for each row and column, and SOAP two matrices for each side that is short enough. Without
    them all tensors are taken to be large. ``text`` is ``optimizer_config``: some settings add a buffer. Raises
    ValueError when it cannot be read.
    """
    facts = OPTIMIZERS[name]
    given = parse_optimizer_settings(text)
    extra = sum(cost for setting, cost in facts.grows.items() if given.get(setting))
    known = tuple(shapes)
    least = int(given.get("min_8bit_size", facts.coded_from))
    small = sum(size for size in map(prod, known) if size < least)
    sides = sum(sum(shape[-2:]) for shape in known) if name == "torch-adafactor" else 0
    if name == "soap":  # for each side a matrix of what the gradients were, and one of its eigenvectors
        longest = int(given.get("max_precondition_dim", facts.settings["max_precondition_dim"]))
        sides = sum(2 * side**2 for shape in known if len(shape) > 1 for side in shape if side <= longest)
    if name == "prodigy" and (every := int(given.get("slice_p", 1))) > 1:
        return round(count * (8 + 6 / every))
    return round((count - small) * (facts.state + extra) + small * (facts.small_state + extra)) + 4 * sides


def settings_of(name: str, text: str | None) -> dict[str, Setting]:
    """All settings of the optimiser, those of ``text`` included. Raises ValueError for what it cannot take."""
    defaults = OPTIMIZERS[name].settings
    taken, wrong = dict(defaults), []
    for setting, value in parse_optimizer_settings(text).items():
        if setting in defaults and takes(setting, value, defaults[setting]):
            taken[setting] = int(value) if is_whole(defaults[setting]) else value
        else:
            wrong.append(f"{setting}={spelled(value)}")
    if wrong:
        raise ValueError(f"{name} cannot take {', '.join(wrong)}")
    if name == "torch-sgd" and taken["nesterov"] and (not taken["momentum"] or taken["dampening"]):
        raise ValueError(f"{name} takes nesterov with momentum and without dampening alone")
    return taken


def taken_words(name: str, text: str | None) -> str:
    """What those settings of ``text`` take that are out of range; else what there is to set, and where betas are."""
    facts, given = OPTIMIZERS[name], parse_optimizer_settings(text)
    known = {setting: facts.settings[setting] for setting in given if setting in facts.settings}
    wrong = [setting for setting, default in known.items() if not takes(setting, given[setting], default)]
    if wrong and len(known) == len(given):
        return "; ".join(f"{setting} takes {range_words(setting, known[setting])}" for setting in wrong)
    betas = "; its betas are optimizer_beta1 and optimizer_beta2" if facts.betas else ""
    return f"it takes {', '.join(facts.settings)}{betas}"


def adapter_dtype(name: str) -> Literal["float32", "bfloat16"]:
    """The dtype in which the optimiser wants the trained weights."""
    return OPTIMIZERS[name].dtype


def clips(name: str) -> bool:
    """Whether gradients are clipped: not for optimisers that bound their own updates."""
    return OPTIMIZERS[name].clips


def refusal(name: str) -> str | None:
    """Why the optimiser works nowhere, None for one that works somewhere."""
    verdict = OPTIMIZERS[name].verdict
    return verdict.why if verdict.refused else None
