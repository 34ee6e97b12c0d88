from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from safetensors.torch import load_file, save_file
from transformers import T5EncoderModel

from ltxtrain.errors import ModelError
from ltxtrain.facts.models import KNOWN_MODELS
from ltxtrain.model.folder import ModelFolder, load_scheduler
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.render import RenderSettings, make_render_pipeline, render_video
from ltxtrain.model.text import PromptEmbedding
from ltxtrain.model.vae import encode_clips
from ltxtrain.model.weights import FileWeights

Locate = Callable[..., ModelFolder]
Tensors = dict[str, torch.Tensor]
FLOAT32 = Loading(torch.float32)
WEIGHTS = "diffusion_pytorch_model.safetensors"
KINDS: dict[str, Any] = {
    "transformer": LTXVideoTransformer3DModel,
    "vae": AutoencoderKLLTXVideo,
    "text_encoder": T5EncoderModel,
}
PARTS = tuple(KINDS)


def load(part: str, model: ModelFolder, loading: Loading) -> torch.nn.Module:
    if part == "text_encoder":
        return load_text_encoder(model, loading)[0]
    return {"transformer": load_transformer, "vae": load_vae}[part](model, loading)


@pytest.fixture
def copied(tiny: ModelFolder, tmp_path: Path) -> Path:
    """A diffusers folder of one's own, to be changed."""
    return shutil.copytree(tiny.base, tmp_path / "model")


def same_tensors(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(
        mine[name].dtype == theirs[name].dtype and torch.equal(mine[name], theirs[name]) for name in mine
    )


# ---------------------------------------------------------------- as the libraries load


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("part", PARTS)
def test_every_tensor_is_what_the_library_would_load(tiny: ModelFolder, part: str, dtype: torch.dtype) -> None:
    theirs = KINDS[part].from_pretrained(str(tiny.folders[part]), dtype=dtype, local_files_only=True)
    before = torch.get_rng_state()
    mine = load(part, tiny, Loading(dtype))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_tensors(mine, theirs)
    assert not mine.training
    trained = {name: weight.requires_grad for name, weight in mine.named_parameters()}
    assert trained == {name: weight.requires_grad for name, weight in theirs.named_parameters()}
    assert not any(buffer.requires_grad for buffer in mine.buffers())
    if part == "text_encoder" and dtype == torch.float16:  # it overflows in float16
        assert {tensor.dtype for name, tensor in mine.state_dict().items() if ".wo." in name} == {torch.float32}


def test_text_is_encoded_as_by_the_library(tiny: ModelFolder) -> None:
    theirs = T5EncoderModel.from_pretrained(str(tiny.folders["text_encoder"]), local_files_only=True)
    mine = load("text_encoder", tiny, FLOAT32)
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(mine(tokens)[0], theirs.eval()(tokens)[0])


def test_half_of_the_vae_gives_what_the_whole_gives(tiny: ModelFolder) -> None:
    whole, encoder, decoder = (load_vae(tiny, FLOAT32, half) for half in (None, "encoder", "decoder"))
    sizes = [sum(tensor.numel() for tensor in vae.state_dict().values()) for vae in (whole, encoder, decoder)]
    facts = KNOWN_MODELS[tiny.name].vae
    assert sizes == [facts.params, facts.encoder_params + 256, facts.params - facts.encoder_params]
    clip_FHWC = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
    latents_CFHW = encode_clips(encoder, [clip_FHWC], tiled=False)[0]
    assert torch.equal(latents_CFHW, encode_clips(whole, [clip_FHWC], tiled=False)[0])
    with torch.no_grad():
        videos = [vae.decode(latents_CFHW[None], torch.zeros(1)).sample for vae in (decoder, whole)]
    assert torch.equal(*videos)


@pytest.mark.parametrize("part", PARTS)
def test_weights_are_in_memory_of_their_own(locate: Locate, copied: Path, part: str) -> None:
    loaded = load(part, locate(pretrained_model_name_or_path=str(copied)), FLOAT32)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    file = next((copied / part).glob("*.safetensors"))
    file.write_bytes(bytes(file.stat().st_size))  # another program overwrites it in its place
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.state_dict().items())


