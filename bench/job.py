"""The job that is measured: a small LTX-Video pipeline in an ordinary diffusers folder, and ten short clips.

``python -m bench.job FOLDER [VAE]`` builds both, and a folder for each VAE that is compared. Everything is
drawn from fixed seeds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CLIPS = 10
FRAMES, HEIGHT, WIDTH, FPS = 25, 192, 256, 25
STEPS = 30
VAES = ("0.9.1", "0.9.5")
RANK = 16
TARGETS = ("to_k", "to_q", "to_v", "to_out.0")
LEARNING_RATE = 1e-4
# Text: T5 gives 128 tokens of this width.
TEXT_TOKENS, TEXT_WIDTH = 128, 32
LATENT_CHANNELS = 128
LATENT_FRAMES, LATENT_HEIGHT, LATENT_WIDTH = (FRAMES - 1) // 8 + 1, HEIGHT // 32, WIDTH // 32

# The same as ltxtrain reads it, with paths from the folder that holds model/ and clips/.
CONFIG = {
    "pretrained_model_name_or_path": "model",
    "instance_data_dir": "clips",
    "num_frames": FRAMES,
    "framerate": FPS,
    "resolution": (HEIGHT * WIDTH) ** 0.5,
    "resolution_type": "pixel_area",
    "train_batch_size": 1,
    "lora_rank": RANK,
    "learning_rate": LEARNING_RATE,
    "lr_scheduler": "constant",
    "mixed_precision": "no",
    "vae_dtype": "fp32",
    "gradient_checkpointing": False,
    "max_train_steps": STEPS,
    "checkpoint_step_interval": STEPS,
    "validation_disable": True,
    "seed": 1,
}


def build(folder: Path, vae: str) -> None:
    from ltxtrain.model.tiny import TinySpec, build_pipeline

    spec = TinySpec(layers=8, heads=8, head_dim=64, text_dim=TEXT_WIDTH, seed=1)
    pipeline = build_pipeline(spec)
    vaes = {release: quarter_width_vae(release) for release in VAES}
    for release, each in vaes.items():
        each.save_pretrained(folder / f"vae-{release}")
    pipeline.register_modules(vae=vaes[vae])
    pipeline.save_pretrained(folder / "model")
    for component in ("transformer", "vae", "text_encoder"):
        count = sum(parameter.numel() for parameter in getattr(pipeline, component).parameters())
        print(f"{component}: {count / 1e6:.2f} M parameters")
    make_clips(folder / "clips")
    (folder / "job.json").write_text(json.dumps(CONFIG, indent=2))


def quarter_width_vae(release: str) -> Any:
    """The VAE of a release with every channel count divided by four and the depth left as it is."""
    import torch
    from diffusers import AutoencoderKLLTXVideo

    common = {
        "latent_channels": LATENT_CHANNELS,
        "decoder_block_out_channels": (64, 128, 256),
        "decoder_spatio_temporal_scaling": (True,) * 3,
        "upsample_residual": (True,) * 3,
        "upsample_factor": (2,) * 3,
        "timestep_conditioning": True,
        "spatial_compression_ratio": 32,
        "temporal_compression_ratio": 8,
    }
    layouts = {
        "0.9.1": {
            "block_out_channels": (32, 64, 128, 128),
            "layers_per_block": (4, 3, 3, 3, 4),
            "spatio_temporal_scaling": (True, True, True, False),
            "decoder_layers_per_block": (5, 6, 7, 8),
            "decoder_inject_noise": (True, True, True, False),
        },
        "0.9.5": {
            "block_out_channels": (32, 64, 128, 256, 512),
            "layers_per_block": (4, 6, 6, 2, 2),
            "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
            "spatio_temporal_scaling": (True,) * 4,
            "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
            "decoder_layers_per_block": (5, 5, 5, 5),
            "decoder_inject_noise": (False,) * 4,
        },
    }
    torch.manual_seed(1)
    return AutoencoderKLLTXVideo(**common, **layouts[release]).eval()


def make_clips(folder: Path) -> None:
    """A bright disc that crosses a gradient, at another height and speed in each clip."""
    import av
    import numpy as np

    folder.mkdir(parents=True)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    for number in range(CLIPS):
        with av.open(str(folder / f"clip{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for index in range(FRAMES):
                centre = 20 + index * (4 + number % 5)
                disc = (rows - 20 - 15 * number) ** 2 + (columns - centre) ** 2 < 300
                picture = np.stack([columns * 255 // WIDTH, rows * 255 // HEIGHT, np.full_like(rows, 25 * number)], -1)
                picture = np.where(disc[..., None], 255, picture).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        (folder / f"clip{number}.txt").write_text(f"a white disc moves to the right, number {number}\n")


if __name__ == "__main__":
    build(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else VAES[0])
