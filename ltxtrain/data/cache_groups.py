"""Which entries are encoded in one pass. Batches change the last bits of what a VAE computes, so they are not left to
chance: a group is cut from the list of all entries, and is encoded whole when one of its members is missing."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from ltxtrain.data.store import Entry

Item = TypeVar("Item")


@dataclass(frozen=True)
class Place:
    """What the members of a group have in common, and how many of them there are at most."""

    alike: Hashable
    size: int


@dataclass(frozen=True)
class Group(Generic[Item]):
    items: tuple[Item, ...]
    entries: tuple[Entry, ...]

    @property
    def claims(self) -> tuple[str, ...]:
        """Each entry is claimed by its key, so that runs that cut other groups find it."""
        return tuple(entry.key for entry in self.entries)

    def __iter__(self) -> Iterator[tuple[Item, Entry]]:
        return iter(zip(self.items, self.entries, strict=True))


def grouped(
    items: Iterable[Item], entry_of: Callable[[Item], Entry], place_of: Callable[[Item], Place]
) -> list[Group[Item]]:
    """Groups of items that are alike, each entry once, in the order of their first members."""
    open_groups: dict[Place, list[tuple[Item, Entry]]] = {}
    found: list[list[tuple[Item, Entry]]] = []
    seen: set[str] = set()
    for item in items:
        entry = entry_of(item)
        if entry.key in seen:
            continue
        seen.add(entry.key)
        place = place_of(item)
        if len(open_groups.get(place, ())) in (0, place.size):
            open_groups[place] = []
            found.append(open_groups[place])
        open_groups[place].append((item, entry))
    return [Group(tuple(item for item, _ in pairs), tuple(entry for _, entry in pairs)) for pairs in found]
