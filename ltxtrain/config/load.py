"""Reading a configuration: all layers, all faults in one pass, and the source of every value."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ltxtrain.config.catalogue import options
from ltxtrain.config.conflicts import conflict_faults, undone
from ltxtrain.config.explain import placed, problem_of
from ltxtrain.config.idle import idle_notices
from ltxtrain.config.layers import Layer, document_layer, environment_layer, flag_layer, image_layer
from ltxtrain.config.presets import preset_chain
from ltxtrain.config.read_entries import read_entries
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.secrets import HIDDEN, shown
from ltxtrain.config.settings import layered
from ltxtrain.config.text import Document, read_document
from ltxtrain.config.unbuilt import asked_unbuilt
from ltxtrain.errors import ConfigError, Fault

FOUND_BESIDE = ("data_backend_config", "user_prompt_library")
WAYS_TO_NAME_DATA = ("instance_data_dir", "data_backend_config", "datasets")
RIVALS = (WAYS_TO_NAME_DATA, ("max_train_steps", "num_train_epochs"))
DEFAULT_MODEL = "Lightricks/LTX-Video-0.9.5"
FLAVOURS = {"0.9.5": DEFAULT_MODEL, "0.9.0": "Lightricks/LTX-Video"}


@dataclass(frozen=True)
class LoadedConfig:
    """A checked configuration. ``sources`` tells for each option where its value comes from."""

    config: TrainConfig
    sources: dict[str, str]
    notices: tuple[str, ...]
    presets: tuple[str, ...]


def load_config(
    presets: Sequence[str] = (),
    files: Sequence[Path] = (),
    *,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    set_aside_unbuilt: bool = False,
) -> LoadedConfig:
    """Read and check a configuration; later layers win: defaults, image, presets, files, environment, flags.

    ``env`` defaults to the environment of the process. ``set_aside_unbuilt`` puts options that are not built yet back
    to their defaults, with a notice for each, instead of refusing them. Raises ConfigError with every fault.
    """
    env = os.environ if env is None else env
    layers, faults = _layers(presets, files, env, flags or {})
    _drop_rivals(layers)
    layers.insert(0, _image_layer(env, layers))
    for layer in layers:
        faults += layer.faults
    values, sources, hidden = _merged(layers)
    notices = [notice for layer in layers for notice in layer.notices]
    _derive(values, sources, notices)
    config, bad, more = _checked(
        [*(layer.values for layer in layers), _derived(values, layers)], values, sources, hidden
    )
    faults += more
    broken = frozenset(bad | {fault.key for fault in faults})
    asked = asked_unbuilt(config, sources)
    if set_aside_unbuilt:
        for name, fault in asked.items():
            notices.append(f"{replace(fault, suggestion='')}: set aside")
            sources[name] = f"default, instead of {sources[name]}"
            values.pop(name, None)
        config, _, _ = _checked([values], values, sources, hidden)
        asked = {}
    asked = {name: fault for name, fault in asked.items() if name not in undone(config, skip=broken)}
    faults += [*conflict_faults(config, sources, skip=broken), *asked.values()]
    if faults:
        raise ConfigError(_once(faults), hint=_hint(faults, asked))
    notices += idle_notices(config, sources)
    return LoadedConfig(config, sources, tuple(dict.fromkeys(notices)), tuple(presets))


def _hint(faults: Sequence[Fault], asked: Mapping[str, Fault]) -> str | None:
    if asked and len(asked) == len(faults):
        return "--set-aside-unbuilt goes on without the options that are not built yet"
    return None


def _once(faults: Sequence[Fault]) -> list[Fault]:
    return list({str(fault): fault for fault in faults}.values())


def _layers(
    presets: Sequence[str], files: Sequence[Path], env: Mapping[str, str], flags: Mapping[str, object]
) -> tuple[list[Layer], list[Fault]]:
    layers: list[Layer] = []
    faults: list[Fault] = []
    try:
        for preset in preset_chain(tuple(presets)):
            layers.append(document_layer(preset.document, env, source=f"preset {preset.name}"))
    except ConfigError as error:
        faults += error.faults
    for path in files:
        try:
            layers.append(document_layer(read_document(path), env))
        except ConfigError as error:
            faults += error.faults
    layers.append(environment_layer(env))
    layers.append(flag_layer(flags, env))
    for layer in layers:
        _read_datasets(layer)
        _look_beside_its_file(layer)
    return layers, faults


def _look_beside_its_file(layer: Layer) -> None:
    """A file named in a configuration that is not found from here may lie beside the configuration, as documented."""
    for name in FOUND_BESIDE:
        path = Path(str(layer.values.get(name, "")))
        if name not in layer.documents or name not in layer.values or path.is_absolute() or path.exists():
            continue
        folder = Path(layer.documents[name][0].name).parent
        for candidate in (folder / path, folder / path.name):
            if candidate.is_file():
                layer.values[name] = candidate
                layer.notices.append(f"{name} {path} is taken from {candidate}, beside the configuration")
                break


def _read_datasets(layer: Layer) -> None:
    """Turn the raw list of data sets of a layer into checked entries."""
    raw = layer.values.get("datasets")
    if not raw:
        return
    document, path = layer.documents.get("datasets", (Document(layer.sources["datasets"], None, {}), ()))
    entries = read_entries(raw, document, path)
    layer.faults += entries.faults
    if entries.faults:
        del layer.values["datasets"]
    else:
        layer.values["datasets"] = tuple(entries.entries)


def _drop_rivals(layers: Sequence[Layer]) -> None:
    """Of options that say one thing in several ways, the strongest layer's way counts, and the others are told."""
    for rivals in RIVALS:
        winner: str | None = None
        for layer in reversed(layers):
            given = [name for name in rivals if layer.values.get(name)]
            for name in given if winner else ():
                if winner and name != winner:
                    del layer.values[name]
                    layer.notices.append(f"{winner} replaces {name} of {layer.sources[name]}")
            if given and winner is None:
                winner = given[-1]


