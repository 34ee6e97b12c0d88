"""What the GPU check runs: each preset with each shape of clip, and a few ways to be fast beside them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ltxtrain.config.presets import read_preset

FPS = 25


@dataclass(frozen=True)
class Shape:
    width: int
    height: int
    frames: int

    @property
    def key(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}"

    @property
    def bucket(self) -> str:
        """As a plan names it."""
        return f"{self.width}x{self.height}@{self.frames}"


@dataclass(frozen=True)
class Case:
    """One stage of the check: a preset, and what it is run with beside it. ``on`` are the kinds of machine.

    ``room`` is how many times the preset's memory the process may take, for variants that trade memory for speed, or
    the other way round.
    """

    name: str
    preset: str
    options: tuple[str, ...] = ()
    on: tuple[str, ...] = ("cuda",)
    room: float = 1.0

    @property
    def memory_gb(self) -> float:
        return read_preset(self.preset).memory_gb * self.room


@dataclass(frozen=True)
class Size:
    """How large a check is: the whole one, or one that a CPU does in a test."""

    model: str
    shapes: tuple[Shape, ...]
    clips: int
    steps: int
    inference_steps: int
    options: tuple[str, ...] = ()


WHOLE = Size(
    "ltxtrain/random-2b",
    (Shape(480, 480, 49), Shape(768, 512, 49), Shape(768, 512, 121)),
    8,
    steps=20,
    inference_steps=4,
)
TINY = Size(
    "ltxtrain/tiny",
    (Shape(64, 64, 9), Shape(128, 64, 17)),
    clips=2,
    steps=6,
    inference_steps=2,
    options=("--torch_num_threads=1", "--train_batch_size=2"),
)
SIZES = {"whole": WHOLE, "tiny": TINY}

FAST = ("--gradient_checkpointing=false",)
COMPILED = ("--dynamo_backend=inductor", "--dynamo_use_regional_compilation=true")
CASES = (
    Case("low-vram", "low-vram", on=("cuda", "cpu")),
    Case("low-vram-4gb", "low-vram", ("--vae_enable_framewise_encoding=true",), room=4 / 6),
    Case("nf4-stable", "nf4-stable", on=("cuda", "cpu")),
    Case("int8-16gb", "int8-16gb", on=("cuda", "cpu")),
    Case("int8-compile", "int8-compile"),
    Case("bf16", "bf16", on=("cuda", "rocm", "cpu")),
    Case("bf16-fast", "bf16", FAST, on=("cuda", "rocm"), room=4.0),
    Case("bf16-fast-compiled", "bf16", (*FAST, *COMPILED), on=("cuda", "rocm"), room=4.0),
    Case("bf16-multi-gpu", "bf16-multi-gpu"),
    Case("full-finetune", "full-finetune"),
    Case("documented-example", "documented-example"),
    Case("rocm-mi300x", "rocm-mi300x", on=("rocm",)),
    Case("apple-mps", "apple-mps", on=("mps",)),
)


def cases_for(machine: str) -> tuple[Case, ...]:
    """The stages that mean something on a machine of that kind: cuda, rocm, mps or cpu."""
    return tuple(case for case in CASES if machine in case.on)


def words_of(case: Case, shape: Shape, size: Size, clips: Path) -> list[str]:
    """The words after ``ltxtrain plan`` or ``train``. What the presets say of sizes is replaced.

    ``--set-aside-unbuilt`` lets presets run in part whose options are not all built; the plan says which those are.
    """
    options = {
        "pretrained_model_name_or_path": size.model,
        "data": str(clips),
        "cache": "cache",
        "output": shape.key,
        "run_name": "run",
        "resolution": (shape.width * shape.height) ** 0.5,
        "resolution_type": "pixel_area",
        "num_frames": shape.frames,
        "framerate": FPS,
        "max_train_steps": size.steps,
        "lr_warmup_steps": 0,
        "checkpoint_step_interval": 0,
        "validation_prompt": "a white disc moves to the right",
        "validation_resolution": f"{shape.width}x{shape.height}",
        "validation_num_video_frames": shape.frames,
        "validation_num_inference_steps": size.inference_steps,
        "validation_step_interval": 0,
        "disable_benchmark": "true",
    }
    flags = [f"--{name}={value}" for name, value in options.items()]
    return ["--preset", case.preset, "--set-aside-unbuilt", *flags, *size.options, *case.options]


def make_clips(folder: Path, shape: Shape, count: int) -> None:
    """A bright disc that crosses a gradient, at another height in each clip. Clips that are there are kept."""
    import av
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[0 : shape.height, 0 : shape.width]
    for number in range(count):
        caption = folder / f"clip{number}.txt"
        if caption.exists():
            continue
        with av.open(str(folder / f"clip{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "ultrafast"})
            stream.width, stream.height, stream.pix_fmt = shape.width, shape.height, "yuv420p"
            ground = np.stack(
                [columns * 255 // shape.width, rows * 255 // shape.height, 25 * number % 255 + 0 * rows], -1
            )
            for index in range(shape.frames):
                centre = shape.width * (index + number) / (shape.frames + count)
                disc = (rows - shape.height * (number + 1) / (count + 1)) ** 2 + (columns - centre) ** 2 < 300
                picture = np.where(disc[..., None], 255, ground).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        caption.write_text(f"a white disc moves to the right, number {number}\n")
