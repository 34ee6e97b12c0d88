"""What ltxtrain is measured against: the shortest honest loop over the same model, with the data in memory.

``python -m bench.bare train MODEL`` and ``python -m bench.bare encode VAE`` print one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import torch

from bench import job


def train(model: Path) -> dict[str, object]:
    from diffusers import LTXVideoTransformer3DModel
    from peft import LoraConfig

    transformer = LTXVideoTransformer3DModel.from_pretrained(model / "transformer", torch_dtype=torch.float32)
    transformer.requires_grad_(False)
    transformer.add_adapter(LoraConfig(r=job.RANK, lora_alpha=job.RANK, target_modules=list(job.TARGETS)))
    transformer.train()
    parameters = [parameter for parameter in transformer.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=job.LEARNING_RATE)
    torch.manual_seed(0)
    tokens = job.LATENT_FRAMES * job.LATENT_HEIGHT * job.LATENT_WIDTH
    latents = torch.randn(job.CLIPS, tokens, job.LATENT_CHANNELS)
    embeds = torch.randn(job.CLIPS, job.TEXT_TOKENS, job.TEXT_WIDTH)
    mask = torch.zeros(job.CLIPS, job.TEXT_TOKENS, dtype=torch.bool)
    mask[:, :16] = True
    seconds = []
    for step in range(job.STEPS):
        began = time.perf_counter()
        pick = slice(step % job.CLIPS, step % job.CLIPS + 1)
        clean, noise = latents[pick], torch.randn(1, tokens, job.LATENT_CHANNELS)
        sigma = torch.sigmoid(torch.randn(1))
        velocity = transformer(
            hidden_states=(1 - sigma) * clean + sigma * noise,
            encoder_hidden_states=embeds[pick],
            timestep=sigma * 1000,
            encoder_attention_mask=mask[pick],
            num_frames=job.LATENT_FRAMES,
            height=job.LATENT_HEIGHT,
            width=job.LATENT_WIDTH,
            rope_interpolation_scale=(8 / job.FPS, 32, 32),
            return_dict=False,
        )[0]
        loss = torch.nn.functional.mse_loss(velocity, noise - clean)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


@torch.inference_mode()
def encode(folder: Path) -> dict[str, object]:
    """The VAE's encoder alone, on frames that are already in memory."""
    from diffusers import AutoencoderKLLTXVideo

    vae = AutoencoderKLLTXVideo.from_pretrained(folder, torch_dtype=torch.float32).eval()
    clip = torch.rand(1, 3, job.FRAMES, job.HEIGHT, job.WIDTH) * 2 - 1
    seconds = []
    for _ in range(job.CLIPS):
        began = time.perf_counter()
        vae.encode(clip).latent_dist.mode()
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "threads": torch.get_num_threads()}


if __name__ == "__main__":
    print(json.dumps({"train": train, "encode": encode}[sys.argv[1]](Path(sys.argv[2]))))
