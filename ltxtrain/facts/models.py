"""What is known of the models: sizes for the memory and disk estimates, without loading a single weight.

Known repositories stand in a table; a local folder is read: ``config.json`` of each part, and the headers of its
safetensors files, which tell every tensor's shape.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ltxtrain.config.formats import is_quantised_layer
from ltxtrain.errors import ModelError

TINY_MODEL = "ltxtrain/tiny"
# The real sizes with random weights, for measurements: they are drawn where they are to lie, and never on disk.
RANDOM_2B, RANDOM_13B = "ltxtrain/random-2b", "ltxtrain/random-13b"
RANDOM_MODELS = (RANDOM_2B, RANDOM_13B)
BUILT_IN = (TINY_MODEL, *RANDOM_MODELS)
DEFAULT_MODEL = "Lightricks/LTX-Video-0.9.5"
REPOSITORY = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", re.ASCII)
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


@dataclass(frozen=True)
class TransformerFacts:
    """LTX's video transformer. ``width`` = heads * head_dim; the patch is one latent cell."""

    params: int
    layers: int
    width: int
    cross_width: int
    caption_channels: int
    latent_channels: int = 128


@dataclass(frozen=True)
class VaeFacts:
    """``encoder_params`` are those of the encoder; the rest are the decoder's, but for the latents' statistics.

    ``encoder_width`` and ``decoder_width`` are the channels at the highest resolution, a quarter of the frame's."""

    params: int
    encoder_params: int
    encoder_width: int = 128
    decoder_width: int = 128


@dataclass(frozen=True)
class TextFacts:
    """The blocks of a gated T5 encoder: ``inner`` is the width of all heads together."""

    layers: int = 24
    width: int = 4096
    inner: int = 4096
    feed_forward: int = 10240

    def linear_layers(self) -> Counter[tuple[int, int]]:
        """How many linear layers of each shape (rows, columns) the blocks have. The last kind is ``wo``."""
        width, inner, wide, layers = self.width, self.inner, self.feed_forward, self.layers
        shapes: Counter[tuple[int, int]] = Counter()
        for shape, count in (((inner, width), 3), ((width, inner), 1), ((wide, width), 2), (self.wo, 1)):
            shapes[shape] += count * layers
        return shapes

    @property
    def wo(self) -> tuple[int, int]:
        return self.width, self.feed_forward


@dataclass(frozen=True)
class ModelFacts:
    """``file_bytes`` is the size of the weight files, in whatever dtype they are kept. ``text`` is T5-XXL where nothing
    else is said."""

    name: str
    transformer: TransformerFacts
    text_params: int
    vae: VaeFacts
    file_bytes: int
    local: bool = False
    text: TextFacts = field(default_factory=TextFacts)


def transformer_params(layers: int, width: int, cross_width: int, caption_channels: int, latent: int = 128) -> int:
    """Parameters of diffusers' ``LTXVideoTransformer3DModel`` with these sizes, counted from its layers."""
    self_attention = 4 * (width * width + width) + 2 * width
    cross_attention = 2 * (width * width + width) + 2 * (cross_width * width + width) + 2 * width
    feed_forward = 8 * width * width + 5 * width
    block = self_attention + cross_attention + feed_forward + 6 * width
    time_embedding = (256 * width + width) + (width * width + width) + (6 * width * width + 6 * width)
    caption_projection = (caption_channels * width + width) + (width * width + width)
    ends = (latent * width + width) + (width * latent + latent) + 2 * width
    return layers * block + time_embedding + caption_projection + ends


def t5_params(layers: int, width: int, inner: int, feed_forward: int, heads: int, vocabulary: int) -> int:
    """Parameters of a gated T5 encoder (transformers' ``T5EncoderModel``)."""
    block = 4 * width * inner + 3 * width * feed_forward + 2 * width
    return vocabulary * width + layers * block + 32 * heads + width


def lora_params(model: TransformerFacts, rank: int, targets: tuple[str, ...]) -> int:
    """Parameters of a LoRA on the linear layers that ``targets`` name: rank * (in + out) for each."""
    return sum(rank * sum(shape) for shape in target_layers(model, targets).values())


def target_layers(model: TransformerFacts, targets: tuple[str, ...]) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of the linear layers that ``targets`` name, by their names in the transformer."""
    layers = _linear_layers(model)
    return {name: shape for name, shape in layers.items() if any(_is_target(name, target) for target in targets)}


def block_layers(model: TransformerFacts) -> Counter[tuple[int, int]]:
    """How many linear layers of each shape (rows, columns) the blocks have: those that are quantised."""
    layers = _linear_layers(model).items()
    return Counter((outputs, inputs) for name, (inputs, outputs) in layers if is_quantised_layer("transformer", name))


def unmatched_targets(model: TransformerFacts, targets: tuple[str, ...]) -> tuple[str, ...]:
    """Those of ``targets`` that name no linear layer."""
    names = tuple(_linear_layers(model))
    return tuple(target for target in targets if not any(_is_target(name, target) for name in names))


def linear_names(model: TransformerFacts) -> tuple[str, ...]:
    """The shortest names of the linear layers, such as ``to_q`` and ``to_out.0``, in alphabetical order."""
    names = (name.split(".") for name in _linear_layers(model))
    return tuple(sorted({".".join(parts[-2:] if parts[-1].isdigit() else parts[-1:]) for parts in names}))


def _is_target(name: str, target: str) -> bool:
    """peft's rule: the whole name, or its end after a dot."""
    return name == target or name.endswith(f".{target}")


