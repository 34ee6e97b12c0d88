"""The file for ComfyUI, against names and shapes written down from ComfyUI's own source for LTX-Video.

comfy/ldm/lightricks/model.py: LTXVModel has patchify_proj, adaln_single (emb.timestep_embedder.linear_1 and linear_2,
linear), caption_projection (linear_1, linear_2), proj_out, and transformer_blocks.N with attn1 and attn2 (to_q, to_k,
to_v, to_out.0) and ff (net.0.proj, net.2). comfy/lora.py looks for each weight of the model as
``diffusion_model.NAME``, with ``.alpha`` read as one number; comfy/weight_adapter/lora.py takes ``.lora_A.weight`` and
``.lora_B.weight`` and adds alpha / rank * B @ A to the weight.
"""

from __future__ import annotations

import pytest
import torch
from diffusers import LTXVideoTransformer3DModel
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
from safetensors.torch import load_file

from ltxtrain.export import iter_export
from ltxtrain.model.adapter import adapter_off
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.loading import Loading, load_transformer
from ltxtrain.model.tiny import TinySpec
from ltxtrain.model.transformer import predict_velocity
from tests.export.conftest import ALL_TARGETS, MakeRun

NAME = "my-run_comfyui.safetensors"
WIDTH, TEXT = TinySpec().heads * TinySpec().head_dim, TinySpec().text_dim

# name of the module in ComfyUI: (inputs, outputs)
ATTENTION = {
    f"transformer_blocks.{block}.{attention}.{projection}": (WIDTH, WIDTH)
    for block in (0, 1)
    for attention in ("attn1", "attn2")
    for projection in ("to_q", "to_k", "to_v", "to_out.0")
}
EVERYTHING = ATTENTION | {
    "patchify_proj": (128, WIDTH),
    "adaln_single.emb.timestep_embedder.linear_1": (256, WIDTH),
    "adaln_single.emb.timestep_embedder.linear_2": (WIDTH, WIDTH),
    "adaln_single.linear": (WIDTH, 6 * WIDTH),
    "caption_projection.linear_1": (TEXT, WIDTH),
    "caption_projection.linear_2": (WIDTH, WIDTH),
    "transformer_blocks.0.ff.net.0.proj": (WIDTH, 4 * WIDTH),
    "transformer_blocks.0.ff.net.2": (4 * WIDTH, WIDTH),
    "transformer_blocks.1.ff.net.0.proj": (WIDTH, 4 * WIDTH),
    "transformer_blocks.1.ff.net.2": (4 * WIDTH, WIDTH),
    "proj_out": (WIDTH, 128),
}


def shapes_that_comfyui_looks_for(modules: dict[str, tuple[int, int]], rank: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in modules.items():
        shapes[f"diffusion_model.{name}.lora_A.weight"] = (rank, inputs)
        shapes[f"diffusion_model.{name}.lora_B.weight"] = (outputs, rank)
        shapes[f"diffusion_model.{name}.alpha"] = ()
    return shapes


@pytest.mark.parametrize(
    ("targets", "modules", "rank"), [(None, ATTENTION, 4), (ALL_TARGETS, EVERYTHING, 3)], ids=["default", "everything"]
)
def test_names_and_shapes_are_those_of_comfyui(
    make_run: MakeRun, targets: tuple[str, ...] | None, modules: dict[str, tuple[int, int]], rank: int
) -> None:
    run = make_run(targets, rank=rank, alpha=6.0) if targets else make_run(rank=rank, alpha=6.0)
    list(iter_export(run.folder))
    tensors = load_file(run.folder / "export" / NAME)
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes_that_comfyui_looks_for(
        modules, rank
    )
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    assert {tensor.item() for name, tensor in tensors.items() if name.endswith(".alpha")} == {6.0}


def patch_like_comfyui(base: LTXVideoTransformer3DModel, tensors: dict[str, torch.Tensor]) -> None:
    """W + alpha / rank * B @ A; from Lightricks' names to diffusers' by diffusers' own conversion of checkpoints."""
    for key in [name for name in tensors if name.endswith(".lora_A.weight")]:
        module = key.removesuffix(".lora_A.weight")
        down, up, alpha = tensors[key], tensors[f"{module}.lora_B.weight"], tensors[f"{module}.alpha"].item()
        change = alpha / down.shape[0] * (up.float() @ down.float())
        (name,) = convert_ltx_transformer_checkpoint_to_diffusers({f"model.{module}.weight": change})
        weight = base.get_parameter(name)
        weight.data += change.to(weight.dtype)


@pytest.mark.parametrize(("suffix", "tolerance"), [("", 1e-5), ("_bf16", 2e-2)])
def test_weights_patched_as_comfyui_does_give_the_adapters_output(
    make_run: MakeRun, tiny: ModelFolder, suffix: str, tolerance: float
) -> None:
    run = make_run(ALL_TARGETS, rank=3, alpha=0.75)
    list(iter_export(run.folder, dtype="bf16"))
    # Loaded twice, not copied: where weights lie in memory decides the last bit of a matrix product.
    patched, before = load_transformer(tiny, Loading(torch.float32)), load_transformer(tiny, Loading(torch.float32))
    patch_like_comfyui(patched, load_file(run.folder / "export" / NAME.replace(".", f"{suffix}.", 1)))

    generator = torch.Generator().manual_seed(3)
    noisy_BCFHW = torch.randn(1, 128, 2, 2, 2, generator=generator)
    embeds_BLD = torch.randn(1, 128, TEXT, generator=generator)
    mask_BL = torch.ones(1, 128, dtype=torch.bool)

    def velocity(transformer: LTXVideoTransformer3DModel) -> torch.Tensor:
        with torch.no_grad():
            return predict_velocity(transformer, noisy_BCFHW, torch.tensor([0.5]), embeds_BLD, mask_BL, 25.0)

    mine, theirs, base = velocity(run.transformer), velocity(patched), velocity(before)
    scale = mine.abs().mean().item()
    torch.testing.assert_close(theirs, mine, atol=tolerance * scale, rtol=tolerance)
    assert (mine - base).abs().mean() > 10 * (mine - theirs).abs().mean()
    with adapter_off(run.transformer):
        assert torch.equal(velocity(run.transformer), base)
