from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
import torch
from diffusers import LTXPipeline
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    XetDownloadError,
)

from ltxtrain.errors import ModelError
from ltxtrain.facts import digests
from ltxtrain.model import folder as folder_module
from ltxtrain.model.folder import ModelFolder, load_scheduler, scheduler_config
from ltxtrain.model.loading import Loading, load_text_encoder, load_transformer, load_vae

Locate = Callable[..., ModelFolder]
Tensors = dict[str, torch.Tensor]
WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def copied(tiny: ModelFolder, tmp_path: Path) -> Path:
    """A diffusers folder of one's own, to be damaged."""
    return shutil.copytree(tiny.base, tmp_path / "model")


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# ---------------------------------------------------------------- what is found


def test_the_built_in_model_and_a_folder_load_the_same(tiny: ModelFolder, locate: Locate, copied: Path) -> None:
    model = locate(pretrained_model_name_or_path=str(copied))
    assert (model.name, model.revision) == (str(copied), None)
    assert same_weights(load_transformer(model, Loading(torch.float32)), load_transformer(tiny, Loading(torch.float32)))
    assert same_weights(load_vae(model, Loading(torch.float32)), load_vae(tiny, Loading(torch.float32)))
    assert same_weights(
        load_text_encoder(model, Loading(torch.float32))[0], load_text_encoder(tiny, Loading(torch.float32))[0]
    )
    assert load_scheduler(model).config == load_scheduler(tiny).config
    assert scheduler_config(model)["base_shift"] == 0.95
    assert model.digest("transformer") == tiny.digest("transformer")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_components_come_in_the_dtype_asked_for_and_ready_to_evaluate(tiny: ModelFolder, dtype: torch.dtype) -> None:
    for loaded in (
        load_transformer(tiny, Loading(dtype)),
        load_vae(tiny, Loading(dtype)),
        load_text_encoder(tiny, Loading(dtype))[0],
    ):
        assert loaded.dtype == dtype
        assert not loaded.training


def test_a_hub_snapshot_tells_its_commit(tiny: ModelFolder, locate: Locate, tmp_path: Path) -> None:
    snapshot = shutil.copytree(tiny.base, tmp_path / "models--a--b" / "snapshots" / "0123abc")
    assert locate(pretrained_model_name_or_path=str(snapshot)).revision == "0123abc"


def test_only_what_is_needed_is_asked_of_the_hub(
    tiny: ModelFolder, locate: Locate, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, list[str]] = {}

    def snapshot_download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked[f"{name}@{revision}"] = allow_patterns
        return str(tiny.base)

    monkeypatch.setattr(folder_module, "snapshot_download", snapshot_download)
    locate(
        pretrained_model_name_or_path="someone/base",
        revision="v1",
        pretrained_transformer_model_name_or_path="someone/tuned",
    )
    base, tuned = asked["someone/base@v1"], asked["someone/tuned@None"]
    assert {"model_index.json", "transformer/config.json", "vae/*.safetensors", "tokenizer/*.model"} <= set(base)
    assert not any(pattern.startswith("transformer/*") for pattern in base)
    assert tuned == ["transformer/*.json", "transformer/*.safetensors", "transformer/*.model", "transformer/*.txt"]
    assert not any(pattern.endswith((".bin", "*")) for pattern in base + tuned)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("part", "file"),
    [
        ("transformer", "config.json"),
        ("vae", "config.json"),
        ("text_encoder", "config.json"),
        ("tokenizer", "tokenizer.json"),
        ("scheduler", "scheduler_config.json"),
    ],
)
@pytest.mark.parametrize("whole", [True, False], ids=["the folder", "its settings"])
def test_a_missing_component_is_named(locate: Locate, copied: Path, part: str, file: str, whole: bool) -> None:
    if whole:
        shutil.rmtree(copied / part)
    else:
        (copied / part / file).unlink()
    with pytest.raises(ModelError, match=rf"model has no {part}: .*{file}.* is missing in") as refused:
        locate(pretrained_model_name_or_path=str(copied))
    assert refused.value.hint == "name a complete diffusers folder or repository"


@pytest.mark.parametrize(
    "option",
    [
        "pretrained_model_name_or_path",
        "pretrained_vae_model_name_or_path",
        "pretrained_transformer_model_name_or_path",
    ],
)
@pytest.mark.parametrize("value", ["./nowhere", "/nowhere/at/all", "nowhere", "~/nowhere/x", "https://example.org/a/b"])
def test_a_path_that_is_not_there_is_told_with_its_option(locate: Locate, option: str, value: str) -> None:
    with pytest.raises(ModelError, match="does not exist") as refused:
        locate(**{option: value})
    assert value in refused.value.message
    assert refused.value.hint == f"check {option}"


@pytest.mark.parametrize("name", ["transformer.gguf", "model.ckpt", "model.bin", "model.pt"])
def test_files_that_are_not_safetensors_are_refused(locate: Locate, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelError, match=f"{name} is not a safetensors file"):
        locate(pretrained_transformer_model_name_or_path=str(tmp_path / name))


