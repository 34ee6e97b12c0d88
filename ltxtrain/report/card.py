"""``README.md`` of a run: the model card, ready for the Hub. Counts and settings, never captions or private paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from string import Template

from ltxtrain.facts.models import BUILT_IN, DEFAULT_MODEL, TINY_MODEL
from ltxtrain.files import write_atomically
from ltxtrain.plan.folder import RunFolder
from ltxtrain.report.clips import batch_range, counts_of, shape_name, to_words
from ltxtrain.report.curves import number
from ltxtrain.report.loose import as_count, as_number, as_object, as_objects, as_text
from ltxtrain.report.run import DIFFUSERS_FILE, Run, Video, read_run
from ltxtrain.report.sections import config_hash, show_value
from ltxtrain.report.sets import SetFacts
from ltxtrain.report.training import smoothed_loss, time_in_steps
from ltxtrain.units import counted, format_duration

TAGS = ("ltx-video", "lora", "text-to-video", "diffusers", "template:sd-lora")
SHAPES = 12  # that the card lists
TINY_FOLDER = "path/to/cache/models/tiny-*"  # a place in the snippet for the reader to fill in
RANDOM_FOLDER = "path/to/cache/models/random-*"
TRAINING = (
    "lora_type",
    "lora_rank",
    "lora_alpha",
    "lora_dropout",
    "peft_lora_target_modules",
    "optimizer",
    "learning_rate",
    "lr_scheduler",
    "lr_warmup_steps",
    "max_train_steps",
    "max_grad_norm",
    "grad_clip_method",
    "train_batch_size",
    "gradient_accumulation_steps",
    "mixed_precision",
    "base_model_precision",
    "flow_schedule_shift",
    "flow_schedule_auto_shift",
    "caption_dropout_probability",
    "ltx_train_mode",
    "framerate",
    "seed",
)
RENDERING = (
    "validation_resolution",
    "validation_num_video_frames",
    "validation_num_inference_steps",
    "validation_guidance",
    "validation_guidance_rescale",
    "validation_negative_prompt",
    "validation_seed",
)

CARD = Template("""\
$front
# $title

A LoRA of $base, trained for $steps with ltxtrain.

$gallery
$license

## Trained on

$data

## Use it with diffusers

$needed```python
$snippet
```

## Use it with ComfyUI

$comfyui

## Training settings

$training

## Settings of the videos

$rendering

## How it was made

$versions
""")

SNIPPET = Template("""\
# pip install torch diffusers transformers peft sentencepiece imageio imageio-ffmpeg
import torch
from diffusers import LTXPipeline
from diffusers.utils import export_to_video

pipe = LTXPipeline.from_pretrained($base, dtype=torch.bfloat16)
pipe.load_lora_weights($folder, weight_name=$weights)
pipe.to("cuda")  # "mps" on an Apple machine, "cpu" without an accelerator

