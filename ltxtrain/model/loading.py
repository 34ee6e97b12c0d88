"""Components of a model from their files, tensor by tensor, each straight to its dtype and its place.

A component is built without memory first. Then each tensor is read, cast, quantised and placed, so that beside what is
finished only one layer is ever held; weights that are missing or of another shape are told before the first is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from safetensors import SafetensorError
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from ltxtrain.config.formats import FORMATS, is_quantised_layer
from ltxtrain.config.secrets import first_line
from ltxtrain.errors import ModelError
from ltxtrain.model.folder import LOADING_ERRORS, ModelFolder, load_settings, not_loadable
from ltxtrain.model.formats import Quantised, QuantisedLinear, computing_dtype, quantisation_error, quantised_linear
from ltxtrain.model.host_memory import give_back_freed
from ltxtrain.model.weights import Weights, folder_weights, random_weights, single_file_weights
from ltxtrain.units import counted

CPU = torch.device("cpu")
Half = Literal["encoder", "decoder"]
Via = Literal["cpu", "accelerator", "pipeline"]
Told = Callable[[Quantised], None]
# After so many bytes of weights, what was freed on the way goes back to the system.
GIVEN_BACK_BYTES = 64 * 1024**2
# What reading values may raise. Anything else is no fault of the files: a device that is full, above all.
FILE_ERRORS = (OSError, SafetensorError)


@dataclass(frozen=True)
class Loading:
    """How a component is to lie in memory.

    ``dtype`` is that of all that is not quantised, and what quantised layers compute in; ``format`` is a value of
    ``base_model_precision``. ``via`` is a value of ``quantize_via``: layers are quantised one by one as they are read,
    on the CPU, or on ``accelerator``, which is ``device`` where it is not given.
    """

    dtype: torch.dtype
    format: str = "no_change"
    device: torch.device = CPU
    via: Via = "cpu"
    accelerator: torch.device | None = None

    @property
    def quantises(self) -> bool:
        return FORMATS[self.format].quantised

    @property
    def computing(self) -> torch.device:
        """Where there is something to compute while loading."""
        return self.accelerator or self.device


def load_transformer(model: ModelFolder, loading: Loading, told: Told | None = None) -> LTXVideoTransformer3DModel:
    """The transformer in evaluation mode. ``told`` hears what was quantised, where something was.

    Raises ``ModelError``, as the other loaders do, for files that are absent, damaged or of another model, and for
    values that are not finite or too large for ``loading``.
    """
    return _load(LTXVideoTransformer3DModel, model, "transformer", loading, told)  # type: ignore[no-any-return]


def load_vae(model: ModelFolder, loading: Loading, half: Half | None = None) -> AutoencoderKLLTXVideo:
    """The VAE in evaluation mode, or the ``half`` of it that is used. It is never quantised: ``ValueError`` for such a
    format."""
    if loading.quantises:
        raise ValueError(f"the VAE is not kept in {loading.format}")
    other = {"encoder": "decoder", "decoder": "encoder"}.get(half or "")
    return _load(AutoencoderKLLTXVideo, model, "vae", loading, without=other)  # type: ignore[no-any-return]


def load_text_encoder(
    model: ModelFolder, loading: Loading, told: Told | None = None
) -> tuple[T5EncoderModel, T5Tokenizer]:
    """The text encoder in evaluation mode, and its tokenizer. ``told`` as for the transformer."""
    encoder = _load(T5EncoderModel, model, "text_encoder", loading, told)
    return encoder, load_settings(T5Tokenizer, model.folders["tokenizer"])


def _load(
    kind: type, model: ModelFolder, part: str, loading: Loading, told: Told | None = None, without: str | None = None
) -> Any:
    place = model.folders[part]
    with _told(kind, place):
        component = _skeleton(kind, model, part)
        weights = _weights(component, model, part, loading.computing)
    if without:
        setattr(component, without, None)
    _check(component, weights, kind, place)
    with _told(kind, place, FILE_ERRORS):
        quantised = _fill(component, weights, part, loading)
    if told is not None and loading.quantises:
        told(quantised)
    return component.eval()


@contextmanager
def _told(kind: type, place: Path, errors: tuple[type[Exception], ...] = LOADING_ERRORS) -> Iterator[None]:
    """What the libraries raise for files that are absent, damaged or of another model, as one line."""
    try:
        yield
    except errors as error:
        raise not_loadable(place, kind, first_line(error)) from error


def _skeleton(kind: Any, model: ModelFolder, part: str) -> Any:
    """The component as its settings tell, with shapes and without values. No random number is drawn."""
    place = model.folders[part]
    with torch.device("meta"):
        if kind is T5EncoderModel:
            encoder = T5EncoderModel(T5Config.from_pretrained(str(place), local_files_only=True))
            encoder.tie_weights()
            return encoder
        settings = model.base / part if place.is_file() else place
        return kind.from_config(kind.load_config(str(settings), local_files_only=True))


def _weights(component: nn.Module, model: ModelFolder, part: str, device: torch.device) -> Weights:
    place = model.folders[part]
    shapes = {name: tuple(tensor.shape) for name, tensor in component.state_dict().items()}
    if place.is_file():
        return single_file_weights(place, part, set(shapes))
    weights = folder_weights(place) or random_weights(place, shapes, device)
    if weights is None:
        raise ValueError("it holds no .safetensors file, and other formats are not read")
    return weights


def _check(component: nn.Module, weights: Weights, kind: type, place: Path) -> None:
    """Whether all is there, in the right shapes: what is missing would be left without a value."""
    named = _named(component)
    if missing := sorted(names[0] for names in named.values() if not _stored(names, weights)):
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise not_loadable(place, kind, f"it has no weights for {missing[0]}{more}")
    for name, tensor in component.state_dict().items():
        shape, expected = weights.shapes.get(name), tuple(tensor.shape)
        if shape is not None and shape != expected:
            raise not_loadable(place, kind, f"{name} has the shape {list(shape)}, expected shape {list(expected)}")
    blocks = len(getattr(component, "transformer_blocks", ()))
    if blocks and any(name.startswith(f"transformer_blocks.{blocks}.") for name in weights.shapes):
        raise not_loadable(place, kind, f"it has more than the {counted(blocks, 'block')} that its configuration tells")


def _named(component: nn.Module) -> dict[int, list[str]]:
    """The names of each tensor, by its identity. T5's table of words has two, and files have one of them or both."""
    named: dict[int, list[str]] = {}
    for name, tensor in chain(
        component.named_parameters(remove_duplicate=False), component.named_buffers(remove_duplicate=False)
    ):
        named.setdefault(id(tensor), []).append(name)
    return named