def _linear_layers(model: TransformerFacts) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of every linear layer of diffusers' ``LTXVideoTransformer3DModel``, by its name there."""
    width, cross = model.width, model.cross_width
    block: dict[str, tuple[int, int]] = {}
    for attention, context in (("attn1", width), ("attn2", cross)):
        for name, inputs in (("to_q", width), ("to_k", context), ("to_v", context), ("to_out.0", width)):
            block[f"{attention}.{name}"] = (inputs, width)
    block["ff.net.0.proj"] = (width, 4 * width)
    block["ff.net.2"] = (4 * width, width)
    table = {
        f"transformer_blocks.{index}.{name}": shape for index in range(model.layers) for name, shape in block.items()
    }
    table["proj_in"] = (model.latent_channels, width)
    table["proj_out"] = (width, model.latent_channels)
    table["time_embed.emb.timestep_embedder.linear_1"] = (256, width)
    table["time_embed.emb.timestep_embedder.linear_2"] = (width, width)
    table["time_embed.linear"] = (width, 6 * width)
    table["caption_projection.linear_1"] = (model.caption_channels, width)
    table["caption_projection.linear_2"] = (width, width)
    return table


def _transformer(layers: int, width: int, caption_channels: int) -> TransformerFacts:
    params = transformer_params(layers, width, width, caption_channels)
    return TransformerFacts(params, layers, width, width, caption_channels)


_T5_XXL_PARAMS = t5_params(layers=24, width=4096, inner=4096, feed_forward=10240, heads=64, vocabulary=32128)
_VAE_090 = VaeFacts(419_193_649, 180_404_353)
_VAE_091 = VaeFacts(934_976_434, 180_404_353)
_VAE_095 = VaeFacts(1_246_913_522, 694_098_881)


def _release(name: str, transformer: TransformerFacts, vae: VaeFacts) -> ModelFacts:
    """A published pipeline: transformer and VAE are kept in bfloat16, the T5-XXL encoder in float32."""
    files = 2 * transformer.params + 2 * vae.params + 4 * _T5_XXL_PARAMS
    return ModelFacts(name, transformer, _T5_XXL_PARAMS, vae, files)


def _random(name: str, transformer: TransformerFacts) -> ModelFacts:
    """The sizes of a release, of which settings and a small vocabulary are all that is written."""
    return ModelFacts(name, transformer, _T5_XXL_PARAMS, _VAE_095, file_bytes=40_000, local=True)


_LTX_2B = _transformer(layers=28, width=2048, caption_channels=4096)
_LTX_13B = _transformer(layers=48, width=4096, caption_channels=4096)
_TINY = _transformer(layers=2, width=128, caption_channels=32)
_TINY_TEXT = TextFacts(layers=2, width=32, inner=32, feed_forward=64)
_TINY_VAE = VaeFacts(1_198_382, 777_277, encoder_width=8, decoder_width=4)
_TINY_TEXT_PARAMS = t5_params(layers=2, width=32, inner=32, feed_forward=64, heads=4, vocabulary=243)

KNOWN_MODELS: Mapping[str, ModelFacts] = {
    facts.name: facts
    for facts in (
        _release("Lightricks/LTX-Video", _LTX_2B, _VAE_090),
        _release("a-r-r-o-w/LTX-Video-0.9.1-diffusers", _LTX_2B, _VAE_091),
        _release("Lightricks/LTX-Video-0.9.5", _LTX_2B, _VAE_095),
        _release("Lightricks/LTX-Video-0.9.7-dev", _LTX_13B, _VAE_095),
        _release("Lightricks/LTX-Video-0.9.7-distilled", _LTX_13B, _VAE_095),
        _release("Lightricks/LTX-Video-0.9.8-13B-distilled", _LTX_13B, _VAE_095),
        _random(RANDOM_2B, _LTX_2B),
        _random(RANDOM_13B, _LTX_13B),
        ModelFacts(TINY_MODEL, _TINY, _TINY_TEXT_PARAMS, _TINY_VAE, 7_900_000, True, _TINY_TEXT),
    )
}


