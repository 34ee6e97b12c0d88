"""A machine made of files: tools on the path, device files below a root, and a torch that behaves as it is told.

``World.command`` runs the real command in a process of its own; the one thing that differs is where /dev, /sys and
/proc are looked for. ``World.examine`` does so too, but in a process that has the command's modules already.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LAUNCH = (
    "import sys; from pathlib import Path; from ltxtrain.doctor import surroundings;"
    "surroundings.ROOT = Path(sys.argv.pop(1)); from ltxtrain.cli import main; main()"
)
# The real ones want a real torch, or take long to import. The command line itself needs the later ones, once.
STUBS = (
    "accelerate av bitsandbytes cv2 datasets diffusers google/protobuf httpx huggingface_hub numpy optimi peft PIL "
    "prodigyopt pyarrow pytorch_optimizer safetensors schedulefree sentencepiece torchao transformers"
)
STUBS_OF_A_WARM_PROCESS = "pydantic pydantic_settings rich typer"
GIB = 1024**3
CU129 = "sm_70 sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120"
CU126 = "sm_50 sm_60 sm_70 sm_75 sm_80 sm_86 sm_90"
CU130 = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120"
RTX_4090 = {"name": "NVIDIA GeForce RTX 4090", "capability": [8, 9], "total": 24 * GIB, "free": 23 * GIB, "bf16": True}
RTX_5090 = {"name": "NVIDIA GeForce RTX 5090", "capability": [12, 0], "total": 32 * GIB, "free": 31 * GIB, "bf16": True}
MI300X = {
    "name": "AMD Instinct MI300X",
    "capability": [9, 4],
    "gcn": "gfx942:sramecc+:xnack-",
    "total": 191 * GIB,
    "free": 190 * GIB,
    "bf16": True,
}
# Cut from what the tools print on such machines.
AMD_SMI = {
    "gpu_data": [
        {
            "gpu": 0,
            "asic": {"market_name": "AMD Instinct MI300X", "target_graphics_version": "gfx942"},
            "driver": {"name": "amdgpu", "version": "6.12.12"},
            "vram": {"type": "HBM3", "vendor": "N/A", "size": {"value": 196592, "unit": "MB"}},
        }
    ]
}
FAKE_TORCH = """
import json, os, pathlib, signal, sys, time, warnings
FACTS = json.loads((pathlib.Path(__file__).parent / "facts.json").read_text())
exec(FACTS["at_import"])
__version__ = FACTS["version"]

class version:
    cuda, hip = FACTS["cuda"], FACTS["hip"]

class _C:
    _cuda_getArchFlags = staticmethod(lambda: FACTS["archs"])

class Properties:
    def __init__(self, device):
        self.total_memory, self.gcnArchName = device["total"], device.get("gcn", "")

class device_context:
    def __init__(self, index): pass
    def __enter__(self): return self
    def __exit__(self, *error): return None

class cuda:
    device = device_context

    @staticmethod
    def is_available():
        if FACTS["error"]:
            warnings.warn("CUDA initialization: " + FACTS["error"])
        return not FACTS["error"] and bool(FACTS["devices"])

    @staticmethod
    def init():
        if FACTS["error"]:
            raise RuntimeError(FACTS["error"])

    device_count = staticmethod(lambda: len(FACTS["devices"]))
    get_device_properties = staticmethod(lambda index: Properties(FACTS["devices"][index]))
    get_device_capability = staticmethod(lambda index: tuple(FACTS["devices"][index]["capability"]))
    get_device_name = staticmethod(lambda index: FACTS["devices"][index]["name"])
    mem_get_info = staticmethod(lambda index: (FACTS["devices"][index]["free"], FACTS["devices"][index]["total"]))
    is_bf16_supported = staticmethod(lambda emulated=True: FACTS["devices"][0]["bf16"])

class Tensor:
    def __matmul__(self, other): return self
    def sum(self): return self
    def item(self): return 4096.0

def ones(shape, device):
    exec(FACTS["at_computing"])
    return Tensor()
