"""Videos rendered during the run to judge it by, and the loss on held-out clips."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from ltxtrain.config.option import LocalPath, Section, TextOrNumber, option


def parse_resolutions(text: str) -> tuple[tuple[int, int], ...]:
    """``"768x512,640"`` -> ``((768, 512), (640, 640))`` as (width, height) in pixels. Raises ValueError."""
    sizes = []
    for part in text.split(","):
        numbers = part.strip().lower().split("x")
        if len(numbers) not in (1, 2) or not all(number.strip().isdecimal() for number in numbers):
            raise ValueError("sizes are written as 768x512 or 512, several with commas between")
        width, height = int(numbers[0]), int(numbers[-1])
        if not (32 <= width <= 8192 and 32 <= height <= 8192):
            raise ValueError("each side must be 32 to 8192 pixels")
        sizes.append((width, height))
    return tuple(sizes)


def _readable(text: str) -> str:
    parse_resolutions(text)
    return text


Resolutions = Annotated[TextOrNumber, AfterValidator(_readable)]


class ValidationConfig(Section):
    validation_prompt: str | None = option(None, "The prompt that is rendered during the run.")
    validation_prompt_library: bool = option(False, "Render the built-in list of prompts as well.")
    user_prompt_library: LocalPath | None = option(
        None, "A JSON file of more prompts to render, as {name: prompt}; the name becomes the file's name."
    )
    validation_negative_prompt: str = option(
        "worst quality, inconsistent motion, blurry, jittery, distorted",
        "What the rendered videos should not show.",
        documented="blurry, cropped, ugly",
    )
    validation_guidance: float = option(3.0, "How closely videos follow the prompt.", ge=0, le=100, documented=7.5)
    validation_guidance_real: float = option(1.0, "True guidance of distilled models; not for LTX-Video.", ge=0)
    validation_guidance_rescale: float = option(0.0, "Tame the contrast of strong guidance.", ge=0, le=1)
    validation_guidance_skip_layers: tuple[int, ...] | None = option(
        None, "Skip these layers while guiding; not for LTX-Video."
    )
    validation_num_inference_steps: int = option(40, "Denoising steps of each video.", ge=2, le=1000, documented=30)
    validation_resolution: Resolutions = option(
        "768x512", "Sizes to render, as WIDTHxHEIGHT; several with commas between.", documented="256"
    )
    validation_num_video_frames: int | None = option(None, "Frames of each video; not set means 121.", ge=1, le=1025)
    validation_seed: int | None = option(42, "The seed of the rendered videos.", ge=0, le=2**63 - 1, documented=None)
    validation_seed_source: Literal["cpu", "gpu"] = option("cpu", "Where the starting noise is drawn.")
    validation_randomize: bool = option(False, "Render with a new seed each time.")
    validation_step_interval: int = option(100, "Render each so many steps; 0 renders at the end only.", ge=0)
    validation_epoch_interval: int | None = option(None, "Render each so many epochs.", ge=1)
    validate_after_step: int | None = option(None, "Render nothing before this step.", ge=0)
    validate_after_epoch: int | None = option(None, "Render nothing before this epoch.", ge=0)
    validation_on_startup: bool = option(False, "Render once before the first step.")
    validation_disable: bool = option(False, "Render nothing.")
    validation_disable_unconditional: bool = option(
        True, "Do not render the empty prompt; always so for LTX-Video.", documented=False
    )
    num_validation_images: int = option(1, "Videos for each prompt and size.", ge=1, le=64)
    validation_noise_scheduler: str | None = option(None, "Another sampler for rendering.")
    validation_using_datasets: bool = option(False, "Start rendering from images of the data sets.")
    validation_input: LocalPath | None = option(None, "Start rendering from this image.")
    validation_stitch_input_location: Literal["left", "right"] = option("left", "Where a start image is shown.")
    validation_lycoris_strength: float = option(1.0, "The strength of a LyCORIS adapter in rendering.", ge=0)
    validation_adapter_path: str | None = option(None, "Render with this adapter as well.")
    validation_adapter_name: str | None = option(None, "The name of that adapter.")
    validation_adapter_strength: float = option(1.0, "The strength of that adapter.", ge=0)
    validation_adapter_mode: Literal["adapter_only", "comparison", "none"] | None = option(
        None, "Whether videos are rendered with that adapter only, or both ways."
    )
    validation_adapter_config: dict[str, Any] | LocalPath | None = option(None, "Several adapters to render with.")
    validation_method: Literal["simpletuner-local", "external-script"] = option(
        "simpletuner-local", "Render here, or leave it to a script."
    )
    validation_external_script: str | None = option(None, "The script that renders.")
    validation_external_background: bool = option(False, "Do not wait for the script.")
    validation_multigpu: Literal["batch-parallel", "single-gpu"] = option(
        "batch-parallel", "Spread rendering over all GPUs, or use one."
    )
    validation_image_format: Literal["png", "webp", "jpeg"] = option("png", "The format of still pictures.")
    validation_image_quality: int = option(90, "The quality of webp and jpeg pictures.", ge=1, le=100)
    validation_preview: bool = option(False, "Send unfinished pictures while a video is rendered.")
    validation_preview_steps: int = option(1, "Send one each so many denoising steps.", ge=1)
    disable_benchmark: bool = option(False, "Do not render all prompts with the untrained model before the run.")
    evaluation_type: Literal["none", "clip"] = option("none", "A score for rendered videos; CLIP is not for videos.")
    eval_steps_interval: int | None = option(None, "Measure the loss on held-out clips each so many steps.", ge=1)
    eval_epoch_interval: float | None = option(None, "Measure it each so many epochs; 0.5 is twice an epoch.", gt=0)
    num_eval_images: int = option(4, "Batches that are measured.", ge=1)
    eval_timesteps: int = option(28, "Timesteps that are measured.", ge=1, le=1000)
    eval_dataset_id: str | None = option(None, "Measure this data set only.")
    eval_dataset_pooling: bool = option(False, "Report one figure for all data sets together.")
    eval_loss_disable: bool = option(False, "Measure nothing, even with held-out clips.")
