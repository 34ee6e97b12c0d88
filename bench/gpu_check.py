"""``python -m bench.gpu_check``: every preset with the real model's sizes and random weights, measured on this machine.

Nothing is downloaded. Each stage is one preset with each shape of clip: captions and latents, some steps and a
validation, by the product's own command in a process that may take no more memory than the preset is for. What was
measured is kept in one JSON file for each machine, with the page that is made from it, so that stages may be run in
several calls.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.gpu_check_cases import CASES, SIZES, Case, Size, cases_for
from bench.gpu_check_measure import NOT_BEGUN, Result, measure
from bench.gpu_check_table import page
from bench.process import environment
from ltxtrain.events import MAIN_MEMORY
from ltxtrain.plan.support import DEVICES

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "diffusers", "transformers", "peft", "bitsandbytes", "torchao")
# Asked in a process of its own: this one must hold no context on the device that is measured.
PROBE = """
import json, os, torch
cuda = torch.cuda.is_available()
kind = ("rocm" if torch.version.hip else "cuda") if cuda else "mps" if torch.backends.mps.is_available() else "cpu"
facts = {"kind": kind, "name": "CPU", "memory_bytes": 0, "detail": "no GPU"}
if cuda:
    found = torch.cuda.get_device_properties(0)
    facts["name"], facts["memory_bytes"] = found.name, found.total_memory
    facts["detail"] = f"compute capability {found.major}.{found.minor}, {torch.version.hip or torch.version.cuda}"
else:
    facts["memory_bytes"] = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
print(json.dumps(facts))
"""


def main(words: Sequence[str] | None = None) -> None:
    arguments = read_arguments(words)
    machine = probe_machine()
    size = SIZES[arguments.size]
    cases = chosen(machine["kind"], arguments.stages)
    if arguments.list:
        print("\n".join(listed(machine["kind"], arguments.stages)))
        return
    refuse_without_gpu(machine["kind"], arguments.size)
    leave_when_stopped()
    record = {
        "machine": machine,
        "software": software(),
        "model": size.model,
        "steps": size.steps,
        "when": datetime.date.today().isoformat(),
    }
    arguments.results.mkdir(parents=True, exist_ok=True)
    kept = arguments.results / f"gpu-{slug(machine['name'])}{'-tiny' if arguments.size == 'tiny' else ''}.json"
    with tempfile.TemporaryDirectory(prefix="ltxtrain-gpu-check-") as name:
        work = arguments.work or Path(name)
        for case in cases:
            for result in stage(case, size, work, arguments.minutes * 60):
                print(told(result), flush=True)
                keep(kept, record, result)
    print(f"{kept.with_suffix('.md')}")


def read_arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__.partition("\n")[0])
    parser.add_argument("stages", nargs="*", help="the stages to run, all when none is named; see --list")
    parser.add_argument("--list", action="store_true", help="name the stages, and those left out here, and stop")
    parser.add_argument("--minutes", type=float, default=10.0, help="the longest that one stage may take")
    parser.add_argument("--size", choices=SIZES, default="whole", help="tiny: a tiny model, on any computer")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the page and its JSON are kept")
    parser.add_argument(
        "--work", type=Path, help="a folder for clips, caches and runs, to keep them; else a temporary one"
    )
    return parser.parse_args(words)


def chosen(machine: str, names: Sequence[str]) -> tuple[Case, ...]:
    cases = cases_for(machine)
    if unknown := sorted(set(names) - {case.name for case in cases}):
        sys.exit(f"error: no stage {', '.join(unknown)} on {machine}\nhint: python -m bench.gpu_check --list")
    return tuple(case for case in cases if not names or case.name in names)


def listed(machine: str, names: Sequence[str]) -> Iterator[str]:
    """A line for each stage of the machine, then one for each that is left out there."""
    how = ", with --size tiny alone" if machine == "cpu" else ""
    for case in chosen(machine, names):
        yield f"{case.name}: preset {case.preset}, {case.memory_gb:g} GB{how}"
    for case in CASES:
        if machine not in case.on and not names:
            yield f"left out: {case.name}, which is for {' and '.join(DEVICES[kind] for kind in case.on)}"


def refuse_without_gpu(machine: str, size: str) -> None:
    """The whole size on a CPU would take the better part of an hour, and measure nothing that anyone asked for."""
    if machine == "cpu" and size != "tiny":
        print(
            "error: no GPU here\nhint: make gpu-check ARGS='--size tiny' tries the bench itself on any computer",
            file=sys.stderr,
        )
        sys.exit(4)


def leave_when_stopped() -> None:
    """Leave by an exception when stopped, so that the command of the moment is ended and its folder removed."""

    def leave(number: int, frame: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup asks for
            signal.signal(number, leave)


def stage(case: Case, size: Size, work: Path, seconds: float) -> Iterator[Result]:
    """Each shape in turn, the smallest first, in at most so many seconds together."""
    ends = time.monotonic() + seconds
    for shape in size.shapes:
        left = ends - time.monotonic()
        if left <= 0:
            yield Result(case.name, shape.key, case.memory_gb, told=f"{NOT_BEGUN}: the stage's time was over")
        else:
            yield measure(case, shape, size, work, left)


def told(result: Result) -> str:
    peak = max((phase.device_used for phase in result.phases if phase.device != MAIN_MEMORY), default=0)
    found = [f"{result.seconds_per_step:.3f} s/step"] if result.seconds_per_step else []
    found += [f"peak {peak / 2**30:.2f} GiB"] if peak else []
    words = [", ".join(found) or "not measured", *([result.told] if result.told else [])]
    return f"{result.case} {result.shape}: {'; '.join(words)}"


def keep(path: Path, record: dict[str, Any], result: Result) -> None:
    """Put one result in the place of what was measured before of the same stage and shape, and write the page anew."""
    before = [Result.of(each) for each in json.loads(path.read_text())["results"]] if path.exists() else []
    same = {(each.case, each.shape): each for each in before}
    old = same.pop((result.case, result.shape), None)
    results = [*same.values(), newer(old, replace(result, made=made_with(record)))]
    path.write_text(json.dumps({**record, "results": [each.to_json() for each in results]}, indent=1) + "\n")
    path.with_suffix(".md").write_text(page(record, results))


def newer(old: Result | None, new: Result) -> Result:
    """``new``, but for one that shows less than ``old`` and is no finding: then ``old``, with what came of ``new``."""
    if old is None or not old.measured:
        return new
    if new.measured and (old.cut_off or not new.cut_off):
        return new
    commit, when = new.made.split(", ")[:2]
    return replace(old, since=f"{new.told} ({commit}, {when})")


def made_with(record: dict[str, Any]) -> str:
    software = record["software"]
    versions = ", ".join(f"{name} {version}" for name, version in software["packages"].items())
    commit = software["commit"] or "unknown"
    return f"commit {commit}, {record['when']}, Python {software['python']}, {versions}, {record['steps']} steps"


def probe_machine() -> dict[str, Any]:
    words = [sys.executable, "-c", PROBE]
    facts: dict[str, Any] = json.loads(
        subprocess.run(words, env=environment(), stdout=subprocess.PIPE, text=True, check=True).stdout
    )
    return facts | {"cores": os.cpu_count() or 1}


def software() -> dict[str, Any]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    words = ["git", "rev-parse", "--short", "HEAD"]
    try:
        commit = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    except FileNotFoundError:
        commit = ""
    return {"python": platform.python_version(), "packages": versions, "commit": commit}


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    main()
