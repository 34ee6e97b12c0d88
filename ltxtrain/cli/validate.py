"""``ltxtrain validate``: is this configuration good, and where does each value come from?"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.cli.options import AsJson, Configs, Context, Explain, Presets, SetAside, read_config
from ltxtrain.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ltxtrain.config import LoadedConfig


def validate(
    ctx: Context,
    preset: Presets = None,
    config: Configs = None,
    set_aside_unbuilt: SetAside = False,
    explain: Explain = False,
    as_json: AsJson = False,
) -> None:
    """Check a configuration without running anything. Needs no GPU and no data."""
    try:
        loaded = read_config(ctx, preset, config, set_aside_unbuilt)
        notices = [*loaded.notices, *_dataset_notices(loaded)]
        _check_targets(loaded)
    except ConfigError as error:
        if as_json:
            print(json.dumps({"ok": False, "faults": [vars(fault) for fault in error.faults]}, indent=2))
        raise
    if as_json:
        print(json.dumps({"ok": True, "values": _values(loaded), "notices": notices}, indent=2))
        return
    for notice in notices:
        print(f"note: {notice}", file=sys.stderr)
    _tell_unbuilt()
    if explain:
        _explain(loaded)
    given = sum(source != "default" for source in loaded.sources.values())
    print(f"the configuration is good: {given} of {len(loaded.sources)} options are set", file=sys.stderr)


def _dataset_notices(loaded: LoadedConfig) -> list[str]:
    """Check the data sets too: a list where it is on this machine, or a folder, which need not be."""
    from ltxtrain.config import dataset_notices, overruled_notices, resolve_datasets

    config = loaded.config
    data = config.data
    if data.data_backend_config is not None and not data.data_backend_config.exists():
        return [
            f"data_backend_config {data.data_backend_config} is not on this machine: "
            "it is checked when a run is planned"
        ]
    if not data.datasets and data.data_backend_config is None and data.instance_data_dir is None:
        return []
    try:
        resolve_datasets(data, config.cache, config.validation)
    except DataError as error:
        return [error.message]
    return [
        *dataset_notices(data, config.validation, config.objective),
        *overruled_notices(config, loaded.sources),
    ]


def _check_targets(loaded: LoadedConfig) -> None:
    """Check the adapter's targets too, for a model whose modules are known without looking, and a list that is here."""
    from ltxtrain.facts.models import KNOWN_MODELS
    from ltxtrain.plan.targets import check_targets

    model, adapter = loaded.config.model, loaded.config.adapter
    name = model.pretrained_transformer_model_name_or_path or model.pretrained_model_name_or_path
    listed = adapter.peft_lora_target_modules
    if name in KNOWN_MODELS and (not isinstance(listed, Path) or listed.exists()):
        check_targets(adapter, KNOWN_MODELS[name].transformer, loaded.sources["peft_lora_target_modules"])


def _values(loaded: LoadedConfig) -> dict[str, dict[str, Any]]:
    flat = {name: value for section in _readable(loaded).values() for name, value in section.items()}
    return {name: {"value": flat[name], "source": source} for name, source in loaded.sources.items()}


def _readable(loaded: LoadedConfig) -> dict[str, dict[str, Any]]:
    """All values by section, without those that hold a secret (a webhook's token, filled in from the environment)."""
    from ltxtrain.config.secrets import HIDDEN, shown

    return {
        section: {name: HIDDEN if shown(name, value) == HIDDEN else value for name, value in values.items()}
        for section, values in loaded.config.model_dump(mode="json").items()
    }


def _explain(loaded: LoadedConfig) -> None:
    for section, values in _readable(loaded).items():
        print(f"[{section}]")
        for name, value in values.items():
            print(f"{name} = {json.dumps(value, ensure_ascii=False)}  # {loaded.sources[name]}")
        print()


def _tell_unbuilt() -> None:
    from ltxtrain.config.unbuilt import UNBUILT

    text = f"{len(UNBUILT)} options are not built yet, or only for some values; asked for, they are refused by name: "
    width = min(120, shutil.get_terminal_size((120, 24)).columns)
    print(textwrap.fill(text + ", ".join(UNBUILT), width=width, subsequent_indent="  "), file=sys.stderr)
