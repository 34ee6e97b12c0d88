"""Headline facts, configuration, files and versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress

from ltxtrain.markup import Html, el, join
from ltxtrain.plan.toml import dump_toml
from ltxtrain.report.clips import counts_of
from ltxtrain.report.curves import number
from ltxtrain.report.loose import as_list, as_object, as_objects, as_text
from ltxtrain.report.measured import largest_peak
from ltxtrain.report.run import ExportedFile, Run, Setting
from ltxtrain.report.tables import table, whole
from ltxtrain.report.training import smoothed_loss, time_in_steps
from ltxtrain.units import format_bytes, format_duration


def status(run: Run) -> str:
    """``finished``, ``stopped at step 40 of 100`` or ``not trained yet``: told by metrics.jsonl and the plan."""
    done, planned = run.done_steps, run.planned_steps
    if not done:
        return "not trained yet"
    if planned and done < planned:
        return f"stopped at step {done:,} of {planned:,}"
    return "finished"


def headline(run: Run) -> Html:
    """The few facts that everybody asks for first."""
    return el("dl", *(el("div", el("dt", name), el("dd", *parts)) for name, parts in _facts(run)), class_="facts")


def _facts(run: Run) -> list[tuple[str, tuple[str, ...]]]:
    facts: list[tuple[str, tuple[str, ...]]] = []
    planned = f" of {run.planned_steps:,}" if run.planned_steps else ""
    facts.append(("Steps", (f"{run.done_steps:,}", _small(planned))))
    losses = smoothed_loss(run.steps)
    if losses:
        first, last = losses
        facts.append(("Mean loss", (number(last), _small(f" from {number(first)}"))))
    held = [one for one in run.evaluations if one.dataset == run.evaluations[-1].dataset]
    if held:  # of all data sets together where that was asked for: its line is the last
        facts.append(("Held-out loss", (number(held[-1].loss), _small(f" from {number(held[0].loss)}"))))
    if run.plan:
        counts = counts_of(run)
        held_out = f", {counts.held_out} held out" if counts.held_out else ""
        facts.append(("Clips", (str(counts.used), _small(f" of {counts.found}{held_out}"))))
    seconds = time_in_steps(run.steps)
    if seconds is not None:
        count, mean = seconds.count, whole(f"{number(seconds.mean)} s")
        told = _small(f" {count:,} {'step' if count == 1 else 'steps'} of ", mean, ", without validation")
        facts.append(("Training time", (format_duration(seconds.total), told)))
    facts += _peak(run)
    rank = run.setting("lora_rank")
    if rank is not None:
        size = _small(" ", whole(format_bytes(run.adapter.bytes))) if run.adapter else ""
        facts.append(("LoRA rank", (as_text(rank), size)))
    return facts


def _peak(run: Run) -> list[tuple[str, tuple[str, ...]]]:
    """Out of memory.jsonl; of a run from before there was one, what its steps tell, which is training alone."""
    found = largest_peak(run.measured)
    if found is not None:
        return [("Peak memory", (whole(format_bytes(found[1])), _small(f" in {found[0]}")))]
    peak = max((step.memory_bytes or 0.0 for step in run.steps), default=0.0)
    return [("Peak memory", (whole(format_bytes(peak)), _small(" in training")))] if peak else []


def _small(*parts: str) -> Html:
    return el("small", *parts)


def files_section(run: Run) -> Html:
    """What stands in export/, with what the files say of themselves."""
    if not run.exports:
        return el("p", "Nothing has been exported yet.", class_="empty")
    rows = [_file_row(file) for file in run.exports]
    headings = ("File", "Size", "Tensors", "Type", "SHA-256")
    return table(headings, rows, caption="Files in export/", numeric=(1, 2))


def _file_row(file: ExportedFile) -> list[str]:
    tensors = str(file.tensors) if file.tensors else "-"
    types = ", ".join(file.dtypes) or "-"
    return [el("code", file.name), format_bytes(file.bytes), tensors, types, el("code", file.sha256, class_="digest")]


def settings_section(run: Run) -> Html:
    """What the user set, open; the defaults, folded."""
    if not run.settings:
        return el("p", "The run folder holds no configuration.", class_="empty")
    chosen = [setting for setting in run.settings if setting.source != "default"]
    defaults = [setting for setting in run.settings if setting.source == "default"]
    field = el("input", type="search", id="filter", placeholder="lora, sigma, ...")
    parts = [el("label", "Filter ", field, class_="filter")]
    if chosen:
        parts.append(_settings_table(chosen, "Set for this run"))
    if defaults:
        left = _settings_table(defaults, "Left at the default")
        parts.append(el("details", el("summary", f"Defaults ({len(defaults)})"), left))
    return join(parts)


def _settings_table(settings: list[Setting], caption: str) -> Html:
    rows = [[el("code", s.name), _value(s), s.source, s.section] for s in settings]
    return el("div", table(("Setting", "Value", "Source", "Section"), rows, caption=caption), class_="settings")


def _value(setting: Setting) -> Html:
    """A list of data sets stands there as in config.toml."""
    if entries := as_objects(setting.value):
        with suppress(TypeError):  # a list that holds null has no TOML form
            return el("code", dump_toml({setting.name: entries}).strip(), class_="entries")
    return el("code", show_value(setting.value))


def show_value(value: object) -> str:
    """As it would stand in a JSON file; strings without quotes."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value or '""'
    return json.dumps(value, ensure_ascii=False)


def versions_section(run: Run) -> Html:
    """Versions, machine, digests and the run's own events out of run.json."""
    rows = version_rows(run)
    events = as_objects(run.manifest.get("events"))
    lines = [el("li", ", ".join(f"{key} {show_value(value)}" for key, value in event.items())) for event in events]
    return join(
        (
            table(("What", "Value"), [(name, el("code", value)) for name, value in rows], caption="How this came about")
            if rows
            else el("p", "The run folder holds no manifest.", class_="empty"),
            el("h3", "Starts and stops") if lines else None,
            el("ol", *lines, class_="events") if lines else None,
        )
    )


def version_rows(run: Run) -> list[tuple[str, str]]:
    """Every plain fact of run.json but the configuration and the events, flat: ``("versions torch", "2.13.0")``."""
    facts = {key: value for key, value in run.manifest.items() if key not in ("config", "sources", "events")}
    if run.config_sha256:
        facts["config.toml sha256"] = run.config_sha256
    return _flat("", facts)


def config_hash(run: Run) -> str:
    """The hash that the adapter's metadata names, which leaves places and names out; else the digest of config.toml."""
    named = (as_text(file.metadata.get("config_sha256")) for file in run.exports)
    return next((digest for digest in named if digest), run.config_sha256)


def _flat(prefix: str, value: object) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [row for key, entry in as_object(value).items() for row in _flat(f"{prefix} {key}".strip(), entry)]
    if any(isinstance(entry, Mapping) for entry in as_list(value)):
        return [row for index, entry in enumerate(as_list(value)) for row in _flat(f"{prefix} {index}", entry)]
    return [(prefix.replace("_", " "), show_value(value))] if value not in (None, "", [], {}) else []
