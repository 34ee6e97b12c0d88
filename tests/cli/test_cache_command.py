"""``ltxtrain cache --stats``, ``--verify`` and ``--prune``: real processes on a real cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ltxtrain.cli.app import run
from ltxtrain.data.cache import write_entry
from ltxtrain.data.claims import Claims
from ltxtrain.data.store import entry_at, entry_key

Told = tuple[int, str, str]
ELSEWHERE = ("--pretrained-model-name-or-path", "/no/such/model")


@pytest.fixture
def ltxtrain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """The command in this process: exit code, stdout, stderr."""

    def call(*words: str) -> Told:
        code = run(["cache", "--preset", "smoke", "--cache", str(tmp_path / "cache"), *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def entries(tmp_path: Path) -> list[Path]:
    """Three entries that no configuration uses."""
    paths = []
    for number, kind in enumerate(("latents", "latents", "prompts")):
        entry = entry_at(tmp_path / "cache", kind, entry_key(kind, {"number": number}))
        write_entry(entry.path, entry.key, {"latents": torch.zeros(1000 * (number + 1))})
        paths.append(entry.path)
    return paths


def test_stats_count_entries_bytes_and_leftovers(
    ltxtrain: Callable[..., Told], entries: list[Path], tmp_path: Path
) -> None:
    leftover = entries[0].with_name(f".{entries[0].name}.0badcafe.tmp")
    leftover.write_bytes(b"half")
    code, out, _ = ltxtrain("--stats", "--json")
    told = json.loads(out)
    sizes = [path.stat().st_size for path in entries]
    assert code == 0
    assert told["kinds"] == {
        "latents": {"files": 2, "bytes": sizes[0] + sizes[1]},
        "prompts": {"files": 1, "bytes": sizes[2]},
    }
    assert told["leftovers"] == [{"path": str(leftover), "bytes": 4}]
    assert [file["path"] for file in told["largest"]] == [str(path) for path in reversed(entries)]
    code, out, _ = ltxtrain("--stats")
    assert code == 0 and "2 files" in out and entries[2].name in out


def test_verify_names_damaged_entries_and_leaves_with_3(ltxtrain: Callable[..., Told], entries: list[Path]) -> None:
    code, out, _ = ltxtrain("--verify")
    assert code == 0 and "all are sound" in out
    content = entries[1].read_bytes()
    entries[1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    code, out, err = ltxtrain("--verify")
    assert code == 3 and str(entries[1]) in err and "hint: they are encoded again" in err
    assert str(entries[0]) not in err
    code, out, _ = ltxtrain("--verify", "--json")
    assert code == 3 and json.loads(out)["damaged"] == [{"path": str(entries[1]), "bytes": len(content)}]


def test_an_entry_under_another_ones_name_is_damaged(ltxtrain: Callable[..., Told], entries: list[Path]) -> None:
    entries[0].write_bytes(entries[1].read_bytes())
    code, _, err = ltxtrain("--verify")
    assert code == 3 and str(entries[0]) in err


def test_stats_and_verify_need_no_torch(tmp_path: Path, entries: list[Path]) -> None:
    program = "import sys; sys.modules['torch'] = None\nfrom ltxtrain.cli.app import run\nsys.exit(run(sys.argv[1:]))"
    for deed in ("--stats", "--verify"):
        done = subprocess.run(
            [sys.executable, "-c", program, "cache", deed, "--preset", "smoke", "--cache", str(tmp_path / "cache")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--verify", "--prune"], "--verify and --prune exclude each other"),
        (["--stats", "--verify", "--prune"], "exclude each other"),
        (["--json"], "--json says how"),
        (["--yes"], "--yes says how"),
        (["--prune"], "nobody to ask"),
    ],
)
def test_words_that_do_not_go_together_are_refused(ltxtrain: Callable[..., Told], words: list[str], told: str) -> None:
    code, _, err = ltxtrain(*words)
    assert code == 2 and told in err


def test_prune_keeps_what_the_configuration_uses_and_says_what_it_frees(
    ltxtrain: Callable[..., Told], entries: list[Path], tmp_path: Path
) -> None:
    assert ltxtrain()[0] == 0
    used = {path for path in (tmp_path / "cache").rglob("*.safetensors") if path.parent.parent.name in KINDS}
    used -= set(entries)
    damaged = sorted(used)[0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    fresh, old = (entries[0].with_name(f".{entries[0].name}.{name}.tmp") for name in ("00000000", "11111111"))
    names = ("index/.x.1.tmp", "datasets/d/.y.1.tmp", ".z.1.tmp", "claims/k.lock")
    places = [old, *(tmp_path / "cache" / name for name in names)]
    for path in (fresh, *places):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    for path in places:
        os.utime(path, (0, 0))
    size = sum(path.stat().st_size for path in (*entries, damaged, *places))
    code, out, err = ltxtrain("--prune", "--yes", "--json")
    told = json.loads(out)
    assert code == 0 and told["freed"] == size and "can be freed" in err
    assert {file["path"] for file in told["unused"]} == {str(path) for path in entries}
    assert [file["path"] for file in told["damaged"]] == [str(damaged)]
    left = {path for path in (tmp_path / "cache").rglob("*.safetensors") if path.parent.parent.name in KINDS}
    assert left == used - {damaged} and fresh.exists()
    assert not any(path.exists() for path in places)
    assert "there is nothing to remove" in ltxtrain("--prune", "--yes")[2]


KINDS = ("latents", "prompts")


def test_a_cache_that_is_in_use_is_not_pruned(
    ltxtrain: Callable[..., Told], entries: list[Path], tmp_path: Path
) -> None:
    claims = Claims(tmp_path / "cache")
    assert claims.enter_cache()
    code, _, err = ltxtrain("--prune", "--yes")
    assert code == 4 and "another process is using the cache" in err
    assert all(path.exists() for path in entries)


def test_offload_that_does_nothing_here_is_told_where_no_plan_is_shown(ltxtrain: Callable[..., Told]) -> None:
    code, _, err = ltxtrain("--made-clips", "1", "--enable-group-offload", "--group-offload-use-stream", *ELSEWHERE)
    assert code == 5, "the model is not there, which is found afterwards"
    assert err.splitlines()[:2] == [
        "note: enable_group_offload saves nothing on a CPU, whose memory is the main memory",
        "note: group_offload_use_stream has no effect on a CPU: it is for NVIDIA GPUs alone",
    ]
