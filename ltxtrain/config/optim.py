"""The optimiser, the length of the run, the learning rate over it, and the moving average."""

from __future__ import annotations

import math
from typing import Literal

from ltxtrain.config.option import Section, option

OptimizerName = Literal[
    "adamw_bf16",
    "torch-adam",
    "torch-adamw",
    "torch-sgd",
    "torch-radam",
    "torch-nadam",
    "torch-rmsprop",
    "torch-adagrad",
    "torch-adadelta",
    "torch-adafactor",
    "torch-adamax",
    "torch-asgd",
    "torch-sparseadam",
    "ao-adamw8bit",
    "ao-adamw4bit",
    "ao-adamfp8",
    "ao-adamwfp8",
    "adamw_schedulefree",
    "adamw_schedulefree+aggressive",
    "adamw_schedulefree+no_kahan",
    "optimi-stableadamw",
    "optimi-adamw",
    "optimi-lion",
    "optimi-radam",
    "optimi-ranger",
    "optimi-adan",
    "optimi-adam",
    "optimi-sgd",
    "bnb-adagrad",
    "bnb-adagrad8bit",
    "bnb-adam",
    "bnb-adam8bit",
    "bnb-adamw",
    "bnb-adamw8bit",
    "bnb-adamw-paged",
    "bnb-adamw8bit-paged",
    "bnb-lion",
    "bnb-lion8bit",
    "bnb-lion-paged",
    "bnb-lion8bit-paged",
    "bnb-ademamix",
    "bnb-ademamix8bit",
    "bnb-ademamix-paged",
    "bnb-ademamix8bit-paged",
    "soap",
    "muon",
    "prodigy",
    "sdnq-adamw",
    "sdnq-adamw+no_quant",
    "sdnq-adafactor",
    "sdnq-came",
    "sdnq-lion",
    "sdnq-muon",
    "sdnq-muon+quantized_matmul",
]

SchedulerName = Literal[
    "linear",
    "sine",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "cosine_half_period",
]


class OptimizerConfig(Section):
    optimizer: OptimizerName = option("torch-adamw", "The optimiser.", documented="adamw_bf16")
    learning_rate: float = option(1e-4, "The highest learning rate of the run.", gt=0, le=10, documented=4e-7)
    optimizer_beta1: float | None = option(None, "The optimiser's first beta; give both or neither.", ge=0, lt=1)
    optimizer_beta2: float | None = option(None, "The optimiser's second beta; give both or neither.", ge=0, lt=1)
    optimizer_config: str | None = option(
        None, "Settings of the optimiser as 'name=value,name=value', such as weight_decay=0.01,eps=1e-8."
    )
    optimizer_release_gradients: bool = option(
        False, "Update each weight as soon as its gradient is there, and free that."
    )
    optimizer_cpu_offload_method: Literal["none", "optim-ds", "torchao"] = option(
        "none", "Keep the optimiser's states in main memory, and compute its update there; saves memory at high ranks."
    )
    optimizer_offload_gradients: bool = option(
        False, "Send each gradient to main memory as soon as it is there, where the update is computed there."
    )
    fuse_optimizer: bool = option(
        False, "Use the optimiser's fused kernel, which optimi-* have for GPUs alone; of ao-* ones, compile the step."
    )
    adam_beta1: float = option(0.9, "The first beta of DeepSpeed's Adam.", ge=0, lt=1)
    adam_beta2: float = option(0.999, "The second beta of DeepSpeed's Adam.", ge=0, lt=1)
    adam_epsilon: float = option(1e-8, "The epsilon of DeepSpeed's Adam.", gt=0)
    adam_weight_decay: float = option(1e-2, "The weight decay of DeepSpeed's Adam.", ge=0)
    max_grad_norm: float = option(1.0, "Clip gradients above this; 0 clips nothing.", ge=0, documented=2.0)
    grad_clip_method: Literal["norm", "value"] = option(
        "norm", "Clip the norm of all gradients together, or each value alone.", documented="value"
    )
    gradient_accumulation_steps: int = option(
        1, "Add up gradients over this many batches before each step.", ge=1, le=65536
    )
    lr_scale: bool = option(
        False, "Multiply the learning rate by train_batch_size times gradient_accumulation_steps; lr_end stays."
    )
    lr_scale_sqrt: bool = option(False, "With lr_scale, multiply by its square root instead.")

    def peak_rate(self, effective_batch: int) -> float:
        """The highest learning rate of a run with so many clips in each step, as ``lr_scale`` asks for it."""
        if not self.lr_scale:
            return self.learning_rate
        return self.learning_rate * (math.sqrt(effective_batch) if self.lr_scale_sqrt else effective_batch)


class ScheduleConfig(Section):
    max_train_steps: int = option(0, "Train for this many optimiser steps; 0 leaves it to num_train_epochs.", ge=0)
    num_train_epochs: int = option(0, "Train for this many passes over the clips.", ge=0, documented=1)
    strict_epoch_limit: bool = option(False, "End at the last epoch even when steps are left.")
    lr_scheduler: SchedulerName = option(
        "constant_with_warmup",
        "How the learning rate moves. cosine warms up, then falls; cosine_half_period is what the guides call cosine.",
    )
    lr_warmup_steps: int = option(
        0,
        "Raise the learning rate from zero over this many steps; for sine and cosine_half_period, half a period "
        "(0 is 1000 steps).",
        ge=0,
    )
    lr_end: float = option(4e-7, "The lowest learning rate of the falling curves; linear falls to 0.", ge=0)
    lr_power: float = option(0.8, "The power of the polynomial curve.", gt=0)
    lr_num_cycles: int = option(1, "How often cosine_with_restarts starts over.", ge=1)


class EmaConfig(Section):
    use_ema: bool = option(False, "Keep a moving average of the adapter, and validate with it.")
    ema_decay: float = option(0.995, "How slowly the average moves.", ge=0, le=0.9999)
    ema_update_interval: int = option(1, "Update the average each so many steps.", ge=1)
    ema_warmup_steps: int = option(0, "Start the average after this many steps.", ge=0)
    ema_device: Literal["cpu", "accelerator"] = option("cpu", "Where the average is kept.")
    ema_cpu_only: bool = option(False, "Never move the average off the CPU.")
    ema_foreach_disable: bool = option(False, "Update the average tensor by tensor.")
    ema_validation: Literal["none", "ema_only", "comparison"] = option(
        "comparison", "Validate without the average, with it, or both ways."
    )
