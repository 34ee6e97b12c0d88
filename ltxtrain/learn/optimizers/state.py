"""The whole state of an optimiser as plain tensors for a safetensors file, and back, bit for bit.

Labels are ``<state>|<parameter>``, and ``<state>|`` for what belongs to all parameters together. Numbers are tensors
without dimensions whose kind stands in the label, as in ``step#int|``; quantised states are their codes and scales, as
in ``exp_avg.codes|``. ``optimizer:<name>|`` tells whose state it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from ltxtrain.config.optimizers import OPTIMIZERS
from ltxtrain.errors import CheckpointError
from ltxtrain.learn.optimizers.construction import GROUP_STATE, NAME
from ltxtrain.learn.optimizers.main_memory import in_main_memory, trained_by

OWNER = "optimizer:"
WEIGHTS = "trained_weights"
NUMBERS = {"int": int, "float": float, "bool": bool}
BUFFERS_OF = {
    "amsgrad": {"max_exp_avg_sq"},
    "momentum": {"momentum_buffer", "exp_avg"},
    "centered": {"grad_avg"},
}
CODED = ("codes", "scale")  # the parts of torchao's quantised states that change; their maps are constants


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Copies on the CPU of all that the optimiser remembers. ``names`` are of its parameters, in their order.

    Not to be called inside of ``evaluating``: of schedule-free optimisers the trained point is state, too, as the
    adapter that is saved is their average.
    """
    group = optimizer.param_groups[0]
    tensors = {f"{OWNER}{group[NAME]}|": torch.empty(0)}
    library = OPTIMIZERS[group[NAME]].library
    for key in GROUP_STATE.get(library, ()):
        if key in group:
            tensors |= _labelled(key, "", group[key])
    for name, parameter, weight in zip(names, _parameters(optimizer), trained_by(optimizer), strict=True):
        for key, value in _items(optimizer, optimizer.state.get(parameter, {})):
            tensors |= _labelled(key, name, value)
        if library == "schedulefree":
            tensors |= _labelled(WEIGHTS, name, weight)
    return tensors


