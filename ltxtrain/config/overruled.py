"""Options of this one call that the list of data sets overrules: what is typed looks stronger than what lies in a file,
and is not where a data set says the same thing for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ltxtrain.config.catalogue import options, value_of
from ltxtrain.config.entries import DatasetEntry
from ltxtrain.config.entry_catalogue import GENERAL
from ltxtrain.config.idle_entries import TEXT_STORE
from ltxtrain.config.resolve import listed_entries
from ltxtrain.config.schema import TrainConfig
from ltxtrain.config.secrets import shown

_NAMED_AT_MOST = 3


def overruled_notices(config: TrainConfig, sources: Mapping[str, str]) -> tuple[str, ...]:
    """One notice for each option, given by flag or environment, that data sets give another value.

    Raises ConfigError when the list of data sets cannot be read.
    """
    typed = {key: name for key, name in GENERAL.items() if sources.get(name, "").startswith(("--", "LTXTRAIN_"))}
    listed = listed_entries(config.data) if typed else None
    if listed is None:
        return ()
    notices = []
    for key, name in typed.items():
        value = value_of(config, name)
        others = [
            f"{entry.id}: {_spelled(name, own)}"
            for entry in listed.entries
            for own in _own_values(entry, key)
            if own != value
        ]
        if others:
            sets = "data set" if len(others) == 1 else "data sets"
            more = f" and {len(others) - _NAMED_AT_MOST} more" if len(others) > _NAMED_AT_MOST else ""
            told = ", ".join(others[:_NAMED_AT_MOST]) + more
            notices.append(f"{name} {_spelled(name, value)} ({sources[name]}) is overruled by {sets} {told}")
    return tuple(notices)


def _own_values(entry: DatasetEntry, key: str) -> Iterator[object]:
    """The value that an entry gives ``key``, when it gives one and it counts there."""
    if entry.disabled or entry.disable or (entry.dataset_type == "text_embeds" and key not in TEXT_STORE):
        return
    table, _, name = key.rpartition(".")
    if table and entry.dataset_type == "image":
        return
    value = getattr(getattr(entry, table) if table else entry, name)
    if value is not None:
        yield value


def _spelled(name: str, value: object) -> str:
    return str(value) if options()[name].choices and value is not None else shown(name, value)