def _stored(names: list[str], weights: Weights) -> str | None:
    """Which of the names of a tensor the files have."""
    return next((name for name in names if name in weights.shapes), None)


def _fill(component: nn.Module, weights: Weights, part: Any, loading: Loading) -> Quantised:
    """Give each tensor of ``component`` its values, module by module. One that has several names stays one."""
    named = _named(component)
    placed: dict[int, torch.Tensor] = {}
    layers: list[_Layer] = []
    freed = 0
    for path, module in list(component.named_modules()):
        freed += sum(tensor.nbytes for tensor in module.parameters(recurse=False))
        if freed > GIVEN_BACK_BYTES:
            give_back_freed()
            freed = 0
        dtype = computing_dtype(part, path, loading.dtype)
        if loading.quantises and type(module) is nn.Linear and is_quantised_layer(part, path):
            made, layer = _quantised(module, path, weights, loading, dtype)
            owner, _, own = path.rpartition(".")
            component.get_submodule(owner)._modules[own] = made
            layers.append(layer)
            continue
        for tensors in (module._parameters, module._buffers):
            for attribute, empty in list(tensors.items()):
                if empty is None:
                    continue
                if id(empty) not in placed:
                    values = weights.read(str(_stored(named[id(empty)], weights)), loading.device, dtype)
                    placed[id(empty)] = nn.Parameter(values) if isinstance(empty, nn.Parameter) else values
                tensors[attribute] = placed[id(empty)]
    give_back_freed()
    return _summary(loading.format, layers)


@dataclass(frozen=True)
class _Layer:
    path: str
    before: int
    after: int
    error: float


def _quantised(
    empty: nn.Linear, path: str, weights: Weights, loading: Loading, dtype: torch.dtype
) -> tuple[QuantisedLinear, _Layer]:
    """The layer ``path`` in its format on its device. Nothing else keeps its weight in full once this returns."""
    device = CPU if loading.via == "cpu" else loading.computing
    with torch.device("meta"):
        linear = nn.Linear(empty.in_features, empty.out_features, bias=empty.bias is not None)
    for attribute in dict(linear.named_parameters()):
        setattr(linear, attribute, nn.Parameter(weights.read(f"{path}.{attribute}", device, dtype)))
    made = quantised_linear(linear, loading.format, dtype)
    layer = _Layer(path, linear.weight.nbytes, made.stored_bytes(), quantisation_error(linear, made))
    if not math.isfinite(layer.error):
        raise ModelError(f"{path}.weight is too large for {loading.format}", hint="use no_change in place of it")
    return made.to(loading.device), layer


def _summary(name: str, layers: list[_Layer]) -> Quantised:
    before, after = sum(layer.before for layer in layers), sum(layer.after for layer in layers)
    error = sum(layer.error for layer in layers) / max(1, len(layers))
    return Quantised(name, tuple(layer.path for layer in layers), before, after, error)