def model_facts(name_or_path: str) -> ModelFacts | None:
    """Facts of a known repository, or read from a local diffusers folder; None for a repository not known here.

    Raises ``ModelError`` for a local folder that is no diffusers pipeline.
    """
    known = KNOWN_MODELS.get(name_or_path)
    folder = Path(name_or_path).expanduser()
    if known is not None or not folder.is_dir():
        return known
    text_files, vae_files = _tensor_sizes(folder / "text_encoder"), _tensor_sizes(folder / "vae")
    transformer, transformer_bytes = _read_transformer(folder / "transformer")
    return ModelFacts(
        name=name_or_path,
        transformer=transformer,
        text_params=text_files.params,
        vae=_read_vae(folder / "vae", vae_files.params),
        file_bytes=transformer_bytes + text_files.bytes + vae_files.bytes,
        local=True,
        text=_read_text(folder / "text_encoder" / "config.json"),
    )


def transformer_facts(name_or_path: str, subfolder: str = "transformer") -> TransformerFacts | None:
    """Facts of a transformer of its own, of which a local folder may hold nothing else; None where it is not known.

    ``subfolder`` is where it lies in a local folder; empty means at the top. Raises ``ModelError`` for a folder
    without one.
    """
    known = KNOWN_MODELS.get(name_or_path)
    folder = Path(name_or_path).expanduser()
    if known is not None or not folder.is_dir():
        return known.transformer if known else None
    return _read_transformer(folder / subfolder)[0]


def _read_transformer(folder: Path) -> tuple[TransformerFacts, int]:
    """The facts, and the bytes of the files."""
    config, files = _read_config(folder / "config.json"), _tensor_sizes(folder)
    width = _number(config, "num_attention_heads", 32) * _number(config, "attention_head_dim", 64)
    facts = TransformerFacts(
        params=files.params,
        layers=_number(config, "num_layers", 28),
        width=width,
        cross_width=_number(config, "cross_attention_dim", width),
        caption_channels=_number(config, "caption_channels", 4096),
        latent_channels=_number(config, "in_channels", 128),
    )
    return facts, files.bytes


def public_name(name_or_path: str, revision: str | None) -> str:
    """What others are told of a base model: a repository's name as it is, of a folder the last part of its path.

    ``revision`` is the commit that was found with it. A name like ``private/models`` may be either; with a commit, or
    where the repository is known here, it is a repository. Where somebody keeps models is nobody's business.
    """
    if REPOSITORY.fullmatch(name_or_path) and (revision or name_or_path in KNOWN_MODELS):
        return name_or_path
    return name_or_path.replace("\\", "/").rstrip("/").rpartition("/")[2]


@dataclass(frozen=True)
class _Sizes:
    params: int
    bytes: int


def _read_vae(folder: Path, params: int) -> VaeFacts:
    config = _read_config(folder / "config.json")
    inside = _tensor_sizes(folder, "encoder.").params
    encoder, decoder = config.get("block_out_channels"), config.get("decoder_block_out_channels")
    narrower = _first_number(config.get("upsample_factor"), 1)  # a block may give fewer channels than it is named for
    return VaeFacts(params, inside, _first_number(encoder, 128), _first_number(decoder, 128) // narrower)


def _read_text(path: Path) -> TextFacts:
    """What is not told is taken to be T5-XXL's; that nothing is there at all is for the loader to refuse."""
    config = _read_config(path) if path.is_file() else {}
    return TextFacts(
        layers=_number(config, "num_layers", 24),
        width=_number(config, "d_model", 4096),
        inner=_number(config, "num_heads", 64) * _number(config, "d_kv", 64),
        feed_forward=_number(config, "d_ff", 10240),
    )


def _tensor_sizes(folder: Path, prefix: str = "") -> _Sizes:
    """Values in the tensors whose names begin with ``prefix``, and bytes of all files."""
    files = sorted(folder.glob("*.safetensors"))
    counts = [_count_tensors(path, prefix) for path in files]
    return _Sizes(sum(counts), sum(path.stat().st_size for path in files))


def _count_tensors(path: Path, prefix: str) -> int:
    """Values of a safetensors file, in tensors whose names begin with ``prefix``, from its header alone: 8 bytes of
    length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > MAX_HEADER_BYTES:
                raise ModelError(f"{path} is no safetensors file", hint="copy or download the model again")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__" and name.startswith(prefix)}
        return sum(math.prod(entry["shape"]) for entry in tensors.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read as safetensors", hint="copy or download the model again") from error


def _read_config(path: Path) -> dict[str, object]:
    hint = "pretrained_model_name_or_path wants a diffusers folder: model_index.json, transformer/, vae/, text_encoder/"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", hint=hint) from error
    except ValueError as error:
        raise ModelError(f"{path} is no JSON", hint=hint) from error
    if not isinstance(config, dict):
        raise ModelError(f"{path} holds no JSON object", hint=hint)
    return config


def _number(config: dict[str, object], key: str, default: int) -> int:
    value = config.get(key, default)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else default


def _first_number(values: object, default: int) -> int:
    if isinstance(values, list) and values and isinstance(values[0], int):
        return values[0]
    return default