def test_a_single_file_is_no_base_model(locate: Locate, tmp_path: Path) -> None:
    (tmp_path / "ltxv.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="is a single file") as refused:
        locate(pretrained_model_name_or_path=str(tmp_path / "ltxv.safetensors"))
    assert "pretrained_transformer_model_name_or_path" in str(refused.value.hint)


# ---------------------------------------------------------------- the Hub


def test_a_repository_name_without_a_network_is_one_clear_error(locate: Locate) -> None:
    with pytest.raises(
        ModelError, match="nobody/no-such-model is not on this disk and cannot be downloaded"
    ) as refused:
        locate(pretrained_model_name_or_path="nobody/no-such-model")
    assert "\n" not in refused.value.message
    assert "local folder" in str(refused.value.hint)


@pytest.mark.parametrize("name", ["a/b c", "a/b..c", "a/--b", "ä/b"])
def test_a_name_that_no_repository_can_have_is_refused(locate: Locate, name: str) -> None:
    with pytest.raises(ModelError, match="is neither a folder nor a repository"):
        locate(pretrained_model_name_or_path=name)


ANSWER = httpx2.Response(403, request=httpx2.Request("GET", "https://hub.example/a/b"))


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (GatedRepoError("Access is restricted", response=ANSWER), "accept its licence", "HF_TOKEN"),
        (RepositoryNotFoundError("404", response=ANSWER), "neither a folder nor a repository", "HF_TOKEN"),
        (RevisionNotFoundError("404", response=ANSWER), "has no revision v9", "leave revision out"),
        (HfHubHTTPError("503 Server Error\nRequest ID: 7", response=ANSWER), r"\(503 Server Error\)", "network"),
        (LocalEntryNotFoundError("Got: ConnectError"), r"\(Got: ConnectError\)", "HF_ENDPOINT"),
        (httpx2.ProxyError("the proxy refuses"), r"\(the proxy refuses\)", "network"),
        (XetDownloadError("a chunk is missing"), r"\(a chunk is missing\)", "network"),
        (OSError(5, "Input/output error"), "Input/output error", "local folder"),
        (TimeoutError(), r"\(TimeoutError\)", "network"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_the_hub_answers_is_told_in_one_line(
    locate: Locate, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str, hint: str
) -> None:
    def answer(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(folder_module, "snapshot_download", answer)
    with pytest.raises(ModelError, match=message) as refused:
        locate(pretrained_model_name_or_path="someone/model", revision="v9")
    assert "someone/model" in refused.value.message
    assert "\n" not in refused.value.message
    assert hint in str(refused.value.hint)


@pytest.mark.parametrize("token", ['"hf_quoted"', "hf_two lines\nof_it", "{{ SECRET }}"])
def test_a_token_that_no_request_can_carry_is_refused_and_not_shown(
    locate: Locate, monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ModelError, match="holds letters that no token has") as refused:
        locate(pretrained_model_name_or_path="someone/model")
    assert token not in refused.value.message and "HF_TOKEN" in str(refused.value.hint)


# ---------------------------------------------------------------- digests


@pytest.mark.parametrize(
    ("part", "file"), [("transformer", WEIGHTS), ("vae", "config.json"), ("tokenizer", "tokenizer.json")]
)
def test_a_digest_changes_with_the_files_of_its_component_alone(
    locate: Locate, copied: Path, part: str, file: str
) -> None:
    model = locate(pretrained_model_name_or_path=str(copied))
    before = {name: model.digest(name) for name in model.folders}
    assert len(set(before.values())) == 5
    path = copied / part / file
    content = bytearray(path.read_bytes())
    content[-10] ^= 1
    path.write_bytes(content)
    assert {name for name in model.folders if model.digest(name) != before[name]} == {part}
    (copied / part / "README.md").write_text("no part of the model")
    after = model.digest(part)
    (copied / part / "README.md").unlink()
    assert model.digest(part) == after


def test_a_digest_is_remembered_so_that_gigabytes_are_read_once(
    locate: Locate, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "SETTLED_AFTER_S", -1)  # the copy is too fresh to be remembered otherwise
    first = locate(pretrained_model_name_or_path=str(copied)).digest("transformer")
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert locate(pretrained_model_name_or_path=str(copied)).digest("transformer") == first
    (copied / "transformer" / WEIGHTS).touch()
    with pytest.raises(TypeError):
        locate(pretrained_model_name_or_path=str(copied)).digest("transformer")


def test_no_code_of_a_model_is_run(tiny: ModelFolder, locate: Locate, copied: Path, tmp_path: Path) -> None:
    trap = tmp_path / "it-ran"
    code = f"from pathlib import Path\nPath({str(trap)!r}).touch()\n"
    for part in ("text_encoder", "tokenizer", "transformer"):
        (copied / part / "modeling.py").write_text(code)
        for settings in (copied / part).glob("*config.json"):
            text = settings.read_text()
            extra = '{"auto_map": {"AutoModel": "modeling.Model", "AutoTokenizer": ["modeling.T", "modeling.T"]}, '
            settings.write_text(text.replace("{", extra, 1))
    model = locate(pretrained_model_name_or_path=str(copied))
    assert same_weights(load_transformer(model, Loading(torch.float32)), load_transformer(tiny, Loading(torch.float32)))
    assert isinstance(LTXPipeline(None, None, *load_text_encoder(model, Loading(torch.float32)), None), LTXPipeline)
    assert not trap.exists()