def load_optimizer_tensors(
    optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what ``optimizer_tensors`` gave; the settings and the learning rate stay those of ``optimizer``.

    Raises ``CheckpointError`` when the state is another optimiser's, or of settings that need other state.
    """
    group = optimizer.param_groups[0]
    check_owner(_owner(tensors), group[NAME])
    _check_buffers(group, tensors)
    _check_start(group, tensors)
    index = dict(zip(names, _parameters(optimizer), strict=True))
    states: dict[str, dict[str, Any]] = {name: {} for name in ("", *names)}
    for label, tensor in tensors.items():
        key, name = label.split("|", 1)
        if not key.startswith(OWNER):
            key, kind = key.split("#", 1) if "#" in key else (key, "")
            states[name][key] = None if kind == "none" else NUMBERS[kind](tensor.item()) if kind else tensor
    for key, value in states.pop("").items():
        group[key] = value.clone() if isinstance(value, torch.Tensor) else value
    with in_main_memory(optimizer):
        for position, (name, parameter) in enumerate(index.items()):
            found = states[name]
            if WEIGHTS in found:
                with torch.no_grad():
                    parameter.copy_(found.pop(WEIGHTS))
            if found:
                optimizer.state[parameter] = _restored(optimizer, position, parameter, found)


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _items(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What of a parameter's state is saved. Empty before the first step."""
    if state and OPTIMIZERS[optimizer.param_groups[0][NAME]].library == "pytorch_optimizer":
        from ltxtrain.learn.optimizers.soap import plain_state

        yield from plain_state(state)
    else:
        yield from ((key, value) for key, value in state.items() if not key.startswith("qmap"))  # maps are constants


def _labelled(key: str, name: str, value: Any) -> dict[str, torch.Tensor]:
    if value is None:
        return {f"{key}#none|{name}": torch.empty(0)}
    if isinstance(value, bool | int | float):
        dtype = torch.float64 if isinstance(value, float) else torch.int64
        return {f"{key}#{type(value).__name__}|{name}": torch.tensor(value, dtype=dtype)}
    if hasattr(value, "codes"):
        return {f"{key}.{part}|{name}": _plain(getattr(value, part)) for part in CODED}
    return {f"{key}|{name}": _plain(value)}


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the CPU; 8-bit floating point as its bytes, which every reader of the format knows."""
    copy = tensor.detach().to("cpu", copy=True).contiguous()
    return copy.view(torch.uint8) if copy.dtype == torch.float8_e4m3fn else copy


def _owner(tensors: Mapping[str, torch.Tensor]) -> str:
    owners = [label[len(OWNER) : -1] for label in tensors if label.startswith(OWNER)]
    return owners[0] if owners else "torch-adamw"  # the only one there was when checkpoints did not say it


def check_owner(owner: str, name: str) -> None:
    """Raise ``CheckpointError`` when a state that is of the optimiser ``owner`` is of no use to ``name``."""
    if owner != name:
        raise CheckpointError(
            f"the checkpoint has the state of {owner}, which {name} cannot go on from",
            hint=f"go on with --optimizer {owner}, or name a new run with --run-name NAME",
        )


def _check_buffers(group: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Settings that keep a buffer of their own cannot be turned on in the middle of a run."""
    found = {label.partition("|")[0] for label in tensors}
    if not any(label.rpartition("|")[2] for label in tensors):
        return  # saved before the first step
    for setting in OPTIMIZERS[group[NAME]].grows:
        if group.get(setting) and not found & BUFFERS_OF[setting]:
            raise CheckpointError(
                f"the checkpoint was made without {setting}, which needs its own state from the first step on",
                hint=f"leave {setting} out of optimizer_config, or start afresh",
            )


def _check_start(group: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
    """Prodigy's sums are measured by the step size that it began with. Old checkpoints do not tell it."""
    saved = tensors.get("d0#float|")
    if saved is not None and saved.item() != group["d0"]:
        raise CheckpointError(
            f"the checkpoint was made with d0 {saved.item():g}, and d0 is {group['d0']:g} now",
            hint=f"set d0={saved.item():g} in optimizer_config, or name a new run with --run-name NAME",
        )


def _restored(
    optimizer: torch.optim.Optimizer, position: int, parameter: torch.nn.Parameter, found: dict[str, Any]
) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    library = OPTIMIZERS[group[NAME]].library
    if library not in ("bitsandbytes", "torchao", "pytorch_optimizer"):
        return {key: _placed(key, value, group, parameter) for key, value in found.items()}
    # Their buffers are of special kinds, paged, coded or in lists: they are made by the library itself and filled.
    if library == "bitsandbytes":
        optimizer.init_state(group, parameter, 0, position)
        state = optimizer.state[parameter]
    elif library == "pytorch_optimizer":
        from ltxtrain.learn.optimizers.soap import empty_state

        state = empty_state(optimizer, parameter)
    else:
        state = {"step": torch.tensor(0.0)}
        for key, signed in (("exp_avg", True), ("exp_avg_sq", False)):
            state[key] = optimizer._new_buffer(parameter, signed)
    empty = dict(_parts(_items(optimizer, state)))
    if empty.keys() != found.keys():
        raise _misfit(position)
    for key, value in found.items():
        if not isinstance(value, torch.Tensor):
            state[key] = value
            continue
        target = empty[key]
        target = target.view(torch.uint8) if target.dtype == torch.float8_e4m3fn else target
        if (target.shape, target.dtype) != (value.shape, value.dtype):
            raise _misfit(position)
        target.copy_(value)
    return state


def _parts(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for key, value in items:
        if hasattr(value, "codes"):
            yield from ((f"{key}.{part}", getattr(value, part)) for part in CODED)
        else:
            yield key, value


def _placed(key: str, value: Any, group: Mapping[str, Any], parameter: torch.nn.Parameter) -> Any:
    """Counters stay on the CPU, as their optimisers keep them, but for fused kernels and ASGD, which computes its rates
    from them on the device, where they round otherwise."""
    if not isinstance(value, torch.Tensor):
        return value
    if key == "s" and value.numel() != math.ceil(parameter.numel() / group["slice_p"]):
        raise CheckpointError("the checkpoint was made with another slice_p", hint="keep it as it was, or start afresh")
    on_cpu = key in ("step", "mu_product") and not group.get("fused") and group[NAME] != "torch-asgd"
    return value.clone() if on_cpu else value.to(parameter.device, copy=True)


def _misfit(position: int) -> CheckpointError:
    return CheckpointError(
        f"the optimiser's state of parameter {position} is of another form than the settings of now ask for",
        hint="go on with the optimizer_config of the checkpoint, or name a new run with --run-name NAME",
    )
