"""The plan on the page: its messages, the clips, memory by phase, disk."""

from __future__ import annotations

from collections.abc import Sequence

from ltxtrain.events import MAIN_MEMORY
from ltxtrain.markup import Html, el, join
from ltxtrain.report.clips import clips_part
from ltxtrain.report.loose import JsonObject, as_count, as_list, as_object, as_objects, as_pairs, as_text
from ltxtrain.report.run import Run
from ltxtrain.report.tables import table, whole
from ltxtrain.units import format_bytes

MARGIN = "margin"
HOST = ("cpu", MAIN_MEMORY)
KINDS = (  # a word in a line of the memory estimate, and the class that page.css colours
    (MARGIN, "margin"),
    ("libraries", "libraries"),
    ("device context", "libraries"),
    ("activations", "activations"),
    ("text encoder", "text"),
    ("transformer", "transformer"),
    ("VAE", "vae"),
    ("adapter", "adapter"),
    ("optimiser", "optimiser"),
    ("workspace", "workspace"),
)


def plan_section(run: Run) -> Html:
    if not run.plan:
        return el("p", "The run folder holds no plan.", class_="empty")
    return join(
        (
            _messages(run.plan),
            clips_part(run),
            _memory(run),
            _disk(run.plan),
            _as_printed(run.plan_text),
        )
    )


def _messages(plan: JsonObject) -> Html:
    warnings = [el("li", el("strong", "Warning: "), as_text(text)) for text in as_list(plan.get("warnings"))]
    notices = [el("li", as_text(text)) for text in as_list(plan.get("notices"))]
    return el("ul", *warnings, *notices, class_="messages") if warnings or notices else Html()


def _memory(run: Run) -> Html:
    phases = as_objects(run.plan.get("memory"))
    if not phases:
        return Html()
    top, scale = _scale(max(1, *(as_count(phase.get("total")) for phase in phases)), _capacity(run.plan, ""))
    return join(
        (
            el("h3", "Memory by phase"),
            el("p", "Estimated peaks, line by line, with a margin. ", *scale),
            el(
                "div",
                *(
                    _phase(phase, top, _capacity(run.plan, as_text(phase.get("device"))), _measured(run, phase))
                    for phase in phases
                ),
                class_="phases",
            ),
        )
    )


def _scale(largest: int, room: int) -> tuple[int, tuple[str, ...]]:
    """Bytes of a full bar, the same in all phases, and words for it.

    The device where the largest phase takes a quarter of it or more; else the bars would be slivers, and a round size
    takes its place. A phase that is larger than the device needs a longer bar too.
    """
    device = ("The device has ", whole(format_bytes(room)), ".") if room else ()
    if largest <= room <= 4 * largest:
        return room, (*device, " A full bar is the whole device.")
    half = 2 ** (largest.bit_length() - 2) or 1
    top = -(-largest // half) * half
    share = f", {100 * top / room:.0f} % of that" if room > top else ""
    return top, (*device, " A full bar is ", whole(format_bytes(top)), f"{share}.")


def _measured(run: Run, phase: JsonObject) -> Html | None:
    """``Measured: 8.1 GiB in tensors, 8.9 GiB in use; 8.8 GiB in the trial.``"""
    found = run.measured.get((as_text(phase.get("phase")), as_text(phase.get("device"))))
    if found is None:
        return None
    tensors = (whole(format_bytes(found.allocated)), " in tensors, ") if found.allocated is not None else ()
    tried = ("; ", whole(format_bytes(found.tried)), " in the trial") if found.tried is not None else ()
    return el("p", "Measured: ", *tensors, whole(format_bytes(found.used)), " in use", *tried, ".")


def _phase(phase: JsonObject, top: int, capacity: int, measured: Html | None) -> Html:
    lines = [*as_pairs(phase.get("lines")), (MARGIN, as_count(phase.get("margin")))]
    lines = [(name, size) for name, size in lines if size]
    total = as_count(phase.get("total"))
    pieces = [
        el("span", "", class_=f"kind-{_kind(name)}", style=f"width:{100 * size / top:.2f}%") for name, size in lines
    ]
    names = [el("li", f"{name} ", whole(format_bytes(size)), class_=f"kind-{_kind(name)}") for name, size in lines]
    mark = el("span", "", class_="capacity", style=f"left:{100 * capacity / top:.2f}%") if 0 < capacity <= top else None
    title = f"{as_text(phase.get('phase'))} ({as_text(phase.get('device'))}): "
    over = " - more than the device has" if capacity and total > capacity else ""
    stack = el("div", *pieces, mark, class_="stack", aria_hidden="true")
    heading = el("h4", title, whole(format_bytes(total)), over)
    return el("div", heading, stack, el("ul", *names, class_="legend"), measured, class_="phase")


def _kind(name: str) -> str:
    """What a line is for decides its colour, so that the colour is the same in all phases."""
    return next((kind for word, kind in KINDS if word in name), "other")


def _capacity(plan: JsonObject, device: str) -> int:
    """Bytes of the first GPU; of the machine where there is none, or where the phase stays in main memory."""
    machine = as_object(plan.get("machine"))
    gpus: Sequence[JsonObject] = as_objects(machine.get("gpus")) if device not in HOST else ()
    return as_count((gpus[0] if gpus else machine).get("memory_bytes"))


def _disk(plan: JsonObject) -> Html:
    pairs = as_pairs(plan.get("disk"))
    if not pairs:
        return Html()
    rows = [(what, format_bytes(size)) for what, size in pairs]
    return join((el("h3", "Disk"), table(("What", "Size"), rows, caption="Estimated need", numeric=(1,))))


def _as_printed(plan_text: str) -> Html:
    if not plan_text.strip():
        return Html()
    return el("details", el("summary", "The plan as it was printed"), el("pre", plan_text))
