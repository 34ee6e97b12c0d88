"""The LoRA adapter: attach it, read its weights, put weights back, switch it off. The only door to peft."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open

from ltxtrain.config.model import AdapterConfig
from ltxtrain.errors import ModelError
from ltxtrain.facts.digests import sha256_of
from ltxtrain.model.layouts import DIFFUSERS_PREFIX
from ltxtrain.plan.targets import lora_targets

ADAPTER_NAME = "default"
LORA_PARTS = (".lora_A.weight", ".lora_B.weight")


@dataclass(frozen=True)
class AdapterSpec:
    """What shapes an adapter: rank, alpha, dropout, the modules it sits on, and how its first factor is drawn."""

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    init: str = "default"

    def peft_config(self) -> dict[str, object]:
        """The part that a loader needs, as diffusers stores it in a file's metadata."""
        return {"r": self.rank, "lora_alpha": self.alpha, "target_modules": list(self.targets), "lora_dropout": 0.0}


def adapter_spec(section: AdapterConfig) -> AdapterSpec:
    """The adapter that the configuration asks for. Raises ``ConfigError`` for an unreadable list of target modules."""
    return AdapterSpec(
        rank=section.lora_rank,
        alpha=section.alpha(),
        dropout=section.lora_dropout,
        targets=lora_targets(section),
        init=section.lora_init_type,
    )


def attach_adapter(
    transformer: LTXVideoTransformer3DModel, spec: AdapterSpec, seed: int, dtype: torch.dtype = torch.float32
) -> dict[str, torch.nn.Parameter]:
    """Freeze the base, add the adapter in ``dtype``, and return its parameters by name, in a fixed order.

    The first factor is drawn from ``seed`` and the second is zero, so that the model's output is unchanged at the start
    (Hu et al. 2021). Raises ``ModelError`` when a target names no module.
    """
    modules = _linear_modules(transformer)
    for target in spec.targets:
        if not any(_is_target(name, (target,)) for name in modules):
            raise ModelError(
                f"no module of the transformer is called {target!r} (from peft_lora_target_modules)",
                hint="the linear modules are called " + ", ".join(sorted({_tail(name) for name in modules})),
            )
    transformer.requires_grad_(False)
    config = LoraConfig(
        r=spec.rank,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        target_modules=list(spec.targets),
        init_lora_weights="gaussian" if spec.init == "gaussian" else True,
    )
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: that would seed every GPU as well, which fork_rng would not put back.
        torch.default_generator.manual_seed(int(sha256_of("adapter", seed)[:15], 16))
        transformer.add_adapter(config, adapter_name=ADAPTER_NAME)
    parameters = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.to(dtype)
    for module in transformer.modules():
        if isinstance(module, LoraLayer):
            module._cast_input_dtype = _cast_input
    return dict(sorted(parameters.items()))


def _cast_input(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x`` as an adapter of ``dtype`` takes it, in place of peft's own rule.

    Under autocast that is as it is: cast up it would be cast down again at once, for the same values, and each layer
    would keep a copy of its own for the backward pass.
    """
    return x if torch.is_autocast_enabled(x.device.type) else x.to(dtype)


def _linear_modules(transformer: LTXVideoTransformer3DModel) -> dict[str, torch.nn.Linear]:
    return {name: module for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)}


def _is_target(name: str, targets: Iterable[str]) -> bool:
    """peft's rule for a list of targets: the whole name, or its end after a dot."""
    return any(name == target or name.endswith(f".{target}") for target in targets)


def _tail(name: str) -> str:
    """``transformer_blocks.0.attn1.to_out.0`` -> ``to_out.0``."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]


def adapter_weights(transformer: LTXVideoTransformer3DModel) -> dict[str, torch.Tensor]:
    """The adapter as float32 copies on the CPU, in the order of their names.

    ``{"transformer_blocks.0.attn1.to_q.lora_A.weight": [rank, in], "...lora_B.weight": [out, rank]}``
    """
    state = get_peft_model_state_dict(transformer, adapter_name=ADAPTER_NAME)
    return {name: state[name].detach().to("cpu", torch.float32).clone().contiguous() for name in sorted(state)}


def load_adapter_weights(transformer: LTXVideoTransformer3DModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights of ``adapter_weights`` back. Raises ``ModelError`` unless names and shapes match exactly."""
    here = {name: tuple(tensor.shape) for name, tensor in adapter_weights(transformer).items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(here.keys() | given.keys()):
        if here.get(name) != given.get(name):
            raise ModelError(
                f"the adapter's weights do not fit: {name} is {given.get(name, 'absent')} "
                f"and should be {here.get(name, 'absent')}",
                hint="go on with the model, lora_rank and peft_lora_target_modules that they were trained with",
            )
    set_peft_model_state_dict(transformer, dict(weights), adapter_name=ADAPTER_NAME)


@contextmanager
def adapter_off(transformer: LTXVideoTransformer3DModel) -> Iterator[None]:
    """Inside, the transformer computes exactly what the untouched base model does."""
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()


def load_exported(pipeline: LTXPipeline, path: Path) -> None:
    """Load an exported file through diffusers. Raises ``ModelError`` unless every weight finds its place.

    diffusers itself only warns when weights are left over, says nothing when some are missing, and rounds them to the
    base model's dtype. Here they have the dtype that they were trained in, which the file tells: in any other they
    would give other frames than the run's own validation.
    """
    shapes, targets, dtype = _read_exported(path)
    modules = _linear_modules(pipeline.transformer)
    expected = {f"{name}{part}" for name in modules if _is_target(name, targets) for part in LORA_PARTS}
    if targets and expected != shapes.keys():
        raise _misfit(path, f"it has {len(shapes)} weights and this model has room for {len(expected)}")
    for name, shape in shapes.items():
        part = next((part for part in LORA_PARTS if name.endswith(part)), None)
        module = modules.get(name.removesuffix(part)) if part else None
        if module is None:
            raise _misfit(path, f"there is no place for {name}")
        width = module.in_features if part == LORA_PARTS[0] else module.out_features
        found = shape[-1] if part == LORA_PARTS[0] else shape[0]
        if len(shape) != 2 or found != width:
            raise _misfit(path, f"{name} is made for {found} channels and the module has {width}")
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=ADAPTER_NAME)
    for name, parameter in pipeline.transformer.named_parameters():
        if f".{ADAPTER_NAME}." in name:
            parameter.data = parameter.data.to(dtype)
    with safe_open(path, "pt") as file:
        weights = {name: file.get_tensor(f"{DIFFUSERS_PREFIX}{name}") for name in shapes}
    load_adapter_weights(pipeline.transformer, weights)


def _read_exported(path: Path) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...], torch.dtype]:
    """Shapes by name without diffusers' prefix; the target modules if the file tells them, and the dtype in training,
    which is float32 unless it does."""
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
            told = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="name an exported .safetensors file") from error
    if not shapes or not all(name.startswith(DIFFUSERS_PREFIX) for name in shapes):
        raise ModelError(
            f"{path} is not an adapter in diffusers' layout",
            hint="name pytorch_lora_weights.safetensors of a run's export",
        )
    bare = {name.removeprefix(DIFFUSERS_PREFIX): shape for name, shape in shapes.items()}
    dtype = torch.bfloat16 if metadata.get("adapter_dtype") == "bfloat16" else torch.float32
    return bare, tuple(told.get(f"{DIFFUSERS_PREFIX}target_modules", ())), dtype


def _misfit(path: Path, reason: str) -> ModelError:
    return ModelError(f"{path} does not fit the base model: {reason}", hint="render with the model it was trained on")
