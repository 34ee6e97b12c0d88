"""Files that are no configuration: folders, sizes, encodings, depth."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ltxtrain.config.text import parse_json, parse_toml, read_document
from ltxtrain.errors import ConfigError


def fault_of(path: Path, content: bytes | None = None) -> str:
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_document(path)
    (fault,) = caught.value.faults
    return str(fault)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"", "is empty"),
        ("a.toml", b" \n\t\n", "is empty"),
        ("a.json", b"\xef\xbb\xbf", "is empty"),
        ("a.json", '{"seed": 1}'.encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a.toml", "seed = 1".encode("utf-16-be"), "NUL character"),
        ("a.toml", b"\xfe\xff" + "seed = 1".encode("utf-16-be"), "is UTF-16"),
        ("a.json", b'{"seed": 1}'.decode().encode("utf-32"), "is UTF-16, not UTF-8"),
        ("a.json", '{\n"run_name": "caf\u00e9"}'.encode("latin-1"), ":2: byte 18 is not UTF-8"),
        ("a.toml", b'seed = 1\nrun_name = "\x92"', ":2: byte 21 is not UTF-8"),
        ("a.json", b'{"run_name": "\xf0\x9f"}', ":1: byte 14 is not UTF-8"),
        ("a.json", b'{"seed": 1}\x00', ":1: holds a NUL character"),
        ("a.json", b"\x80\x04\x95\x10", "byte 0 is not UTF-8"),
        ("a.json", b"PK\x03\x04\x00\x00", "NUL character"),
        ("a.yaml", b"seed: 1", "is neither .toml nor .json"),
        ("a", b"seed = 1", "is neither .toml nor .json"),
        ("a.json5", b"{seed: 1}", "is neither .toml nor .json"),
        ("a.json", b'{"a": "' + b"x" * (1 << 20) + b'"}', "at most 1 MiB"),
        ("a.toml", b"# " + b"x" * (1 << 20), "at most 1 MiB"),
        ("a.json", b"[" * 200_000, "more than 32 levels deep"),
        ("a.json", b'{"a":' * 33 + b"1" + b"}" * 33, ":1: goes more than 32 levels deep"),
        ("a.toml", b"a = " + b"[" * 200_000, ":1: goes more than 32 levels deep"),
        ("a.toml", b"seed = 1\na = " + b"[" * 33 + b"]" * 33, ":2: goes more than 32 levels deep"),
        ("a.toml", b".".join([b"a"] * 40) + b" = 1", ":1: goes more than 32 levels deep"),
        ("a.toml", b"[" + b".".join([b"a"] * 40) + b"]", ":1: goes more than 32 levels deep"),
        ("a.toml", b"a = " + b"{a=" * 40 + b"1" + b"}" * 40, "goes more than 32 levels deep"),
        ("a.json", b'{"seed": ' + b"9" * 5000 + b"}", "a number that is too long"),
        ("a.toml", b"seed = " + b"9" * 5000, "a number that is too long"),
    ],
)
def test_a_file_that_cannot_be_a_configuration_is_refused(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    told = fault_of(path, content)
    assert told.startswith(f"{path}") and words in told
    assert len(told.splitlines()) == 1


def test_a_folder_a_missing_file_and_a_pipe_are_named(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    assert "is a folder, not a file" in fault_of(tmp_path / "folder.json")
    assert "there is no such file" in fault_of(tmp_path / "none.json")
    os.mkfifo(tmp_path / "pipe.json")
    assert "is not an ordinary file" in fault_of(tmp_path / "pipe.json")
    (tmp_path / "loop.json").symlink_to(tmp_path / "loop.json")
    assert "loop.json" in fault_of(tmp_path / "loop.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "closed.json"
    path.write_text("{}", encoding="utf-8")
    path.chmod(0)
    assert "cannot be read" in fault_of(path)


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{\r\n  "seed": 1,\r\n  "lora_rank": 4\r\n}\r\n')
    document = read_document(path)
    assert document.data == {"seed": 1, "lora_rank": 4}
    assert document.source(("lora_rank",)) == f"{path}:3"


def test_the_lines_of_json_keys_and_items() -> None:
    text = '{\n "a": 1,\n "b": {"c": [\n  1,\n  {"d": "x, {y"}\n ]},\n "e\\u0066": 2\n}'
    document = parse_json(text, "f")
    assert document.lines == {
        ("a",): 2,
        ("b",): 3,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1): 5,
        ("b", "c", 1, "d"): 5,
        ("ef",): 7,
    }
    assert document.source(("b", "c", 1, "nothing")) == "f:5"
    assert document.source(("nothing",)) == "f"


def test_the_lines_of_toml_keys_and_tables() -> None:
    text = 'a = 1\nb.c = """\nd = 2\n"""\n\n[e]\n"f g" = [ # x = 1\n  "h = 1",\n]\n'
    text += "[[i]]\nj = 1\n[[i]]\nj = 2\n[i.k]\nl = 1\n"
    assert parse_toml(text, "f").lines == {
        ("a",): 1,
        ("b", "c"): 2,
        ("e",): 6,
        ("e", "f g"): 7,
        ("i",): 10,
        ("i", 0): 10,
        ("i", 0, "j"): 11,
        ("i", 1): 12,
        ("i", 1, "j"): 13,
        ("i", 1, "k"): 14,
        ("i", 1, "k", "l"): 15,
    }
