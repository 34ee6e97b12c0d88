"""The records that a run emits. Listeners read them; nothing flows back.

A run yields, in this order: ``Notice`` and ``StageStarted`` / ``StageProgress`` / ``StageDone`` for each stage,
``MemoryMeasured`` for each phase, ``StepDone`` for each optimiser step, ``CheckpointSaved``, ``EvalLoss`` and
``VideoRendered`` in between, ``Exported`` for each file that is meant to be used, and ``RunFinished`` last.
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Stages that are phases of the plan's memory estimate, too; and one that is only that.
TEXTS, LATENTS, TRAINING = "text embeddings", "latents", "training"
EVALUATION, VALIDATION = "evaluation", "validation"
LOADING = "loading"
MAIN_MEMORY = "main memory"  # where a phase of the estimate takes it, beside a device that has its own


@dataclass(frozen=True)
class Notice:
    """Something that the user should know. ``level`` is ``"info"`` or ``"warning"``."""

    message: str
    level: str = "info"


@dataclass(frozen=True)
class StageStarted:
    """A stage (``LATENTS``, ``TRAINING``, ...) begins; ``done`` of ``total`` is there already."""

    stage: str
    total: int | None = None
    done: int = 0
    unit: str = ""


@dataclass(frozen=True)
class StageProgress:
    stage: str
    done: int
    detail: str = ""


@dataclass(frozen=True)
class StageDone:
    stage: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True)
class StepDone:
    """One optimiser step. ``step`` counts from 1.

    ``sigma_bands`` holds the mean loss for each quarter of sigma that was drawn, as ``{"0.25-0.50": 1.31, ...}``;
    ``grad_norm`` is the global L2 norm before clipping; ``memory_bytes`` is the peak so far (device memory on an
    accelerator, resident memory on the CPU). ``dataset`` names the data sets that supplied the step's batches, and
    ``dataset_losses`` holds the mean loss of each. ``seconds`` go from the end of the step before to the end of this
    one; of the first step, and after a checkpoint or an evaluation, from its own beginning. ``data_seconds`` are how
    long the program waited for latents and captions, at most ``seconds``: a GPU may have computed the step before
    meanwhile. ``tflops`` are useful operations a second, in 10^12, and ``mfu`` is their share of what the device can
    do, None where that is not known.
    """

    step: int
    total: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float
    samples_per_second: float
    sigma_bands: dict[str, float] = field(default_factory=dict)
    memory_bytes: int | None = None
    dataset: str = ""
    dataset_losses: dict[str, float] = field(default_factory=dict)
    data_seconds: float = 0.0
    tflops: float | None = None
    mfu: float | None = None


@dataclass(frozen=True)
class EvalLoss:
    """The loss on a data set that is held out, at fixed sigmas and with fixed noise: comparable from step to step.

    ``by_sigma`` is ``{"0.125": 0.91, ...}``. ``dataset`` is ``POOLED`` for all of them together.
    """

    step: int
    dataset: str
    loss: float
    by_sigma: dict[str, float]
    seconds: float


POOLED = "all data sets"
EVALUATIONS = "evaluations.jsonl"  # in the run folder: a line for each of these events


@dataclass(frozen=True)
class MemoryMeasured:
    """The peak of one phase, beside its estimate. Bytes.

    ``phase`` and ``device`` are those of the plan's estimate, ``estimate`` its total, None where the plan has none.
    ``allocated`` and ``reserved`` are what torch had in tensors and in all, None where it does not count (on the CPU);
    ``device_used`` is all that was in use: on a GPU with the context and other programs, else what was resident of the
    process. ``where`` is "probe" for a trial of the largest batch, before the phase or as its first, and "run" for the
    phase as it was; ``detail`` says what was tried.
    """

    phase: str
    device: str
    estimate: int | None
    allocated: int | None
    reserved: int | None
    device_used: int
    where: str
    detail: str = ""


@dataclass(frozen=True)
class CheckpointSaved:
    """Emitted only after the checkpoint is committed. ``path`` is relative to the run folder."""

    step: int
    path: str
    bytes: int
    seconds: float


@dataclass(frozen=True)
class VideoRendered:
    """A validation video. ``video`` and ``poster`` are relative to the run folder."""

    step: int
    name: str
    prompt: str
    video: str
    poster: str
    seconds: float


@dataclass(frozen=True)
class Exported:
    """A file for use elsewhere. ``kind`` is its layout and dtype: ``"diffusers fp32"``, ``"comfyui bf16"``, ..."""

    kind: str
    path: str


@dataclass(frozen=True)
class RunFinished:
    steps: int
    seconds: float


Event = (
    Notice
    | StageStarted
    | StageProgress
    | StageDone
    | StepDone
    | EvalLoss
    | MemoryMeasured
    | CheckpointSaved
    | VideoRendered
    | Exported
    | RunFinished
)
