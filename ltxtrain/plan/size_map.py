"""The documented size map: a file of the user's in the output folder that forces the sizes of buckets.

``aspect_resolution_map-0.4096.json`` is for resolution 640 (0.4096 megapixels) and says, for example,
``{"1.43": [640, 448]}``: where the rules come to a size whose ratio rounds to 1.43, clips are trained at 640x448. The
documented program also writes this file; here sizes are worked out anew each time, so it is only ever read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.errors import ConfigError, Fault
from ltxtrain.plan.buckets import Size, SizeRule

NAME = "aspect_resolution_map-{}.json"
MAX_SIDE = 8192
MAX_BYTES = 1024 * 1024


@dataclass(frozen=True)
class SizeMap:
    """``sizes`` by ratio, rounded as ratios of buckets are. Empty, with no ``path``, where there is no file."""

    path: Path | None = None
    sizes: Mapping[float, Size] = field(default_factory=dict)


NO_MAP = SizeMap()


def read_size_map(folder: Path, rule: SizeRule) -> SizeMap:
    """The map in ``folder`` for the resolution of ``rule``. Raises ``ConfigError`` for a file that cannot be used."""
    path = next((path for path in _candidates(folder, rule) if path.is_file()), None)
    if path is None:
        return NO_MAP
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        found = json.loads(content.decode("utf-8-sig")) if len(content) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError([Fault("", f"the size map cannot be read: {error}", str(path))]) from error
    if not isinstance(found, dict):
        raise ConfigError([Fault("", "the size map is no object of sizes", str(path), 'write {"1.43": [640, 448]}')])
    sizes: dict[float, Size] = {}
    faults: list[Fault] = []
    for key, value in found.items():
        ratio, problem = _ratio(key, rule.rounding), _problem(value, rule.alignment)
        if ratio is None:
            faults.append(Fault(repr(key), "is no ratio of width to height", str(path), 'write it as "1.43"'))
        elif problem:
            faults.append(Fault(key, problem, str(path), f"write [width, height], multiples of {rule.alignment}"))
        elif sizes.setdefault(ratio, (value[0], value[1])) != (value[0], value[1]):
            decimals = f"aspect_bucket_rounding is {rule.rounding}"
            faults.append(Fault(key, f"gives another size for ratio {ratio:g}", str(path), decimals))
    if faults:
        raise ConfigError(faults)
    return SizeMap(path, sizes)


def map_name(rule: SizeRule) -> str:
    """What a map for the resolution of ``rule`` is called."""
    return _candidates(Path(), rule)[0].name


def _candidates(folder: Path, rule: SizeRule) -> list[Path]:
    """The documented name has megapixels as Python writes them (1.0); 1 is taken for it, too."""
    value = rule.megapixels
    names = [str(float(value)), f"{value:g}", *([str(int(value))] if value == int(value) else [])]
    return [folder / NAME.format(name) for name in dict.fromkeys(names)]


def _ratio(key: str, rounding: int) -> float | None:
    try:
        ratio = round(float(key), rounding)
    except ValueError:
        return None
    return ratio if math.isfinite(ratio) and ratio > 0 else None


def _problem(value: object, alignment: int) -> str:
    if not isinstance(value, list) or len(value) != 2 or any(type(side) is not int for side in value):
        return f"{json.dumps(value)[:60]} is no width and height in whole pixels"
    if any(not 0 < side <= MAX_SIDE for side in value):
        return f"{value[0]}x{value[1]} is outside of 1 to {MAX_SIDE} pixels"
    if any(side % alignment for side in value):
        return f"{value[0]}x{value[1]} has a side that is no multiple of {alignment}"
    return ""