@pytest.mark.parametrize("kept", [("shared.weight",), ("encoder.embed_tokens.weight",), ()])
def test_the_table_of_words_of_t5_is_one_whatever_its_name_in_the_file(
    tiny: ModelFolder, locate: Locate, copied: Path, kept: tuple[str, ...]
) -> None:
    file = copied / "text_encoder" / "model.safetensors"
    weights = load_file(file)
    names = ("shared.weight", "encoder.embed_tokens.weight")
    table = next(weights.pop(name) for name in names if name in weights)
    save_file({**weights, **{name: table.clone() for name in kept or names}}, file, {"format": "pt"})
    loaded = load_text_encoder(locate(pretrained_model_name_or_path=str(copied)), FLOAT32)[0]
    assert loaded.shared.weight is loaded.encoder.embed_tokens.weight
    assert same_tensors(loaded, load("text_encoder", tiny, FLOAT32))


# ---------------------------------------------------------------- several files


@pytest.fixture
def in_pieces(tiny: ModelFolder, copied: Path) -> Path:
    """The same model with the weights of each component in several files."""
    for part, size in (("transformer", "300KB"), ("vae", "300KB"), ("text_encoder", "50KB")):
        shutil.rmtree(copied / part)
        KINDS[part].from_pretrained(str(tiny.folders[part])).save_pretrained(copied / part, max_shard_size=size)
        assert len(list((copied / part).glob("*.safetensors"))) > 1
    return copied


@pytest.mark.parametrize("part", PARTS)
def test_weights_in_several_files_are_put_together(
    tiny: ModelFolder, locate: Locate, in_pieces: Path, part: str
) -> None:
    model = locate(pretrained_model_name_or_path=str(in_pieces))
    assert same_tensors(load(part, model, FLOAT32), load(part, tiny, FLOAT32))


def test_a_piece_that_is_absent_is_told(locate: Locate, in_pieces: Path) -> None:
    piece = sorted((in_pieces / "transformer").glob("*.safetensors"))[1]
    piece.unlink()
    with pytest.raises(ModelError, match="cannot be loaded as LTXVideoTransformer3DModel") as refused:
        load_transformer(locate(pretrained_model_name_or_path=str(in_pieces)), FLOAT32)
    assert piece.name in refused.value.message


@pytest.mark.parametrize(
    "listing", ["", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a": 5}}', '{"weight_map": 3}']
)
def test_a_damaged_list_of_files_is_told(locate: Locate, in_pieces: Path, listing: str) -> None:
    (in_pieces / "transformer" / f"{WEIGHTS}.index.json").write_text(listing)
    with pytest.raises(ModelError, match="cannot be loaded as LTXVideoTransformer3DModel"):
        load_transformer(locate(pretrained_model_name_or_path=str(in_pieces)), FLOAT32)


def test_faults_are_found_before_any_weight_is_read(
    locate: Locate, in_pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileWeights, "read", None)
    piece = sorted((in_pieces / "transformer").glob("*.safetensors"))[-1]
    weights = load_file(piece)
    name = next(name for name, tensor in weights.items() if tensor.ndim == 2)
    model = locate(pretrained_model_name_or_path=str(in_pieces))
    save_file({**weights, name: torch.zeros(3, 4)}, piece, {"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name} has the shape \[3, 4\], expected shape"):
        load_transformer(model, FLOAT32)
    save_file({other: tensor for other, tensor in weights.items() if other != name}, piece, {"format": "pt"})
    with pytest.raises(ModelError, match=f"it has no weights for {name}$"):
        load_transformer(model, FLOAT32)
    save_file({}, piece, {"format": "pt"})
    with pytest.raises(ModelError, match=f"it has no weights for {min(weights)} and {len(weights) - 1} more"):
        load_transformer(model, FLOAT32)


def test_a_folder_with_more_blocks_than_its_settings_tell_is_refused(locate: Locate, copied: Path) -> None:
    settings = copied / "transformer" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"num_layers": 1}))
    with pytest.raises(ModelError, match="it has more than the 1 block that its configuration tells"):
        load_transformer(locate(pretrained_model_name_or_path=str(copied)), FLOAT32)


