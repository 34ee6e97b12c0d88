"""One run of the check: the product's own command in a process of its own, and what its run folder tells of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bench.gpu_check_cases import Case, Shape, Size, make_clips, words_of
from bench.process import environment
from ltxtrain.events import MAIN_MEMORY

# The first steps of a process pay for allocations, lazy imports and compilation.
WARM_UP = 5
CAP = "LTX_DEVICE_MEMORY_GB"
NOT_BEGUN = "not begun"
STOPPED = "stopped after"
GIB = 1024**3
CARDS = (4, 6, 8, 12, 16, 24, 32, 48, 80, 96, 141, 192)


@dataclass(frozen=True)
class Phase:
    """Peak bytes of one phase: as the plan estimated it without its margin, allocated and reserved by torch, in use on
    the device.

    ``probe`` is what the run itself found in use when it tried the largest batch first. 0 is what was not measured.
    """

    phase: str
    device: str
    estimate: int
    allocated: int = 0
    reserved: int = 0
    device_used: int = 0
    probe: int = 0


@dataclass(frozen=True)
class Result:
    """``told`` is why there is nothing, or not all, to show. Speeds are None where nothing was trained.

    ``made`` is the software that it was measured with, and when; ``since`` what came of trying again, where that
    measured nothing.
    """

    case: str
    shape: str
    memory_gb: float
    wall_seconds: float = 0.0
    told: str = ""
    set_aside: tuple[str, ...] = ()
    batch: int = 0
    phases: tuple[Phase, ...] = ()
    seconds_per_step: float | None = None
    samples_per_second: float | None = None
    tflops: float | None = None
    mfu: float | None = None
    losses: tuple[float, ...] = ()
    made: str = ""
    since: str = ""

    @property
    def measured(self) -> bool:
        return self.seconds_per_step is not None or any(phase.device_used for phase in self.phases)

    @property
    def cut_off(self) -> bool:
        """Whether its time was over, which says nothing of the program."""
        return self.told.startswith((NOT_BEGUN, STOPPED))

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Result:
        phases = tuple(Phase(**phase) for phase in values["phases"])
        lists = {name: tuple(values[name]) for name in ("set_aside", "losses")}
        return cls(**{**values, **lists, "phases": phases})


def measure(case: Case, shape: Shape, size: Size, work: Path, seconds: float) -> Result:
    """Plan, cache, train and render once, in at most so many seconds. What went wrong stands in the result."""
    ends = time.monotonic() + seconds
    clips = work / "clips" / shape.key
    make_clips(clips, shape, size.clips)
    home = work / case.name
    home.mkdir(parents=True, exist_ok=True)
    words = words_of(case, shape, size, clips.resolve())
    variables = environment(threads_of(size)) | {"TRANSFORMERS_OFFLINE": "1"}
    began = time.monotonic()
    out = home / f"{shape.key}.json"
    told = run(["-m", "ltxtrain", "plan", "--json", *words], out, variables, ends)
    plan = {} if told else json.loads(out.read_text())
    cap = cap_for(case, plan)
    variables[CAP] = f"{cap:g}"
    told = (
        told
        or not_as_asked(plan, shape)
        or run(["-m", "ltxtrain", "train", "--yes", *words], home / f"{shape.key}.txt", variables, ends)
    )
    result = read_result(case, shape, plan, home / shape.key / "run", told)
    return replace(result, memory_gb=cap, wall_seconds=round(time.monotonic() - began, 1))


def cap_for(case: Case, plan: dict[str, Any]) -> float:
    """The memory that the case is for; for a shape that needs more by the estimate, that of the next larger card."""
    need = max((phase["total"] for phase in plan.get("memory", ()) if phase["device"] != MAIN_MEMORY), default=0) / GIB
    cards = [card for card in CARDS if card >= max(need, case.memory_gb)]
    return case.memory_gb if need <= case.memory_gb or not cards else float(cards[0])


def not_as_asked(plan: dict[str, Any], shape: Shape) -> str:
    """Why running the plan would measure something else than the stage is about, empty where it would not."""
    if "model_type" in set_aside(plan):
        return "not built yet"
    found = sorted({bucket["bucket"]["key"] for bucket in plan["buckets"]})
    return "" if found == [shape.bucket] else f"the plan trains {', '.join(found)}"


def threads_of(size: Size) -> int:
    return 1 if "--torch_num_threads=1" in size.options else min(16, os.cpu_count() or 1)


def run(words: list[str], out: Path, variables: dict[str, str], ends: float) -> str:
    """Nothing when the command did its work, else the line that says why not. Its stdout goes to ``out``, its stderr
    beside it. It is stopped when the clock says ``ends``, and with all that it began when this process is."""
    left = max(1.0, ends - time.monotonic())
    with out.open("w") as answer, out.with_suffix(".log").open("w+") as log:
        child = subprocess.Popen(
            [sys.executable, *words], cwd=out.parent, env=variables, stdout=answer, stderr=log, start_new_session=True
        )
        try:
            code = child.wait(timeout=left)
        except subprocess.TimeoutExpired:
            return f"{STOPPED} {left:.0f} s"
        finally:
            if child.returncode is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        log.seek(0)
        lines = log.read().splitlines()
    if not code:
        return ""
    errors = [line for line in lines if line.startswith("error:")] or lines[-1:] or ["no word"]
    return f"exit code {code}: {errors[-1].removeprefix('error: ')}"


def read_result(case: Case, shape: Shape, plan: dict[str, Any], folder: Path, told: str) -> Result:
    """What the run folder holds, of a run that ended and of one that did not get so far."""
    steps = read_lines(folder / "metrics.jsonl")
    warm = steps[WARM_UP:] if len(steps) > WARM_UP else steps
    return Result(
        case=case.name,
        shape=shape.key,
        memory_gb=case.memory_gb,
        told=told,
        set_aside=tuple(set_aside(plan)),
        batch=max((bucket["batch_size"] for bucket in plan.get("buckets", ())), default=0),
        phases=tuple(read_phases(plan, read_lines(folder / "memory.jsonl"))),
        seconds_per_step=middle(warm, "seconds"),
        samples_per_second=middle(warm, "samples_per_second"),
        tflops=middle(warm, "tflops"),
        mfu=middle(warm, "mfu"),
        losses=tuple(round(step["loss"], 5) for step in steps[:1] + steps[-1:]),
    )


def read_phases(plan: dict[str, Any], records: list[dict[str, Any]]) -> list[Phase]:
    """One line for each phase of the plan, with the highest of what was measured in it."""
    phases = []
    for planned in plan.get("memory", ()):
        name = planned["phase"]
        run, probe = (
            [record for record in records if record["phase"] == name and record["where"] == where]
            for where in ("run", "probe")
        )
        sizes = {key: highest(run, key) for key in ("allocated", "reserved", "device_used")}
        estimate = planned["total"] - planned["margin"]
        phases.append(Phase(name, planned["device"], estimate, probe=highest(probe, "device_used"), **sizes))
    return phases


def highest(records: list[dict[str, Any]], key: str) -> int:
    return max((record[key] or 0 for record in records), default=0)


def set_aside(plan: dict[str, Any]) -> list[str]:
    """What the plan went on without: the options of a preset that are not built yet."""
    notices = [notice for notice in plan.get("notices", ()) if notice.endswith(": set aside")]
    return [notice.split(": ")[1] for notice in notices]


def middle(steps: list[dict[str, Any]], key: str) -> float | None:
    values = [step[key] for step in steps if step.get(key) is not None]
    return median(values) if values else None


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
