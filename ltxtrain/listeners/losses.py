"""The loss of training in words: by what it is a mean of, with the data sets named where there are several."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ltxtrain.events import StepDone
from ltxtrain.units import plain

NAMED = 3  # data sets in one line
LONGEST = 24  # signs of a data set's name


@dataclass(frozen=True)
class StepLosses:
    """One step. ``learnt`` is None where it drew regularisation alone, ``steady`` where it drew none of it.

    Regularisation holds the model where it was. Its loss, the distance from there, is near nothing whatever is learnt,
    so it is no part of the mean.
    """

    learnt: float | None
    learnt_from: tuple[str, ...]
    steady: float | None
    steady_from: tuple[str, ...]


def split_losses(event: StepDone, regularisation: Collection[str]) -> StepLosses:
    learnt = {name: loss for name, loss in event.dataset_losses.items() if name not in regularisation}
    steady = {name: loss for name, loss in event.dataset_losses.items() if name in regularisation}
    loss = mean(learnt.values()) if steady else event.loss  # which counts each sample the same
    return StepLosses(loss, tuple(learnt), mean(steady.values()), tuple(steady))


def mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return sum(known) / len(known) if known else None


class LossWords:
    """``datasets`` are those that are trained on, True for regularisation; one that is not named there is learnt."""

    def __init__(self, datasets: Mapping[str, bool]) -> None:
        self._regularisation = frozenset(name for name, steady in datasets.items() if steady)
        self._known = set(datasets)
        self._steps: list[StepLosses] = []

    def split(self, event: StepDone) -> StepLosses:
        self._known.update(event.dataset_losses)
        return split_losses(event, self._regularisation)

    def add(self, event: StepDone) -> None:
        self._steps.append(self.split(event))

    def since_last(self) -> str:
        """The means over the steps since it was asked before.

        ``loss 0.4312``, or ``loss 0.4312 (bottles, gestures), regularisation 0.0021 (as-it-was)``.
        """
        steps, self._steps = self._steps, []
        learnt = mean(step.learnt for step in steps if step.learnt is not None)
        steady = mean(step.steady for step in steps if step.steady is not None)
        parts = []
        if learnt is not None:
            parts.append(f"loss {learnt:.4f}{self._in_brackets(name for step in steps for name in step.learnt_from)}")
        if steady is not None:
            names = self._in_brackets(name for step in steps for name in step.steady_from)
            parts.append(f"regularisation {steady:.4f}{names}")
        return ", ".join(parts)

    def names(self, losses: StepLosses) -> str:
        """``gestures``, ``as-it-was (regularisation)``; nothing where there is one data set alone."""
        if len(self._known) < 2:
            return ""
        parts = [_listed(losses.learnt_from)] if losses.learnt_from else []
        parts += [f"{_listed(losses.steady_from)} (regularisation)"] if losses.steady_from else []
        return ", ".join(parts)

    def _in_brackets(self, names: Iterable[str]) -> str:
        told = _listed(tuple(dict.fromkeys(names)))
        return f" ({told})" if told and len(self._known) > 1 else ""


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(_short(plain(name)) for name in names[:NAMED]) + more


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 3]}..."
