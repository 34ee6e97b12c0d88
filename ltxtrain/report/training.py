"""The curves of one run: which numbers of metrics.jsonl are drawn, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ltxtrain.markup import Html, el, join
from ltxtrain.report.curves import Chart, Point, Series, chart_html, smooth, smoothing_span
from ltxtrain.report.run import Run, Step

LINES = 4  # that page.css has a colour for


@dataclass(frozen=True)
class Seconds:
    """``count`` steps that took ``total`` seconds together and ``mean`` each."""

    count: int
    total: float
    mean: float


def curves_section(run: Run) -> Html:
    """Loss and held-out loss side by side, then learning rate, loss by sigma, gradient norm and seconds per step."""
    if not run.steps:
        return el("p", "No training step has been recorded yet.", class_="empty")
    held = held_out_chart(run)
    first = join(chart_html(replace(chart, last=run.done_steps)) for chart in (loss_chart(run), held) if chart)
    sets = sets_chart(run)
    charts = (*([sets] if sets else []), *side_charts(run.steps))
    rest = join(chart_html(replace(chart, last=run.done_steps)) for chart in charts)
    return join((el("div", first, class_="charts first") if held else first, el("div", rest, class_="charts")))


def held_out_chart(run: Run) -> Chart | None:
    """The loss on data sets that are held out."""
    held = list(dict.fromkeys(one.dataset for one in run.evaluations))
    if not held:
        return None
    measured = [tuple((float(e.step), e.loss) for e in run.evaluations if e.dataset == name) for name in held]
    note = "Always the same clips, noise levels and noise, so its points can be compared with each other."
    return Chart("evaluation", "Loss on held-out clips", _coloured(held, measured), note=note + _undrawn(len(held)))


def sets_chart(run: Run) -> Chart | None:
    """Where there are several data sets, the training loss of each."""
    steady = _regularisation(run)
    names = {name: f"{name} (regularisation)" if name in steady else name for step in run.steps for name in _sets(step)}
    if len(names) < 2:
        return None
    named = [(step.step, tuple((names[name], loss) for name, loss in step.dataset_losses)) for step in run.steps]
    note = "Regularisation holds the model where it was: its loss is the distance from there. " if steady else ""
    return Chart("datasets", "Loss by data set", _by_name(named), note=(note + _undrawn(len(names))).strip())


def _sets(step: Step) -> tuple[str, ...]:
    return tuple(name for name, _ in step.dataset_losses)


def _regularisation(run: Run) -> set[str]:
    return {entry.id for entry in run.sets if entry.regularisation}


def _undrawn(count: int) -> str:
    return f" Drawn are {LINES} of {count} data sets." if count > LINES else ""


def loss_chart(run: Run) -> Chart:
    points = _points(run.steps, lambda step: step.loss)
    note = (
        "How much noise a step draws decides most of its loss, so single steps jump up and down; the mean shows "
        "whether the loss falls."
    )
    if _regularisation(run):
        note += " Regularisation clips are left out here and in the loss by sigma."
    return Chart("loss", "Loss in training" if run.evaluations else "Loss", _with_mean(points), note=note)


def side_charts(steps: Sequence[Step]) -> tuple[Chart, ...]:
    rate = Series("learning rate", _points(steps, lambda step: step.lr))
    return (
        Chart("lr", "Learning rate", (rate,)),
        Chart(
            "sigma",
            "Loss by sigma",
            band_series(steps),
            note="Sigma is the share of noise: 1 is noise alone. One mean for each quarter.",
        ),
        Chart(
            "grad-norm",
            "Gradient norm before clipping",
            _with_mean(_points(steps, lambda step: step.grad_norm)),
            robust=True,
        ),
        Chart("seconds", "Seconds per step", _with_mean(_points(steps, lambda step: step.seconds)), robust=True),
    )


def band_series(steps: Sequence[Step]) -> tuple[Series, ...]:
    """One smoothed line for each sigma band, over the steps in which the band was drawn."""
    return _by_name([(step.step, step.sigma_bands) for step in steps])


def _by_name(steps: Sequence[tuple[int, tuple[tuple[str, float], ...]]]) -> tuple[Series, ...]:
    """A smoothed line for each name, over the steps that have a number of it."""
    gathered: dict[str, list[Point]] = {}
    for step, numbers in steps:
        for name, number in numbers:
            gathered.setdefault(name, []).append((float(step), number))
    names = sorted(gathered)
    return _coloured(names, [smooth(gathered[name], smoothing_span(len(gathered[name]))) for name in names])


def _coloured(names: Sequence[str], lines: Sequence[Sequence[Point]]) -> tuple[Series, ...]:
    """As many lines as can be told apart."""
    pairs = list(zip(names, lines, strict=True))[:LINES]
    return tuple(Series(name, tuple(points), f"band-{index}") for index, (name, points) in enumerate(pairs))


def _with_mean(points: tuple[Point, ...]) -> tuple[Series, Series]:
    span = smoothing_span(len(points))
    return Series("each step", points, "raw"), Series(f"mean over about {span} steps", smooth(points, span), "main")


def smoothed_loss(steps: Sequence[Step]) -> tuple[float, float] | None:
    """Mean loss over the first and over the last steps, as many as the smooth line spans; None below two steps."""
    losses = [y for _, y in _points(steps, lambda step: step.loss)]
    if len(losses) < 2:
        return None
    count = min(smoothing_span(len(losses)), len(losses) // 2)
    return sum(losses[:count]) / count, sum(losses[-count:]) / count


def time_in_steps(steps: Sequence[Step]) -> Seconds | None:
    """Seconds in the steps themselves, without validation and checkpoints; None where no step tells."""
    known = [step.seconds for step in steps if step.seconds is not None]
    return Seconds(len(known), sum(known), sum(known) / len(known)) if known else None


def _points(steps: Sequence[Step], read: Callable[[Step], float | None]) -> tuple[Point, ...]:
    found = ((float(step.step), read(step)) for step in steps)
    return tuple((x, y) for x, y in found if y is not None)
