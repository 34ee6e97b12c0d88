"""Did you mean ...: the known name nearest to a mistyped one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_SHORTEST_START = 3


def edit_distance(left: str, right: str, limit: int) -> int:
    """Insertions, deletions, replacements and swaps of neighbours between two words; ``limit + 1`` when more.

    The optimal string alignment distance (Damerau 1964, without repeated edits of one place).
    """
    if abs(len(left) - len(right)) > limit:
        return limit + 1
    before: list[int] = []
    last = list(range(len(right) + 1))
    for i, char in enumerate(left, start=1):
        row = [i]
        for j, other in enumerate(right, start=1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (char != other))
            if i > 1 and j > 1 and char == right[j - 2] and left[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        if min(row) > limit and min(last) > limit:
            return limit + 1
        before, last = last, row
    return last[-1]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known name that ``word`` most likely means, or None when nothing is near.

    Fewest edits first. Among equals: the same digits, the same first letter, the same length, then the alphabet.
    """
    asked = word.strip().lstrip("-").replace("-", "_").lower()
    if not asked:
        return None
    limit = 1 if len(asked) < 4 else 2 if len(asked) < 8 else 3
    names = list(known)
    for edits in range(limit + 1):
        ranked = [_rank(asked, name) for name in names if edit_distance(asked, _spelled(name), edits) == edits]
        if ranked:
            return min(ranked)[-1]
    return _by_words(asked, names)


def meant(word: str, choices: Sequence[str]) -> list[str]:
    """The values that ``word`` may stand for: ``nf4`` -> ``nf4-bnb``, ``int8`` -> ``int8-quanto`` and ``int8-torchao``.

    Those that hold all its words, or begin with it, and have the fewest others; else the nearest, unless its digits are
    others: ``fp16`` is not meant by ``fp32``.
    """
    asked = word.strip().lower()
    words = _words(asked)
    holding = [name for name in choices if words and words <= _words(name)]
    if not holding and len(asked) >= _SHORTEST_START:
        holding = [name for name in choices if name.startswith(asked)]
    if holding:
        fewest = min(len(_words(name)) for name in holding)
        return [name for name in holding if len(_words(name)) == fewest]
    near = nearest(asked, choices)
    return [near] if near and (not _digits(asked) or _digits(near) in ([], _digits(asked))) else []


def _words(name: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", name.lower()))


def _rank(asked: str, name: str) -> tuple[bool, bool, bool, str]:
    return _digits(asked) != _digits(name), asked[:1] != name[:1], len(asked) != len(name), name


def _by_words(asked: str, known: Sequence[str]) -> str | None:
    """``rank`` -> ``lora_rank``: a name that holds all the words asked for, if only one does; else one that holds
    words that start so: ``file_column`` -> ``filename_column``."""
    words = asked.split("_")
    holding = [name for name in known if set(words) <= set(name.split("_"))]
    if not holding and len(words) > 1 and all(len(word) >= _SHORTEST_START for word in words):
        holding = [name for name in known if all(_starts_a_word(word, name) for word in words)]
    return holding[0] if len(holding) == 1 else None


def _starts_a_word(start: str, name: str) -> bool:
    return any(word.startswith(start) for word in name.split("_"))


def _spelled(name: str) -> str:
    return name.replace("-", "_").lower()


def _digits(word: str) -> list[str]:
    return re.findall(r"\d", word)
