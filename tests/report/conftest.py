"""A run folder made by hand, after the public contract: JSON files, real small videos, a real safetensors header."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy
import pytest

PROMPTS = {"ball": "a red ball rolls from left to right", "kite": "a blue kite climbs in the wind"}
BANDS = ("0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00")


@dataclass(frozen=True)
class RunRecipe:
    """What the run folder shall hold."""

    steps: int = 60
    planned: int = 60
    validated: Sequence[int] = (0, 30, 60)
    prompts: Mapping[str, str] = field(default_factory=lambda: dict(PROMPTS))
    size: tuple[int, int] = (64, 48)
    caption: str = "a red ball rolls over grass"
    datasets: Sequence[str] = ("clips",)
    held: Sequence[str] = ()


def write_video(path: Path, size: tuple[int, int], hue: float, frames: int = 9) -> None:
    """A square that moves over a shaded ground; the first frame as PNG beside it."""
    width, height = size
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(_picture(size, hue, index / frames), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path.with_suffix(".png")), "w", format="image2") as picture:
        stream = picture.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        picture.mux(stream.encode(av.VideoFrame.from_ndarray(_picture(size, hue, 0.3), format="rgb24")))
        picture.mux(stream.encode())


def _picture(size: tuple[int, int], hue: float, along: float) -> numpy.ndarray:
    width, height = size
    down, across = numpy.mgrid[0:height, 0:width]
    channels = [
        128 + 80 * numpy.sin(6.28 * (hue + shift) + across / width + down / height) for shift in (0, 0.33, 0.66)
    ]
    picture = numpy.stack(channels, axis=-1)
    left, side = int(along * width * 0.8), height // 4
    picture[height // 3 : height // 3 + side, left : left + side] = (235, 60 + 150 * hue, 60)
    return picture.clip(0, 255).astype(numpy.uint8)


def metrics_line(step: int) -> dict[str, Any]:
    """A falling, noisy loss, worked out from the step alone."""
    noise = 0.25 * math.sin(step * 12.9898) * math.cos(step * 4.137)
    loss = 0.35 + 0.9 * math.exp(-step / 25) + noise * 0.6
    bands = {BANDS[step % 4]: loss, BANDS[(step + 1) % 4]: loss * 0.8}
    return {
        "step": step,
        "epoch": 1 + step // 20,
        "loss": loss,
        "lr": 1e-4 * min(1, step / 10),
        "grad_norm": 0.4 + abs(noise),
        "sigma_bands": bands,
        "seconds": 8.0 if step == 1 else 1.5 + abs(noise) / 4,
        "samples_per_second": 0.6,
        "memory_bytes": 9_800_000_000 + step,
    }


def plan_json(recipe: RunRecipe) -> dict[str, Any]:
    bucket = {"width": 768, "height": 512, "frames": 121, "key": "768x512@121", "latent_frames": 16, "tokens": 6144}
    small = {"width": 512, "height": 512, "frames": 49, "key": "512x512@49", "latent_frames": 7, "tokens": 1792}
    gib = 1024**3
    return {
        "run_name": "red-ball",
        "run_dir": "/home/somebody/secret-project/output/red-ball",
        "cache_dir": "/home/somebody/secret-project/cache",
        "made_clips": False,
        "clips_found": 5,
        "clips_used": 4,
        "buckets": [
            {"bucket": bucket, "samples": 3, "uses": 6, "batches": 6},
            {"bucket": small, "samples": 1, "uses": 2, "batches": 2},
        ],
        "batch_size": 1,
        "accumulation": 2,
        "steps": recipe.planned,
        "steps_per_epoch": 4,
        "epochs": recipe.planned / 4,
        "disk": [["cache", 3 * 1024**2], ["checkpoints", 500 * 1024**2]],
        "memory": [
            {"phase": "text", "device": "cuda", "lines": [["T5 encoder", 9 * gib]], "total": 10 * gib, "margin": gib},
            {
                "phase": "training",
                "device": "cuda",
                "lines": [["transformer", 4 * gib], ["adapter and optimiser", gib // 4], ["activations", 5 * gib]],
                "total": 10 * gib,
                "margin": 3 * gib // 4,
            },
        ],
        "notices": ["asked for 125 frames, training 121"],
        "warnings": ["tiny.mp4 is not used"],
        "machine": {
            "os": "Linux 6.1",
            "cpu": "a CPU",
            "cores": 8,
            "memory_bytes": 64 * gib,
            "device": "cuda",
            "gpus": [{"name": "NVIDIA RTX 4090", "memory_bytes": 24 * gib, "capability": "8.9"}],
            "driver": "575.1",
        },
        "config": {
            "model": {"pretrained_model_name_or_path": "Lightricks/LTX-Video-0.9.5", "seed": 42},
            "adapter": {"lora_rank": 16, "lora_alpha": None},
            "data": {"instance_data_dir": "/home/somebody/secret-project/clips", "framerate": 25, "num_frames": 121},
            "optimizer": {"learning_rate": 1e-4, "optimizer": "torch-adamw"},
            "validation": {"validation_prompt": PROMPTS["ball"], "validation_negative_prompt": "blurry"},
            "precision": {"mixed_precision": "bf16"},
        },
        "sources": {"lora_rank": "--lora-rank", "instance_data_dir": "--data", "seed": "default"},
    }


def dataset_lines(recipe: RunRecipe) -> list[dict[str, Any]]:
    """Four windows and a clip that is left out."""
    windows = [
        {
            "used": True,
            "role": "train",
            "id": f"clips/{name}.mp4#0",
            "dataset": "clips",
            "path": f"/home/somebody/secret-project/clips/{name}.mp4",
            "captions": [recipe.caption],
            "start": 0.0,
            "fps": 25.0,
            "bucket": {"width": 512, "height": 512, "frames": 49}
            if name == "milk"
            else {"width": 768, "height": 512, "frames": 121},
            "resize": [768, 512],
            "crop": [0, 0],
            "repeats": 1,
            "i2v": True,
            "kind": "video",
        }
        for name in ("ball", "bird", "book", "milk")
    ]
    left_out = {"dataset": "clips", "path": "tiny.mp4", "reason": "too-small", "detail": "96 x 64 is below 256"}
    return [*windows, {"used": False, "role": "train", **left_out}]


def memory_lines() -> list[dict[str, Any]]:
    """A trial and the run of training, and the run of training again, after a start that went on; a trial of latents
    that took more, and what loading took of main memory."""
    mib = 1024**2
    line = {"phase": "training", "device": "cuda", "estimate": 10 * 1024 * mib, "reserved": 9000 * mib, "detail": ""}
    trial = line | {"allocated": 7000 * mib, "device_used": 9216 * mib, "where": "probe", "detail": "1 x 768x512@121"}
    runs = [line | {"allocated": size * mib, "device_used": 9728 * mib, "where": "run"} for size in (6000, 7168)]
    latents = trial | {"phase": "latents", "device_used": 10240 * mib}
    loading = runs[0] | {"phase": "loading", "device": "main memory", "device_used": 40960 * mib}
    return [latents, trial, loading, *runs]


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines), encoding="utf-8")


def manifest_json() -> dict[str, Any]:
    return {
        "schema": 1,
        "run_name": "red-ball",
        "ltxtrain": "0.1.0",
        "git_commit": None,
        "python": "3.12.4",
        "packages": {"torch": "2.13.0", "diffusers": "0.42.1"},
        "dataset": {"fingerprint": "f1234", "samples": 4, "clips": 4},
        "events": [{"event": "start", "time": "2026-11-22T10:00:00Z"}, {"event": "stop", "step": 60}],
    }


CONFIG_TOML = '[adapter]\nlora_rank = 16\n\n[model]\npretrained_model_name_or_path = "Lightricks/LTX-Video-0.9.5"\n'


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_safetensors(path: Path, metadata: dict[str, str]) -> None:
    """Two tensors, written by hand after the format: length, JSON header, data."""
    tensors = {
        name: {"dtype": "BF16", "shape": [2, 2], "data_offsets": [8 * index, 8 * index + 8]}
        for index, name in enumerate(("a.lora_A.weight", "a.lora_B.weight"))
    }
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))


def write_samples(root: Path, recipe: RunRecipe) -> None:
    for step in recipe.validated:
        folder = root / "samples" / f"step-{step:08d}"
        index = []
        for number, (name, prompt) in enumerate(recipe.prompts.items()):
            hue = (0.15 * number + (step / (recipe.planned or 1)) * 0.5) % 1
            write_video(folder / f"{name}.mp4", recipe.size, hue)
            place = f"samples/{folder.name}/{name}"
            facts = {
                "width": recipe.size[0],
                "height": recipe.size[1],
                "frames": 9,
                "seed": 42,
                "steps": 8,
                "guidance": 3.0,
            }
            index.append({"name": name, "prompt": prompt, "video": f"{place}.mp4", "poster": f"{place}.png", **facts})
        write_json(folder / "index.json", index)


def build_run(root: Path, recipe: RunRecipe) -> Path:
    write_json(root / "plan.json", plan_json(recipe))
    write_lines(root / "dataset.jsonl", dataset_lines(recipe))
    (root / "plan.txt").write_text("red-ball: 4 of 5 clips\n", encoding="utf-8")
    (root / "config.toml").write_text(CONFIG_TOML, encoding="utf-8")
    write_json(root / "run.json", manifest_json())
    lines = [metrics_line(step) for step in range(1, recipe.steps + 1)]
    for line in lines:
        name = recipe.datasets[line["step"] % len(recipe.datasets)]
        line |= {"dataset": name, "dataset_losses": {name: line["loss"]}}
    write_lines(root / "metrics.jsonl", lines)
    measured = [
        {"step": step, "dataset": name, "loss": 0.9 - step / 100, "by_sigma": {"1.000": 0.5}, "seconds": 1.0}
        for step in range(0, recipe.steps + 1, 10)
        for name in recipe.held
    ]
    if measured:
        write_lines(root / "evaluations.jsonl", measured)
    write_lines(root / "memory.jsonl", memory_lines())
    write_samples(root, recipe)
    for name in ("pytorch_lora_weights.safetensors", "red-ball_comfyui.safetensors"):
        write_safetensors(root / "export" / name, {"rank": "16", "config_sha256": "abc123"})
    return root


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run, for tests that only read it."""
    return build_run(tmp_path_factory.mktemp("output") / "red-ball", RunRecipe())


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Build a run of one's own: ``make_run(steps=5, validated=())``."""

    def make(**changes: Any) -> Path:
        return build_run(tmp_path / "red-ball", RunRecipe(**changes))

    return make


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    parents: tuple[str, ...] = ()

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()


VOID = {"meta", "link", "input", "img", "source", "br"}


class Page(HTMLParser):
    """The page's elements in document order, each with the text inside it; refuses tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {[element.tag for element in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs}, parents=tuple(e.tag for e in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1].tag == tag, f"</{tag}> closes {[e.tag for e in self._open[-3:]]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text += data

    def all(self, tag: str, class_: str | None = None) -> list[Element]:
        return [e for e in self.elements if e.tag == tag and (class_ is None or class_ in e.classes)]

    def by_id(self, key: str) -> Element:
        return next(e for e in self.elements if e.attributes.get("id") == key)


@pytest.fixture(scope="session")
def parse_page() -> Callable[[str], Page]:
    return Page
