"""What optimisers cannot be combined with."""

from __future__ import annotations

from collections.abc import Iterator

from ltxtrain.config.conflict import Conflict
from ltxtrain.config.optim import OptimizerConfig
from ltxtrain.config.optimizer_settings import parse_optimizer_settings
from ltxtrain.config.optimizers import OPTIMIZERS, TRITON, clips, settings_of, taken_words
from ltxtrain.config.schema import TrainConfig

LEAST_PRODIGY_RATE = 0.01
OFFLOAD, SEND, RELEASE = "optimizer_cpu_offload_method", "optimizer_offload_gradients", "optimizer_release_gradients"


def optimizer_conflicts(config: TrainConfig) -> Iterator[Conflict]:
    """Names and settings."""
    section = config.optimizer
    name, facts = section.optimizer, OPTIMIZERS[section.optimizer]
    if facts.verdict.refused:
        yield Conflict(
            ("optimizer",), f"{name} is refused: {facts.verdict.why}", f"the nearest is {facts.verdict.instead}"
        )
        return
    yield from _settings(section)
    if section.fuse_optimizer and not facts.fuses:
        able = ", ".join(each for each, row in OPTIMIZERS.items() if row.fuses)
        yield Conflict(("optimizer", "fuse_optimizer"), f"{name} has no fused kernel", f"leave it out, or use {able}")
    if facts.library == "schedulefree":
        scheduler = config.schedule.lr_scheduler
        if scheduler not in ("constant", "constant_with_warmup"):
            yield Conflict(
                ("optimizer", "lr_scheduler"),
                f"{name} averages the weights in place of a falling rate, and lr_scheduler is {scheduler}",
                "set lr_scheduler to constant_with_warmup",
            )
        if section.optimizer_beta1 == 0:
            yield Conflict(("optimizer", "optimizer_beta1"), f"{name} needs an optimizer_beta1 above 0", "leave it out")
    peak = section.peak_rate(config.data.train_batch_size * section.gradient_accumulation_steps)
    if name == "prodigy" and peak < LEAST_PRODIGY_RATE:
        yield Conflict(
            ("optimizer", "learning_rate"),
            f"prodigy finds the step size by itself and multiplies it by learning_rate, which is {peak:g}",
            "set learning_rate to 1",
        )
    if section.lr_scale and config.data.train_batch_tokens:
        yield Conflict(
            ("lr_scale", "train_batch_tokens"),
            "lr_scale needs batches of one size, and train_batch_tokens makes them differ",
            "set lr_scale to false",
        )


def _settings(optimizer: OptimizerConfig) -> Iterator[Conflict]:
    text, name = optimizer.optimizer_config, optimizer.optimizer
    try:
        parse_optimizer_settings(text)
    except ValueError as error:
        yield Conflict(("optimizer_config",), str(error), "write name=value,name=value")
        return
    try:
        settings_of(name, text)
    except ValueError as error:
        yield Conflict(("optimizer", "optimizer_config"), str(error), taken_words(name, text))


def gradient_conflicts(config: TrainConfig) -> Iterator[Conflict]:
    """Where the update is computed, and when each gradient is taken."""
    section = config.optimizer
    method, sends, releases = (
        section.optimizer_cpu_offload_method,
        section.optimizer_offload_gradients,
        section.optimizer_release_gradients,
    )
    if method == "optim-ds":
        yield Conflict((OFFLOAD,), "optim-ds is DeepSpeed's, which is not used here", f"set {OFFLOAD} to torchao")
    if method != "none":
        yield from _offloaded(section)
    if releases:
        yield from _released(section)
    if not releases and not (sends and method != "none"):
        return
    taken, name = ("used up", RELEASE) if releases else ("sent", SEND)
    if section.gradient_accumulation_steps > 1:
        yield Conflict(
            (name, "gradient_accumulation_steps"),
            f"gradients that are {taken} as soon as they are there cannot add up over several batches",
            f"set gradient_accumulation_steps to 1, or {name} to false",
        )
    if config.precision.mixed_precision == "fp16":
        yield Conflict(
            (name, "mixed_precision"),
            f"in fp16 a step may have to be computed again, and the gradients are {taken} before that is known",
            f"set mixed_precision to bf16, or {name} to false",
        )


def _offloaded(section: OptimizerConfig) -> Iterator[Conflict]:
    name, facts = section.optimizer, OPTIMIZERS[section.optimizer]
    if facts.paged:
        yield Conflict(
            ("optimizer", OFFLOAD),
            f"the states of {name} move to main memory by themselves, page by page",
            f"use {name.removesuffix('-paged')}, or leave {OFFLOAD} out",
        )
    if section.fuse_optimizer and facts.fuses == TRITON:
        yield Conflict(
            ("fuse_optimizer", OFFLOAD),
            f"the fused step of {name} is a kernel for GPUs, and {OFFLOAD} has the step computed in main memory",
            "set fuse_optimizer to false",
        )


def _released(section: OptimizerConfig) -> Iterator[Conflict]:
    name = section.optimizer
    if section.optimizer_cpu_offload_method != "none":
        yield Conflict(
            (OFFLOAD, RELEASE),
            "gradients that are used up on the device never come to main memory, where the update would be computed",
            f"set {SEND} to true in place of {RELEASE}",
        )
    if name == "prodigy":
        yield Conflict(
            ("optimizer", RELEASE), "prodigy compares the gradients of all weights", f"set {RELEASE} to false"
        )
    elif clips(name) and section.max_grad_norm > 0 and section.grad_clip_method == "norm":
        yield Conflict(
            ("max_grad_norm", RELEASE),
            "the norm of all gradients is known only once the first of them are used up",
            "set max_grad_norm to 0, or grad_clip_method to value",
        )