def _image_layer(env: Mapping[str, str], stronger: Sequence[Layer]) -> Layer:
    """The image's folders. Its data gives way to data named in any way, untold: nobody has asked for it."""
    layer = image_layer(env)
    if any(other.values.get(name) for other in stronger for name in WAYS_TO_NAME_DATA):
        layer.values.pop("instance_data_dir", None)
    return layer


def _merged(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, str], set[str]]:
    values: dict[str, Any] = {}
    sources = dict.fromkeys(options(), "default")
    hidden: set[str] = set()
    for layer in layers:
        values |= layer.values
        sources |= {name: layer.sources[name] for name in layer.values}
        hidden = (hidden - set(layer.values)) | layer.hidden
    return values, sources, hidden


def _derive(values: dict[str, Any], sources: dict[str, str], notices: list[str]) -> None:
    """What one option's value settles about another, as documented."""
    flavour = values.get("model_flavour")
    if flavour in FLAVOURS and "pretrained_model_name_or_path" not in values:
        values["pretrained_model_name_or_path"] = FLAVOURS[flavour]
        sources["pretrained_model_name_or_path"] = f"model_flavour, {sources['model_flavour']}"
    elif flavour in FLAVOURS and FLAVOURS[flavour] not in (DEFAULT_MODEL, values["pretrained_model_name_or_path"]):
        notices.append("model_flavour has no effect: pretrained_model_name_or_path names the model")
    warmup = values.get("lr_warmup_steps")
    if values.get("lr_scheduler") == "constant" and isinstance(warmup, int) and warmup > 0:
        values["lr_scheduler"] = "constant_with_warmup"
        notices.append(f"lr_scheduler constant with lr_warmup_steps {warmup} is read as constant_with_warmup")


def _derived(values: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, Any]:
    """What ``_derive`` changed, as the strongest layer."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged |= layer.values
    return {name: value for name, value in values.items() if name not in merged or merged[name] is not value}


def _checked(
    layers: Sequence[Mapping[str, Any]], values: Mapping[str, Any], sources: Mapping[str, str], hidden: set[str]
) -> tuple[TrainConfig, set[str], list[Fault]]:
    """The configuration without its bad values, the names of those, and a fault for each."""
    try:
        return layered(layers), set(), []
    except ValidationError as error:
        faults = []
        bad = set()
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][1])
            if name in bad:
                continue
            bad.add(name)
            value = HIDDEN if name in hidden else shown(name, values.get(name))
            key, source = placed(name, sources[name])
            faults.append(Fault(key, problem_of(detail, value), source))
        good = [{name: value for name, value in layer.items() if name not in bad} for layer in layers]
        return layered(good), bad, faults
