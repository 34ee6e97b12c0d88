"""Components that are quantised while they are loaded, and the memory of the host that loading takes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ltxtrain.config.formats import FORMATS
from ltxtrain.facts.models import t5_params
from ltxtrain.model import loading as loading_module
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.formats import Quantised, QuantisedLinear, quantised_linear
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae
from ltxtrain.model.random_model import RandomSpec, random_folder
from tests.quantised import quantise

Locate = Callable[..., ModelFolder]
WORKING = [name for name, format in FORMATS.items() if format.quantised and not format.verdict.refused]
MIB = 1024**2


def load(part: str, model: ModelFolder, loading: Loading, told: Callable[[Quantised], None] | None = None) -> object:
    return (
        load_transformer(model, loading, told) if part == "transformer" else load_text_encoder(model, loading, told)[0]
    )


@pytest.mark.parametrize("name", WORKING)
@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_loading_in_a_format_is_loading_and_then_quantising(tiny: ModelFolder, part: str, name: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        told: list[Quantised] = []
        loaded = load(part, tiny, Loading(dtype, name), told.append)
        whole = load(part, tiny, Loading(dtype))
        expected = quantise(whole, part, name, dtype)
        assert told == [expected] and len(expected.layers) > 1
        mine, theirs = loaded.state_dict(), whole.state_dict()
        assert list(mine) == list(theirs)
        for tensor in mine:
            assert mine[tensor].dtype == theirs[tensor].dtype and torch.equal(mine[tensor], theirs[tensor]), tensor
        assert not any(module.training for module in loaded.modules())
        quantised = [name for name, module in loaded.named_modules() if isinstance(module, QuantisedLinear)]
        assert tuple(quantised) == expected.layers


def test_nothing_is_told_where_nothing_is_quantised_and_the_vae_never_is(tiny: ModelFolder) -> None:
    told: list[Quantised] = []
    load_transformer(tiny, Loading(torch.bfloat16), told.append)
    assert told == []
    with pytest.raises(ValueError, match="the VAE is not kept in int8-quanto"):
        load_vae(tiny, Loading(torch.bfloat16, "int8-quanto"))


# The meta device stands for an accelerator: what is computed there has no values, but is known by its device.
@pytest.mark.parametrize(
    ("via", "accelerator", "expected", "lies"),
    [
        ("cpu", "meta", "cpu", "cpu"),
        ("accelerator", "meta", "meta", "cpu"),
        ("pipeline", "meta", "meta", "cpu"),
        ("accelerator", None, "cpu", "cpu"),
        ("cpu", "meta", "cpu", "meta"),
    ],
)
def test_layers_are_quantised_where_quantize_via_says(
    tiny: ModelFolder, monkeypatch: pytest.MonkeyPatch, via: str, accelerator: str | None, expected: str, lies: str
) -> None:
    where: set[str] = set()

    def noted(linear: torch.nn.Linear, name: str, dtype: torch.dtype) -> QuantisedLinear:
        where.add(linear.weight.device.type)
        linear = torch.nn.Linear(linear.in_features, linear.out_features).requires_grad_(False)
        return quantised_linear(linear, name, dtype)

    monkeypatch.setattr(loading_module, "quantised_linear", noted)
    monkeypatch.setattr(loading_module, "quantisation_error", lambda *_: 0.0)
    device = torch.device(accelerator) if accelerator else None
    loading = Loading(torch.bfloat16, "int8-quanto", torch.device(lies), via, device)  # type: ignore[arg-type]
    loaded = load_transformer(tiny, loading)
    assert where == {expected}
    assert {weight.device.type for weight in loaded.parameters()} == {lies}


def test_a_random_model_has_the_same_weights_in_every_format(locate: Locate, tmp_path: Path) -> None:
    spec = RandomSpec(layers=1, heads=2, text_layers=1, text_heads=2, text_width=128, text_feed_forward=128)
    model = locate(pretrained_model_name_or_path=str(random_folder(tmp_path, spec)))
    whole = load_transformer(model, Loading(torch.bfloat16))
    quantise(whole, "transformer", "int8-torchao", torch.bfloat16)
    loaded = load_transformer(model, Loading(torch.bfloat16, "int8-torchao"))
    mine, theirs = loaded.state_dict(), whole.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


# ---------------------------------------------------------------- memory of the host

# A T5 of 39 M parameters, kept in float32 in two files. Each way of loading it says what its process held at most
# beyond what it held before, what it held in the end, and the bytes of the finished weights.
MEASURE = """
import gc, json, sys
from pathlib import Path
import bitsandbytes
import torch
from transformers import T5Config, T5EncoderModel
from ltxtrain.model.folder import ModelFolder
from ltxtrain.model.host_memory import give_back_freed
from ltxtrain.model.loading import Loading, _load

