"""The LoRA adapter: attach it, read its weights, put weights back, switch it off. The only door to peft."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open

from ltxtrain.config.model import AdapterConfig
from ltxtrain.errors import ConfigError, Fault, ModelError
from ltxtrain.facts.digests import sha256_of

ADAPTER_NAME = "default"
# The documented targets: the attention projections of every block, self and cross.
DEFAULT_TARGETS = ("to_k", "to_q", "to_v", "to_out.0")


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
    targets = section.peft_lora_target_modules
    if isinstance(targets, Path):
        targets = _read_targets(targets)
    alpha = section.lora_rank if section.lora_alpha is None else section.lora_alpha
    return AdapterSpec(
        section.lora_rank, float(alpha), section.lora_dropout, tuple(targets or DEFAULT_TARGETS), section.lora_init_type
    )


def _read_targets(path: Path) -> tuple[str, ...]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError([Fault("peft_lora_target_modules", f"{path} cannot be read: {error}")]) from error
    if not isinstance(found, list) or not found or not all(isinstance(name, str) for name in found):
        raise ConfigError([Fault("peft_lora_target_modules", "is not a list of module names", str(path))])
    return tuple(found)


def attach_adapter(
    transformer: LTXVideoTransformer3DModel, spec: AdapterSpec, seed: int
) -> dict[str, torch.nn.Parameter]:
    """Freeze the base, add the adapter in float32, and return its parameters by name, in a fixed order.

    The first factor is drawn from ``seed`` and the second is zero, so that the model's output is unchanged at the start
    (Hu et al. 2021). Raises ``ModelError`` when a target names no module.
    """
    modules = [name for name, module in transformer.named_modules() if isinstance(module, torch.nn.Linear)]
    for target in spec.targets:
        if not any(name == target or name.endswith(f".{target}") for name in modules):
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
        torch.manual_seed(int(sha256_of("adapter", seed)[:15], 16))
        transformer.add_adapter(config, adapter_name=ADAPTER_NAME)
    parameters = {name: p for name, p in transformer.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.data = parameter.data.to(torch.float32)
    return dict(sorted(parameters.items()))


def _tail(name: str) -> str:
    """``transformer_blocks.0.attn1.to_out.0`` -> ``to_out.0``."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() and len(parts) > 1 else parts[-1]


def adapter_weights(transformer: LTXVideoTransformer3DModel) -> dict[str, torch.Tensor]:
    """``{"transformer_blocks.0.attn1.to_q.lora_A.weight": [rank, in], ...lora_B.weight: [out, rank]}``, float32 copies on the CPU."""
    state = get_peft_model_state_dict(transformer, adapter_name=ADAPTER_NAME)
    return {name: state[name].detach().to("cpu", torch.float32).clone().contiguous() for name in sorted(state)}


def load_adapter_weights(transformer: LTXVideoTransformer3DModel, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights of ``adapter_weights`` back. Raises ``ModelError`` unless names and shapes match exactly."""
    current = {name: tuple(t.shape) for name, t in adapter_weights(transformer).items()}
    given = {name: tuple(t.shape) for name, t in weights.items()}
    if current != given:
        differing = sorted(set(current.items()) ^ set(given.items()))[:1]
        raise ModelError(f"the adapter's weights do not fit this model or rank (first difference: {differing})")
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
    """Load an exported file through diffusers. Raises ``ModelError`` when it is not in diffusers' layout or does not fit."""
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path} cannot be read: {error}", hint="name an exported .safetensors file") from error
    if not names or not all(name.startswith("transformer.") for name in names):
        raise ModelError(
            f"{path} is not an adapter in diffusers' layout",
            hint="name pytorch_lora_weights.safetensors of a run's export",
        )
    try:
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=ADAPTER_NAME)
    except (ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{path} does not fit the base model: {reason}", hint="render with the model it was trained on"
        ) from error
