"""What training holds in memory, and how it comes there."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch

from ltxtrain.data.prepared import Prepared
from ltxtrain.events import TRAINING, Event, MemoryMeasured, Notice, StageDone, StageStarted
from ltxtrain.learn.device import check_dtype, find_device, memory_advice
from ltxtrain.learn.identity import about, identity_of
from ltxtrain.learn.loss_scale import LossScale
from ltxtrain.learn.memory import Meter, forget_host_peak
from ltxtrain.learn.optimizers import make_optimizer
from ltxtrain.learn.shortage import needs
from ltxtrain.learn.signals import StopFlag
from ltxtrain.learn.throughput import Gauge, make_gauge
from ltxtrain.model.adapter import adapter_spec
from ltxtrain.model.assemble import Place, assemble_transformer, base_dtype
from ltxtrain.model.folder import ModelFolder, locate_model, scheduler_config
from ltxtrain.model.offload import Offload
from ltxtrain.model.transformer import facts_of
from ltxtrain.plan.flops import Trained
from ltxtrain.plan.folder import RunFolder
from ltxtrain.plan.length import batches_of_run
from ltxtrain.plan.order import BatchOrder, order_of
from ltxtrain.plan.records import DatasetPlan, Plan
from ltxtrain.training.memory import measured_loading


@dataclass(frozen=True)
class Run:
    """What training holds in memory."""

    plan: Plan
    prepared: Prepared
    folder: RunFolder
    model: ModelFolder
    device: torch.device
    dtype: torch.dtype
    meter: Meter
    transformer: Any
    parameters: dict[str, torch.nn.Parameter]
    offload: Offload
    optimizer: torch.optim.Optimizer
    loss_scale: LossScale | None  # in float16 alone
    gauge: Gauge
    order: BatchOrder
    batches: int  # in all steps together
    datasets: dict[str, DatasetPlan]
    scheduler: dict[str, Any]
    identity: dict[str, str]
    about: dict[str, Any]


def load_run(
    plan: Plan, prepared: Prepared, stop: StopFlag
) -> Generator[Event, None, tuple[Run, list[MemoryMeasured]]]:
    """Transformer, adapter and optimiser, and what loading them took. Nothing is written into the run's folder.

    A signal leaves at once while the transformer is put together.
    """
    yield StageStarted("transformer")
    started = time.perf_counter()
    config, spec = plan.config, adapter_spec(plan.config.adapter)
    device = find_device(config.speed.torch_num_threads)
    asked = check_dtype(device, config.precision.mixed_precision, config.precision.vae_dtype)
    dtype = base_dtype(config.precision, asked)
    meter = Meter(device)
    forget_host_peak()
    meter.enter(TRAINING)
    advice = needs(plan, TRAINING, device)
    with stop.at_once("training has not begun"), memory_advice("placing the transformer", advice):
        model = locate_model(config.model, plan.cache_dir)
        trainable = assemble_transformer(model, config, Place(device, dtype), spec)
    yield from (Notice(sentence) for sentence in trainable.told)
    transformer = trainable.transformer
    order = order_of(plan)
    run = Run(
        plan=plan,
        prepared=prepared,
        folder=RunFolder(plan.run_dir),
        model=model,
        device=device,
        dtype=dtype,
        meter=meter,
        transformer=transformer,
        parameters=trainable.parameters,
        offload=trainable.offload,
        optimizer=make_optimizer(trainable.parameters, config.optimizer, config.model.seed),
        loss_scale=LossScale() if dtype == torch.float16 else None,
        gauge=make_gauge(facts_of(transformer), Trained(spec.rank, spec.targets), device, config.precision),
        order=order,
        batches=batches_of_run(plan, order),
        datasets={dataset.id: dataset for dataset in plan.datasets},
        scheduler=scheduler_config(model),
        identity=identity_of(plan, spec) | {"base model": prepared.digests["transformer"]},
        about=about(plan, spec, model, prepared.digests["transformer"]),
    )
    count = sum(parameter.numel() for parameter in run.parameters.values())
    loading = measured_loading(plan, device)
    yield StageDone("transformer", time.perf_counter() - started, f"{count:,} trainable parameters on {device}")
    return run, loading
