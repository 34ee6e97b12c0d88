"""Where the values of a component's tensors come from: safetensors files, or a seed. One tensor at a time."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.loaders.single_file_utils import (
    convert_ltx_transformer_checkpoint_to_diffusers,
    convert_ltx_vae_checkpoint_to_diffusers,
)
from safetensors import safe_open

from ltxtrain.errors import ModelError

Shape = tuple[int, ...]

# One file, or the list of which tensor lies in which of several: as diffusers and as transformers name them.
WHOLE = ("diffusion_pytorch_model.safetensors", "model.safetensors")
LISTS = ("diffusion_pytorch_model.safetensors.index.json", "model.safetensors.index.json")
# Settings with this file beside them have no weights of their own: they are drawn from the seed that it tells.
SEED_FILE = "random.json"
# A file is mapped into memory. What was read of it counts as this process's until it is closed: so it is closed and
# opened again after so many bytes.
HELD_BYTES = 32 * 1024**2
# How a file in Lightricks' naming becomes one in diffusers' naming.
CONVERSIONS: Mapping[str, Callable[..., dict[str, torch.Tensor]]] = {
    "transformer": convert_ltx_transformer_checkpoint_to_diffusers,
    "vae": convert_ltx_vae_checkpoint_to_diffusers,
}


class Weights(Protocol):
    """``shapes`` tells all that is there, by the name in the model; ``read`` gives one tensor, in memory of its own."""

    @property
    def shapes(self) -> Mapping[str, Shape]: ...

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor: ...


@dataclass(frozen=True)
class _Place:
    file: Path
    name: str


class FileWeights:
    """Tensors of safetensors files. Not more than ``HELD_BYTES`` and one tensor of a file are mapped at a time."""

    def __init__(self, places: Mapping[str, _Place], shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self._places = places
        self._file: Path | None = None
        self._handle: Any = None
        self._read = 0

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The tensor on ``device``; values with a fraction come in ``dtype``.

        Raises what safetensors raises, and ``ModelError`` for values that are not finite in ``dtype``.
        """
        place = self._places[name]
        if self._handle is None or self._file != place.file or self._read > HELD_BYTES:
            self._file, self._handle, self._read = place.file, safe_open(place.file, "pt"), 0
        stored = self._handle.get_tensor(place.name)
        self._read += stored.nbytes
        if not stored.is_floating_point():
            return stored.to(device, copy=True)  # type: ignore[no-any-return]
        values = stored.to(dtype)
        if not _finite(values):
            raise _not_finite(place, dtype, _finite(stored.float()))
        return values.to(device, copy=values is stored)  # type: ignore[no-any-return]


def _finite(values: torch.Tensor) -> bool:
    """Of the least and the greatest, which are found many times faster than what ``isfinite`` says of each value."""
    least, most = torch.aminmax(values)
    return bool(least.isfinite() and most.isfinite())


def _not_finite(place: _Place, dtype: torch.dtype, stored_is: bool) -> ModelError:
    if stored_is:
        kind = str(dtype).removeprefix("torch.")
        return ModelError(f"{place.name} of {place.file} is too large for {kind}", hint="use bf16 in place of it")
    return ModelError(
        f"{place.name} of {place.file} holds NaN or infinity",
        hint="download or copy the file again, or name another model",
    )


@dataclass(frozen=True)
class RandomWeights:
    """Tensors drawn from (seed, name) on ``device``: the same ones in any order, in any dtype and format.

    Matrices and convolutions have the scale of torch's own initial values, 1 / sqrt(3 * inputs), so that activations
    keep theirs through dozens of layers; biases are zero, the weights of norms are one. A GPU draws other values than a
    CPU does.
    """

    seed: int
    shapes: Mapping[str, Shape]
    device: torch.device

    def read(self, name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        shape = self.shapes[name]
        values = torch.empty(shape, device=self.device)
        if len(shape) < 2:
            values.fill_(0.0 if name.endswith(("bias", "mean")) else 1.0)
        else:
            digest = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
            generator = torch.Generator(self.device).manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            values.normal_(0.0, 1.0 / math.sqrt(3 * math.prod(shape[1:])), generator=generator)
        return values.to(device, dtype)


def folder_weights(folder: Path) -> FileWeights | None:
    """The weights of a component in diffusers' or transformers' layout, whole or in several files.

    None where there is no such file. Raises ``OSError``, ``ValueError``, ``KeyError`` or ``SafetensorError`` for
    files that cannot be read.
    """
    files = {folder / name for name in WHOLE if (folder / name).is_file()}
    for listing in (folder / name for name in LISTS if (folder / name).is_file()):
        told = dict(json.loads(listing.read_text(encoding="utf-8"))["weight_map"])
        files = {folder / Path(file).name for file in told.values()}
    places: dict[str, _Place] = {}
    shapes: dict[str, Shape] = {}
    for file in sorted(files):
        for name, shape in file_shapes(file).items():
            places[name], shapes[name] = _Place(file, name), shape
    return FileWeights(places, shapes) if files else None


def random_weights(folder: Path, shapes: Mapping[str, Shape], device: torch.device) -> RandomWeights | None:
    """What the settings of a random model have in place of weights; None for any other folder."""
    told = folder / SEED_FILE
    if not told.is_file():
        return None
    return RandomWeights(json.loads(told.read_text(encoding="utf-8"))["seed"], shapes, device)


def single_file_weights(file: Path, part: str, wanted: set[str]) -> FileWeights:
    """The weights of ``part`` in one file, named as in diffusers (then they are those of ``wanted``) or as Lightricks
    names them. Raises what ``folder_weights`` raises.
    """
    shapes = file_shapes(file)
    # The library renames tensors; it is given some without values, and what it did with the names is read off them.
    stand_ins = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    names = {id(tensor): name for name, tensor in stand_ins.items()}
    renamed = stand_ins if stand_ins.keys() == wanted else CONVERSIONS[part](dict(stand_ins))
    places = {name: _Place(file, names[id(tensor)]) for name, tensor in renamed.items()}
    return FileWeights(places, {name: shapes[place.name] for name, place in places.items()})


def file_shapes(file: Path) -> dict[str, Shape]:
    """The shape of each tensor of a safetensors file, from its header alone."""
    with safe_open(file, "pt") as header:
        return {name: tuple(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118