"""


@dataclass(frozen=True)
class Answer:
    """What the command said. ``bad`` are the checks and codes that are no good, ``fixes`` what to do, by code."""

    exit_code: int
    found: dict[str, Any]
    stderr: str

    @property
    def bad(self) -> set[tuple[str, str]]:
        return {(f["check"], f["code"]) for f in self.found["findings"] if f["state"] in ("warning", "fault")}

    def finding(self, code: str) -> dict[str, str]:
        return next(finding for finding in self.found["findings"] if finding["code"] == code)


class World:
    """Begins as a machine without any GPU, with a torch for the CPU."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bin, self.root, self.packages = place / "bin", place / "root", place / "packages"
        for folder in (self.bin, self.root / "dev", self.packages, place / "home", place / "work"):
            folder.mkdir(parents=True)
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR", "PYTHONHOME") if name in os.environ}
        self.env = kept | {
            "PATH": str(self.bin),
            "HOME": str(place / "home"),
            "PYTHONPATH": str(self.packages),
            "OMP_NUM_THREADS": "1",
        }
        # The model counts as fetched, so that no room is asked for it.
        (place / "home/.cache/huggingface/hub/models--Lightricks--LTX-Video-0.9.5/snapshots/0123").mkdir(parents=True)
        self.before: list[str] = []
        self.words: list[str] = []
        self.tool("cc", "exit 0")
        for name in STUBS.split():
            self.package(name, "")
        self.torch()

    def package(self, name: str, code: str) -> None:
        (self.packages / name).mkdir(parents=True, exist_ok=True)
        (self.packages / name / "__init__.py").write_text(code)

    def torch(self, **facts: Any) -> None:
        plain = {"version": "2.13.0+cpu", "cuda": None, "hip": None, "archs": "", "devices": [], "error": ""}
        self.package("torch", FAKE_TORCH)
        told = plain | {"at_import": "", "at_computing": ""} | facts
        (self.packages / "torch" / "facts.json").write_text(json.dumps(told))

    def cuda_torch(self, **facts: Any) -> None:
        self.torch(**({"version": "2.13.0+cu129", "cuda": "12.9", "archs": CU129, "devices": [RTX_4090]} | facts))

    def rocm_torch(self, **facts: Any) -> None:
        plain = {"version": "2.13.0+rocm7.2", "hip": "7.2.53211", "archs": "gfx90a gfx942 gfx1100", "devices": [MI300X]}
        self.torch(**(plain | facts))

    def without(self, module: str) -> None:
        """Python finds no such module, in this process or a child of it."""
        (self.packages / "sitecustomize.py").write_text(
            f"import sys\nclass Without:\n    def find_spec(self, name, path=None, target=None):\n"
            f"        if name == {module!r}:\n"
            f"            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
            f"sys.meta_path.insert(0, Without())\n"
        )

    def tool(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def file(self, path: str, text: str = "") -> Path:
        whole = self.root / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)
        return whole

    def container(self) -> None:
        self.file(".dockerenv")

    def nvidia_smi(self, gpus: str = "NVIDIA GeForce RTX 4090, 24564, 8.9", driver: str = "575.57.08") -> None:
        lines = "\n".join(f"{gpu}, {driver}" for gpu in gpus.split("; "))
        self.tool("nvidia-smi", f"[ \"$1\" = -L ] && {{ echo 'GPU 0: a card'; exit 0; }}\necho '{lines}'")

    def nvidia(self, **torch: Any) -> None:
        """A healthy machine with an NVIDIA card."""
        self.file("dev/nvidia0")
        self.file("dev/nvidiactl")
        self.nvidia_smi()
        self.cuda_torch(**torch)

    def amd(self, **torch: Any) -> None:
        """A healthy machine with an MI300X."""
        self.file("dev/kfd")
        self.file("dev/dri/renderD128")
        self.tool("amd-smi", f"echo '{json.dumps(AMD_SMI)}'")
        self.rocm_torch(**torch)

    def bus(self, vendor: str, kind: str) -> None:
        self.file("sys/bus/pci/devices/0000:01:00.0/vendor", f"{vendor}\n")
        self.file("sys/bus/pci/devices/0000:01:00.0/class", f"{kind}\n")

    def obey_modes(self) -> None:
        """root may open every file; without that right it obeys modes as others do."""
        if os.geteuid() == 0:
            setpriv = shutil.which("setpriv")
            assert setpriv, "setpriv is part of util-linux"
            self.before = [setpriv, "--bounding-set=-dac_override,-dac_read_search", "--"]

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        line = [*self.before, sys.executable, "-c", LAUNCH, str(self.root), "doctor", *self.words, *words]
        return subprocess.run(
            line, capture_output=True, text=True, env=self.env, cwd=self.place / "work", timeout=120, check=False
        )

    def examine(self, *words: str) -> Answer:
        words = ("--offline", "--json", *words)
        done = self.command(*words) if self.before else self._warm_command(*words)
        assert done.stdout, done.stderr
        return Answer(done.returncode, json.loads(done.stdout), done.stderr)

    def _warm_command(self, *words: str) -> subprocess.CompletedProcess[str]:
        out, err = self.place / "out", self.place / "err"
        for name in STUBS_OF_A_WARM_PROCESS.split():
            self.package(name, "")
        call = {
            "root": str(self.root),
            "words": ["doctor", *self.words, *words],
            "env": self.env,
            "cwd": str(self.place / "work"),
            "out": str(out),
            "err": str(err),
        }
        code = ask_warm_process(json.dumps(call))
        return subprocess.CompletedProcess(call["words"], code, out.read_text(), err.read_text())


def ask_warm_process(line: str) -> int:
    child = _warm_process()
    assert child.stdin and child.stdout
    child.stdin.write(line + "\n")
    child.stdin.flush()
    return int(child.stdout.readline())


@functools.cache
def _warm_process() -> subprocess.Popen[str]:
    """One for all tests; it ends with its input."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", "PYTHONHOME") if name in os.environ}
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.doctor.warm"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=kept | {"OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )

    @atexit.register
    def end() -> None:
        child.communicate(timeout=10)

    return child