SIZES = dict(vocab_size=2000, d_model=768, d_kv=64, d_ff=3072, num_layers=4, num_heads=12)
folder = Path(sys.argv[1])
with torch.no_grad():
    T5EncoderModel(T5Config(**SIZES, feed_forward_proj="gated-gelu")).save_pretrained(folder, max_shard_size="120MB")
model = ModelFolder("measured", None, folder, {"text_encoder": folder}, folder)

def resident(kind):
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith(kind))

def library():
    return T5EncoderModel.from_pretrained(folder, dtype=torch.bfloat16, local_files_only=True)

def ours(name):
    return lambda: _load(T5EncoderModel, model, "text_encoder", Loading(torch.bfloat16, name))

def measured(load):
    gc.collect()
    give_back_freed()
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    loaded = load()
    peak, after = resident("VmHWM") - before, resident("VmRSS") - before
    return peak, after, sum(weight.nbytes for weight in loaded.parameters())

print(json.dumps([measured(load) for load in (library, ours("no_change"), ours("int8-quanto"), ours("nf4-bnb"))]))
"""
LAYER = 768 * 3072  # weights of the largest layer


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, int, int]]:
    """Peak, end and finished size, in bytes, of each way of loading."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak of a process")
    command = [sys.executable, "-c", MEASURE, str(tmp_path_factory.mktemp("t5"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = ("library", "no_change", "int8-quanto", "nf4-bnb")
    return dict(zip(names, (tuple(row) for row in json.loads(done.stdout.splitlines()[-1])), strict=True))


def test_loading_takes_little_more_than_what_is_loaded(measured: dict[str, tuple[int, int, int]]) -> None:
    for name in ("no_change", "int8-quanto", "nf4-bnb"):
        peak, end, finished = measured[name]
        assert end < finished + 16 * MIB, name
        # The part of a file that is mapped and one layer in full; what quantising takes, and what is freed until then.
        beside = 32 * MIB + 4 * LAYER + (0 if name == "no_change" else 12 * LAYER + 64 * MIB)
        assert peak < finished + beside, name
    assert measured["no_change"][0] < 0.6 * measured["library"][0]
    assert measured["nf4-bnb"][0] < 0.5 * measured["library"][0]


def test_t5_xxl_in_nf4_loads_in_less_than_eleven_gigabytes(measured: dict[str, tuple[int, int, int]]) -> None:
    peak, _, finished = measured["nf4-bnb"]
    params = t5_params(layers=24, width=4096, inner=4096, feed_forward=10240, heads=64, vocabulary=32128)
    table = 32128 * 4096
    nf4 = FORMATS["nf4-bnb"].bytes_per_value * (params - table) + 2 * table
    # What is needed beside the weights grows with the largest layer; the table of words is read in float32.
    beside = (peak - finished) * (4096 * 10240 / LAYER) + 4 * table
    program = 1.5e9  # Python and its libraries, more than measured
    assert nf4 == pytest.approx(2.47 * 1024**3, rel=0.01)
    assert nf4 + beside + program < 11e9