frames = pipe(
    prompt=$prompt,
    negative_prompt=$negative,
    width=$width,
    height=$height,
    num_frames=$frames,
    frame_rate=$fps,
    num_inference_steps=$steps,
    guidance_scale=$guidance,
    guidance_rescale=$rescale,
    generator=torch.Generator("cpu").manual_seed($seed),
).frames[0]
export_to_video(frames, "video.mp4", fps=$fps)""")


def write_card(run_dir: Path) -> Path:
    """Write ``run_dir/README.md`` from the files of the run folder and return its path.

    The same folder gives the same bytes. Raises DataError where ``run_dir`` is no run folder.
    """
    path = RunFolder(run_dir).readme
    write_atomically(path, render_card(read_run(run_dir)))
    return path


def render_card(run: Run) -> str:
    return CARD.substitute(
        front=_front_matter(run),
        title=_inline(run.name),
        base=_base_link(run),
        steps=f"{run.done_steps:,} {'step' if run.done_steps == 1 else 'steps'}",
        gallery="<Gallery />\n" if _shown(run) else "No validation video was rendered in this run.\n",
        license=_license_sentence(run),
        data=_data(run),
        needed=_needed(run),
        snippet=usage_snippet(run),
        comfyui=_comfyui(run),
        training=_settings_table([(name, _training_value(run, name)) for name in TRAINING]),
        rendering=_settings_table([(name, _shown_value(run.setting(name))) for name in RENDERING]),
        versions=_versions(run),
    )


def usage_snippet(run: Run, folder: str = "export") -> str:
    """Python that renders the first validation prompt with the exported adapter; ``folder`` is where the file lies."""
    shown = _shown(run)
    facts = shown[0].facts if shown else {}
    return SNIPPET.substitute(
        base=repr(_base_source(run)),
        folder=repr(folder),
        weights=repr(DIFFUSERS_FILE),
        prompt=repr(shown[0].prompt if shown else as_text(run.setting("validation_prompt")) or "a prompt of yours"),
        negative=repr(as_text(run.setting("validation_negative_prompt"))),
        width=as_count(facts.get("width")) or 768,
        height=as_count(facts.get("height")) or 512,
        frames=as_count(facts.get("frames")) or 121,
        steps=as_count(facts.get("steps")) or 30,
        guidance=f"{3.0 if (guidance := as_number(facts.get('guidance'))) is None else guidance:g}",
        rescale=f"{as_number(run.setting('validation_guidance_rescale')) or 0.0:g}",
        seed=as_count(facts.get("seed")) if facts.get("seed") is not None else 42,
        fps=as_count(run.setting("framerate")) or 25,
    )


def _front_matter(run: Run) -> str:
    """The YAML that the Hub reads, written by its own library."""
    from huggingface_hub import ModelCardData

    widget = [{"text": video.prompt or video.name, "output": {"url": _relative(run, video)}} for video in _shown(run)]
    license_facts = {"license": "other", "license_name": "see-base-model"}
    if _is_on_hub(run):
        license_facts["license_link"] = f"https://huggingface.co/{run.base_model}"
    elif run.base_model in BUILT_IN:
        license_facts = {"license": "apache-2.0"}
    facts = {
        "library_name": "diffusers",
        "pipeline_tag": "text-to-video",
        "tags": list(TAGS),
        **license_facts,
        **({"base_model": run.base_model, "base_model_relation": "adapter"} if _is_on_hub(run) else {}),
        **({"instance_prompt": trigger} if (trigger := as_text(run.setting("instance_prompt"))) else {}),
        **({"widget": widget} if widget else {}),
    }
    return f"---\n{ModelCardData(**facts).to_yaml(line_break=chr(10)).strip()}\n---"


def _shown(run: Run) -> list[Video]:
    """The videos of the last step that has any file."""
    there = [video for video in run.videos if video.file and video.step > 0]
    last = max((video.step for video in there), default=0)
    return [video for video in there if video.step == last]


def _relative(run: Run, video: Video) -> str:
    return video.file.relative_to(run.root).as_posix() if video.file else ""


def _is_on_hub(run: Run) -> bool:
    return "/" in run.base_model and run.base_model not in BUILT_IN


def _base_link(run: Run) -> str:
    if _is_on_hub(run):
        return f"[{run.base_model}](https://huggingface.co/{run.base_model})"
    if run.base_model == TINY_MODEL:
        return "the built-in tiny test model"
    told = _inline(run.base_model or "LTX-Video")
    return f"{told}, a built-in model with random weights" if run.base_model in BUILT_IN else told


def _base_source(run: Run) -> str:
    """What from_pretrained shall be given: a repository, or a place to fill in that nobody takes for one."""
    if run.base_model in BUILT_IN:
        return TINY_FOLDER if run.base_model == TINY_MODEL else RANDOM_FOLDER
    if _is_on_hub(run) or not run.base_model:
        return run.base_model or DEFAULT_MODEL
    return f"path/to/the/folder/{run.base_model}"


def _needed(run: Run) -> str:
    """What the snippet cannot say: where a base model is that no hub has."""
    if run.base_model == TINY_MODEL:
        return (
            "The base, ltxtrain's own tiny test model, is on no hub: it lives in the folder `models/tiny-*` of the "
            "cache that the run used. Its weights are random, so every video is noise, with and without this LoRA.\n\n"
        )
    if run.base_model in BUILT_IN:
        return (
            f"The base, {run.base_model}, has the sizes of LTX-Video and random weights, drawn when it is loaded: no "
            "other program loads it. This LoRA is what a measurement of memory and speed left behind.\n\n"
        )
    if _is_on_hub(run) or not run.base_model:
        return ""
    return "The base was a folder on the machine that trained. Put the place of your copy into the first call.\n\n"


def _license_sentence(run: Run) -> str:
    if run.base_model in BUILT_IN:
        return "The base is a random test model without a licence of its own: this adapter is of use for tests only."
    return "The weights of the base model carry their own licence, and it holds for this adapter too: read it there."


def _data(run: Run) -> str:
    if not run.plan:
        return "The run folder holds no plan."
    counts, accumulation = counts_of(run), as_count(run.plan.get("accumulation"))
    made = " (made by ltxtrain itself: moving shapes)" if run.plan.get("made_clips") is True else ""
    epochs = as_number(run.plan.get("epochs")) or 0
    low, high = (size * accumulation for size in batch_range(run.plan))
    lines = [
        f"- {counted(counts.used, 'clip')} of {counts.found} found, {counted(counts.windows, 'window')}{made}",
        *([_set_line(run, entry) for entry in run.sets] if len(run.sets) > 1 else []),
        f"- {epochs:.4g} {'epoch' if epochs == 1 else 'epochs'} planned, "
        f"{to_words(low, high)} {'sample' if high == 1 else 'samples'} for each step",
        *_bucket_lines(run),
    ]
    losses = smoothed_loss(run.steps)
    if losses:
        lines.append(f"- mean loss {number(losses[0])} over the first steps, {number(losses[1])} over the last")
    seconds = time_in_steps(run.steps)
    if seconds is not None:
        lines.append(f"- {format_duration(seconds.total)} in training steps, {_machine(run)}")
    return "\n".join(lines)


def _set_line(run: Run, entry: SetFacts) -> str:
    """What the data set gave, and what for. Names of clips are not for others."""
    clips = counted(entry.clips_used, "picture" if entry.kind == "image" else "clip")
    name = _inline(entry.id)
    if entry.trained:
        purpose = ", to hold the model where it was (regularisation)" if entry.regularisation else ""
        return f"  - {name}: {clips}{purpose}"
    losses = [one.loss for one in run.evaluations if one.dataset == entry.id]
    told = f"; loss {number(losses[0])} at first, {number(losses[-1])} at the end" if len(losses) > 1 else ""
    return f"  - {name}: {clips}, held out: measured, never trained on{told}"


def _bucket_lines(run: Run) -> list[str]:
    """The shapes that are trained, the same of several data sets together."""
    windows: Counter[str] = Counter()
    for entry in as_objects(run.plan.get("buckets")):
        windows[shape_name(as_object(entry.get("bucket")))] += as_count(entry.get("samples"))
    shown = windows.most_common(SHAPES)
    lines = [f"- {counted(count, 'window')} at {shape}" for shape, count in shown]
    rest = windows.total() - sum(count for _, count in shown)
    return [*lines, f"- {counted(rest, 'window')} at {counted(len(windows) - SHAPES, 'other size')}"] if rest else lines


def _machine(run: Run) -> str:
    machine = as_object(run.plan.get("machine"))
    gpus = as_objects(machine.get("gpus"))
    return f"on {_inline(as_text((gpus[0] if gpus else {}).get('name')) or as_text(machine.get('cpu')) or 'a CPU')}"


def _comfyui(run: Run) -> str:
    name = next((file.name for file in run.exports if file.name.endswith("_comfyui.safetensors")), "")
    file = f"`export/{name}`" if name else "the file from `export/` that ends with `_comfyui.safetensors`"
    return (
        f"Put {file} into `models/loras`, add the node *LoraLoaderModelOnly* between the checkpoint loader and the "
        "sampler of an LTX-Video workflow, and choose the file there. Strength 1 is what was trained."
    )


def _settings_table(found: Sequence[tuple[str, str]]) -> str:
    rows = [(f"`{name}`", value) for name, value in found if value]
    return _markdown_table(("Setting", "Value"), rows) if rows else "The run folder holds no configuration."


def _training_value(run: Run, name: str) -> str:
    """The value, or what held in its place where it was left open."""
    value, shown = run.setting(name), _shown_value(run.setting(name))
    if name == "lora_alpha" and value is None and (rank := _shown_value(run.setting("lora_rank"))):
        return f"{rank}, as the rank"
    if name == "max_train_steps" and not value and run.planned_steps:
        return f"`{run.planned_steps}`, worked out from the epochs or by default"
    if name == "ltx_train_mode" and value == "i2v":
        share = 100 * (as_number(run.setting("ltx_i2v_prob")) or 0.0)
        return f"{shown}: {share:g} % of the samples begin with a given first frame, the others with text alone"
    return f"{shown}: all samples begin with text alone" if name == "ltx_train_mode" and value == "t2v" else shown


def _shown_value(value: object) -> str:
    """As code; nothing where the run does not tell."""
    return f"`{_cell(show_value(_without_folders(value)))}`" if value is not None else ""


def _without_folders(value: object) -> object:
    """A setting that names a file tells its name only: the card is for others."""
    return PurePosixPath(value).name if isinstance(value, str) and value.startswith(("/", "~", ".")) else value


def _versions(run: Run) -> str:
    told = ("ltxtrain", "git_commit", "lock_sha256", "python")
    facts = {name.replace("_", " "): run.manifest.get(name) for name in told}
    facts["image"] = as_object(run.manifest.get("image")).get("digest")
    facts |= as_object(run.manifest.get("packages"))
    facts["dataset fingerprint"] = as_object(run.manifest.get("dataset")).get("fingerprint")
    facts["config hash"] = config_hash(run)
    rows = [(name, f"`{_cell(as_text(value))}`") for name, value in facts.items() if value]
    return _markdown_table(("What", "Value"), rows) if rows else "The run folder holds no manifest."


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """One line, without what would end the cell or its code span."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())


def _inline(text: str) -> str:
    """Text that markdown and HTML leave alone."""
    return "".join(f"\\{char}" if char in "\\`*_[]<>#|" else char for char in " ".join(text.split()))
