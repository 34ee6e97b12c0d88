"""The curves of one run: which numbers of metrics.jsonl are drawn, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
    """Loss first, then learning rate, loss by sigma, gradient norm and seconds per step."""
    if not run.steps:
        return el("p", "No training step has been recorded yet.", class_="empty")
    rest = join(chart_html(chart) for chart in (*dataset_charts(run), *side_charts(run.steps)))
    return join((chart_html(loss_chart(run.steps)), el("div", rest, class_="charts")))


def dataset_charts(run: Run) -> tuple[Chart, ...]:
    """The loss on data sets that are held out, and where there are several data sets, the training loss of each."""
    held = list(dict.fromkeys(one.dataset for one in run.evaluations))
    measured = [tuple((float(e.step), e.loss) for e in run.evaluations if e.dataset == name) for name in held]
    trained = _by_name([(step.step, step.dataset_losses) for step in run.steps])
    found = []
    if held:
        note = "Always the same clips, noise levels and noise, so its points can be compared with each other."
        found.append(Chart("evaluation", "Loss on held-out clips", _coloured(held, measured), note=note))
    if len(trained) > 1:
        found.append(Chart("datasets", "Loss by data set", trained))
    return tuple(found)


def loss_chart(steps: Sequence[Step]) -> Chart:
    points = _points(steps, lambda step: step.loss)
    note = (
        "How much noise a step draws decides most of its loss, so single steps jump up and down; the mean shows "
        "whether the loss falls."
    )
    return Chart("loss", "Loss", _with_mean(points), note=note)


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
