"""``ltxtrain schema``: the JSON Schema of a configuration file."""

from __future__ import annotations

import json


def schema() -> None:
    """Print the JSON Schema of a configuration, so that editors complete and check it."""
    from ltxtrain.config.json_schema import json_schema

    print(json.dumps(json_schema(), indent=2))
