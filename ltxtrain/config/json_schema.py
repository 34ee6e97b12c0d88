"""The JSON Schema of a configuration file, flat or with [sections], made from the one schema."""

from __future__ import annotations

from typing import Any

from ltxtrain.config.catalogue import options, section_names
from ltxtrain.config.renames import RENAMED
from ltxtrain.config.schema import TrainConfig


def json_schema() -> dict[str, Any]:
    """Sections as pydantic describes them, and each option at the top level as well: both kinds of file are read."""
    whole = TrainConfig.model_json_schema()
    definitions = whole["$defs"]
    properties: dict[str, Any] = {}
    for section in section_names():
        model = TrainConfig.model_fields[section].annotation
        assert model is not None
        properties[section] = {"$ref": f"#/$defs/{model.__name__}"}
        for name, described in definitions[model.__name__]["properties"].items():
            properties[name] = described
    for old, rename in RENAMED.items():
        described = dict(properties[rename.new])
        described["description"] = f"Another name of {rename.new}. {options()[rename.new].description}"
        if old in section_names():
            properties[old] = {"anyOf": [properties[old], described]}
        else:
            properties[old] = described if rename.short else {**described, "deprecated": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ltxtrain configuration",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": definitions,
    }
