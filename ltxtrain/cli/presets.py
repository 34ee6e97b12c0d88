"""``ltxtrain presets list|show NAME``."""

from __future__ import annotations

import json

from ltxtrain.cli.options import Action, AsJson, PresetName
from ltxtrain.errors import ConfigError, Fault


def presets(action: Action = "list", name: PresetName = None, as_json: AsJson = False) -> None:
    """List the presets, or show what one of them sets."""
    if action == "list" and name is None:
        _list(as_json)
    elif action == "show" and name is not None:
        _show(name, as_json)
    else:
        raise ConfigError([Fault("presets", "is followed by list, or by show NAME")])


def _list(as_json: bool) -> None:
    from ltxtrain.config.presets import preset_names, read_preset

    found = [read_preset(name) for name in preset_names()]
    missing = {preset.name: _not_built(preset.name) for preset in found}
    if as_json:
        rows = {
            preset.name: {
                "title": preset.title,
                "hardware": preset.hardware,
                "memory": preset.memory,
                "memory_gb": preset.memory_gb,
                "measured": preset.measured,
                "extends": list(preset.extends),
                "not_built": missing[preset.name],
            }
            for preset in found
        }
        print(json.dumps(rows, indent=2))
        return
    for preset in found:
        print(f"{preset.name}: {preset.title}")
        print(f"    hardware  {preset.hardware}")
        print(f"    memory    {preset.memory}; {preset.measured}")
        if missing[preset.name]:
            print(f"    not built yet: {', '.join(missing[preset.name])}; --set-aside-unbuilt goes on without")


def _not_built(name: str) -> list[str]:
    """What the preset asks for and is refused today, as ``option value``."""
    from ltxtrain.config import load_config

    try:
        load_config([name], env={})
    except ConfigError as error:
        return [f"{fault.key} {fault.problem.removesuffix(' is not built yet')}" for fault in error.faults]
    return []


def _show(name: str, as_json: bool) -> None:
    from ltxtrain.config.layers import document_layer
    from ltxtrain.config.presets import preset_chain, read_preset

    asked = read_preset(name)
    if not as_json:
        print(asked.path.read_text(encoding="utf-8").rstrip())
        return
    values: dict[str, object] = {}
    for preset in preset_chain((name,)):
        values |= document_layer(preset.document, {}).values
    about = {"name": name, "title": asked.title, "extends": list(asked.extends), "values": values}
    print(json.dumps(about, indent=2, default=str))