def test_a_device_that_is_full_is_no_fault_of_the_files(tiny: ModelFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(FileWeights, "read", full)
    with pytest.raises(torch.OutOfMemoryError):
        load_transformer(tiny, FLOAT32)


# ---------------------------------------------------------------- another transformer, another VAE


@pytest.fixture
def tuned(tiny: ModelFolder) -> Tensors:
    """A fine-tuned transformer: every weight is a little different."""
    return {name: tensor + 0.01 for name, tensor in load_file(tiny.base / "transformer" / WEIGHTS).items()}


def lightricks_name(name: str) -> str:
    """As in Lightricks' own checkpoints."""
    renamed = name.replace("proj_in.", "patchify_proj.").replace("time_embed.", "adaln_single.")
    return "model.diffusion_model." + renamed.replace("norm_q.", "q_norm.").replace("norm_k.", "k_norm.")


def has_weights(loaded: torch.nn.Module, weights: Tensors) -> bool:
    state = loaded.state_dict()
    return state.keys() == weights.keys() and all(torch.equal(state[name], weights[name]) for name in weights)


@pytest.mark.parametrize("subfolder", ["transformer", "none", "None", "inner/part"])
def test_a_transformer_of_its_own_comes_from_its_folder(
    tiny: ModelFolder, locate: Locate, tuned: Tensors, tmp_path: Path, subfolder: str
) -> None:
    place = tmp_path if subfolder.lower() == "none" else tmp_path / subfolder
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(tiny.base / "transformer" / "config.json", place)
    save_file(tuned, place / WEIGHTS)
    model = locate(pretrained_transformer_model_name_or_path=str(tmp_path), pretrained_transformer_subfolder=subfolder)
    assert has_weights(load_transformer(model, FLOAT32), tuned)
    assert model.digest("transformer") != tiny.digest("transformer")
    assert model.digest("vae") == tiny.digest("vae")


@pytest.mark.parametrize("rename", [str, lightricks_name], ids=["diffusers names", "Lightricks names"])
def test_a_single_file_takes_its_settings_from_the_base_and_renders(
    locate: Locate, tuned: Tensors, tmp_path: Path, rename: Callable[[str], str]
) -> None:
    path = tmp_path / "tuned.safetensors"
    save_file({rename(name): tensor for name, tensor in tuned.items()}, path)
    model = locate(pretrained_transformer_model_name_or_path=str(path))
    transformer = load_transformer(model, FLOAT32)
    assert has_weights(transformer, tuned)
    assert not transformer.training
    pipeline = make_render_pipeline(transformer, load_vae(model, FLOAT32), load_scheduler(model))
    prompt = PromptEmbedding(torch.zeros(128, 32), torch.ones(128, dtype=torch.bool), 128)
    frames_FHWC = render_video(pipeline, prompt, prompt, RenderSettings(64, 64, 9, 25.0, 2, 1.0, 0.0, 0))
    assert frames_FHWC is not None
    digest = model.digest("transformer")
    save_file({rename(name): tensor + 1 for name, tensor in tuned.items()}, path)
    assert model.digest("transformer") != digest


def test_single_files_of_another_size_are_refused(locate: Locate, tuned: Tensors, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    model = None
    first = "transformer_blocks.0.scale_shift_table"
    wrong = {
        f"no weights for {first}": {name: tensor for name, tensor in tuned.items() if name != first},
        "more than the 2 blocks": tuned | {"transformer_blocks.2.scale_shift_table": tuned[first].clone()},
        "expected shape": tuned | {first: torch.zeros(6, 4)},
    }
    for reason, weights in wrong.items():
        save_file({lightricks_name(name): tensor for name, tensor in weights.items()}, path)
        model = model or locate(pretrained_transformer_model_name_or_path=str(path))
        with pytest.raises(ModelError, match=reason):
            load_transformer(model, FLOAT32)


@pytest.mark.parametrize("shape", ["pipeline", "folder", "file"])
def test_a_vae_of_its_own_is_used(tiny: ModelFolder, locate: Locate, tmp_path: Path, shape: str) -> None:
    weights = {name: tensor + 0.01 for name, tensor in load_file(tiny.base / "vae" / WEIGHTS).items()}
    place = tmp_path / "vae" if shape == "pipeline" else tmp_path
    place.mkdir(exist_ok=True)
    shutil.copy(tiny.base / "vae" / "config.json", place)
    save_file(weights, place / WEIGHTS)
    other = place / WEIGHTS if shape == "file" else tmp_path
    model = locate(pretrained_vae_model_name_or_path=str(other))
    assert has_weights(load_vae(model, FLOAT32), weights)
    inside = {name: weights[name] for name in weights if not name.startswith("decoder.")}
    assert has_weights(load_vae(model, FLOAT32, "encoder"), inside)
    assert model.digest("vae") != tiny.digest("vae")
    assert model.digest("transformer") == tiny.digest("transformer")


# ---------------------------------------------------------------- what is refused


def drop_a_weight(file: Path) -> str:
    tensors = load_file(file)
    name = next(iter(tensors))
    del tensors[name]
    save_file(tensors, file, {"format": "pt"})
    return f"it has no weights for {name}"


def cut_short(file: Path) -> str:
    file.write_bytes(file.read_bytes()[:1000])
    return "cannot be loaded as"


def lose_a_number(file: Path) -> str:
    tensors = load_file(file)
    name = max(tensors)
    tensors[name].view(-1)[-1] = float("nan")
    save_file(tensors, file, {"format": "pt"})
    return f"{name} of {file} holds NaN or infinity"


def leave_a_git_lfs_pointer(file: Path) -> str:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n")
    return "cannot be loaded as"


def pickle_it(file: Path) -> str:
    name = "pytorch_model.bin" if file.parent.name == "text_encoder" else "diffusion_pytorch_model.bin"
    file.rename(file.with_name(name))
    return "no .safetensors file, and other formats are not read"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("damage", [drop_a_weight, cut_short, lose_a_number, leave_a_git_lfs_pointer, pickle_it])
def test_damaged_weights_are_refused_and_never_drawn_at_random(
    locate: Locate, copied: Path, part: str, damage: Callable[[Path], str]
) -> None:
    reason = damage(next((copied / part).glob("*.safetensors")))
    with pytest.raises(ModelError) as refused:
        load(part, locate(pretrained_model_name_or_path=str(copied)), FLOAT32)
    assert reason in refused.value.message
    assert str(copied / part) in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("value", "loading", "reason"),
    [
        (float("-inf"), FLOAT32, "holds NaN or infinity"),
        (1e5, Loading(torch.float16), "is too large for float16"),
        (-3e38, Loading(torch.bfloat16, "nf4-bnb"), "to_k.weight is too large for nf4-bnb"),
    ],
)
def test_weights_too_large_for_their_number_format_are_refused(
    locate: Locate, copied: Path, value: float, loading: Loading, reason: str
) -> None:
    weights = load_file(copied / "transformer" / WEIGHTS)
    weights["transformer_blocks.0.attn1.to_k.weight"][3, 4] = value
    save_file(weights, copied / "transformer" / WEIGHTS, {"format": "pt"})
    model = locate(pretrained_model_name_or_path=str(copied))
    with pytest.raises(ModelError, match=reason):
        load_transformer(model, loading)
    if abs(value) == 1e5:
        load_transformer(model, Loading(torch.bfloat16))
