"""Configuration files as text: read safely, parsed strictly, each key with its line.

Everything that could hang or mislead is refused before or while parsing: files above 1 MiB, texts that are not UTF-8,
more than 32 levels, keys given twice, NaN and infinity.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ltxtrain.config.secrets import shown_key
from ltxtrain.errors import ConfigError, Fault

MAX_BYTES = 1 << 20
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """A parsed file. ``lines`` tells the line of each key and list item, by its path in ``data``."""

    name: str
    data: Any
    lines: dict[KeyPath, int]

    def source(self, path: KeyPath = ()) -> str:
        """``config.json:12`` for the key at ``path``, or for the nearest thing around it."""
        for end in range(len(path), 0, -1):
            if path[:end] in self.lines:
                return f"{self.name}:{self.lines[path[:end]]}"
        return self.name


def read_document(path: Path) -> Document:
    """Read a TOML or JSON file. Raises ConfigError."""
    text = _read_text(path)
    name = str(path)
    if path.suffix.lower() == ".toml":
        return parse_toml(text, name)
    if path.suffix.lower() == ".json":
        return parse_json(text, name)
    _refuse(name, "is neither .toml nor .json", "name the file by what it holds")


def _read_text(path: Path) -> str:
    name = str(path)
    if "\0" in name:
        _refuse(name.replace("\0", " "), "is not a path: it holds a NUL character")
    try:
        if path.is_dir():
            _refuse(name, "is a folder, not a file", "name the file in it")
        if not path.is_file():
            problem = "is not an ordinary file" if path.exists() else "there is no such file"
            _refuse(name, problem, "" if path.is_absolute() else "its path counts from the folder you are in")
        if path.stat().st_size > MAX_BYTES:
            _refuse(name, f"is {path.stat().st_size} bytes long; a configuration has at most 1 MiB")
        raw = path.read_bytes()[: MAX_BYTES + 1]
    except OSError as error:
        _refuse(name, f"cannot be read: {error.strerror or 'input/output error'}", "check its permissions")
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        _refuse(name, "is UTF-16, not UTF-8", "save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        _refuse(f"{name}:{line}", f"byte {error.start} is not UTF-8", "save it as UTF-8")
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        _refuse(f"{name}:{line}", "holds a NUL character", "save it as plain UTF-8 text")
    if not text.strip():
        _refuse(name, "is empty", "write at least one option, or leave the file out")
    return text


def _refuse(source: str, problem: str, suggestion: str = "") -> NoReturn:
    raise ConfigError([Fault("", problem, source, suggestion)])


# JSON


_JSON_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*"|[{}\[\],:]|\n|[^\s{}\[\],:"]+')


def parse_json(text: str, name: str) -> Document:
    """Parse strict JSON. Raises ConfigError for syntax, depth, NaN and keys given twice."""
    lines, twice = _json_lines(text, name)
    faults = [
        Fault(shown_key(str(path[-1])), f"is given twice, first on line {lines[path]}", f"{name}:{line}", "keep one")
        for path, line in twice
    ]
    try:
        data = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ConfigError([Fault("", *_json_syntax(text, name, error))]) from None
    except _Constant as error:
        line = _line_of_word(text, error.word)
        faults.append(
            Fault("", f"{error.word} is not a number to train with", f"{name}:{line}", "write a finite number")
        )
        raise ConfigError(faults) from None
    except (ValueError, RecursionError):
        raise ConfigError(
            [Fault("", "holds a number that is too long to read", name, "write a shorter number")]
        ) from None
    if faults:
        raise ConfigError(faults)
    return Document(name, data, lines)


class _Constant(ValueError):
    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


def _no_constant(word: str) -> NoReturn:
    raise _Constant(word)


def _line_of_word(text: str, word: str) -> int:
    bare = re.sub(r'"(?:[^"\\\n]|\\.)*"', lambda match: " " * len(match[0]), text)
    position = bare.find(word)
    return text[: max(position, 0)].count("\n") + 1


def _json_syntax(text: str, name: str, error: json.JSONDecodeError) -> tuple[str, str, str]:
    before = text[: error.pos].rstrip()
    line = error.lineno
    problem, suggestion = f"is not JSON: {error.msg.lower()} at column {error.colno}", ""
    follows = text[error.pos : error.pos + 1]
    if "trailing comma" in error.msg.lower() or (before.endswith(",") and follows in ("}", "]")):
        line = before.count("\n") + 1
        problem, suggestion = "is not JSON: a comma stands before the closing bracket", "remove the comma"
    elif text[error.pos : error.pos + 1] in ("/", "#"):
        problem, suggestion = "is not JSON: it has a comment", "remove the comment, or write TOML"
    elif text[error.pos : error.pos + 1] == "'":
        problem, suggestion = "is not JSON: it has single quotes", 'write "double quotes"'
    elif error.pos >= len(text.rstrip()):
        line = text.rstrip().count("\n") + 1
        problem, suggestion = "is not JSON: it ends too early", "close every bracket and quote"
    elif "delimiter" in error.msg and text[error.pos : error.pos + 1] == '"':
        line = before.count("\n") + 1
        problem, suggestion = "is not JSON: a comma is missing at the end", "add a comma"
    return problem, f"{name}:{line}", suggestion


def _json_lines(text: str, name: str) -> tuple[dict[KeyPath, int], list[tuple[KeyPath, int]]]:
    """The line of each key and item, and the keys that are given twice. Raises ConfigError when too deep."""
    lines: dict[KeyPath, int] = {}
    twice: list[tuple[KeyPath, int]] = []
    path: list[str | int] = []
    open_lists: list[bool] = []
    line = 1
    expecting_key = False
    for token in _JSON_TOKEN.findall(text):
        if token == "\n":
            line += 1
            continue
        if token in "{[":
            if open_lists and open_lists[-1]:
                lines.setdefault(tuple(path), line)
            open_lists.append(token == "[")
            if len(open_lists) > MAX_DEPTH:
                _refuse(f"{name}:{line}", f"goes more than {MAX_DEPTH} levels deep")
            path.append(0 if token == "[" else "")
            expecting_key = token == "{"
        elif token in "}]":
            if open_lists:
                open_lists.pop()
                path.pop()
            expecting_key = False
        elif token == ",":
            if open_lists and open_lists[-1] and isinstance(path[-1], int):
                path[-1] += 1
            expecting_key = bool(open_lists) and not open_lists[-1]
        elif token == ":":
            expecting_key = False
        elif open_lists and expecting_key and token.startswith('"'):
            path[-1] = _json_key(token)
            if tuple(path) in lines:
                twice.append((tuple(path), line))
            else:
                lines[tuple(path)] = line
        elif open_lists and open_lists[-1]:
            lines.setdefault(tuple(path), line)
    return lines, twice


def _json_key(token: str) -> str:
    try:
        key = json.loads(token)
    except ValueError:
        return token
    return key if isinstance(key, str) else token


# TOML


_TOML_SKIP = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}" + r'|"(?:[^"\\\n]|\\.)*"' + r"|'[^'\n]*'" + r"|#[^\n]*", re.DOTALL
)
_TOML_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]\n]+?)\s*\]")
_TOML_KEY = re.compile(r"""\s*((?:"[^"\n]*"|'[^'\n]*'|[A-Za-z0-9_\-. \t])+?)\s*=""")
_TOML_PART = re.compile(r""""([^"\n]*)"|'([^'\n]*)'|([A-Za-z0-9_-]+)""")


def parse_toml(text: str, name: str) -> Document:
    """Parse TOML. Raises ConfigError for syntax (keys given twice among it), depth, NaN and infinity."""
    lines = dict(_toml_lines(text, name))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([_toml_syntax(str(error), text, name)]) from None
    except (ValueError, RecursionError):
        raise ConfigError(
            [Fault("", "holds a number that is too long to read", name, "write a shorter number")]
        ) from None
    return Document(name, data, lines)


def _toml_syntax(message: str, text: str, name: str) -> Fault:
    place = re.search(r"\(at line (\d+), column (\d+)\)", message)
    line = int(place[1]) if place else text.rstrip().count("\n") + 1
    words = message.split(" (at ")[0]
    written = text.split("\n")[line - 1] if line <= text.count("\n") + 1 else ""
    key = _TOML_KEY.match(written)
    shown = shown_key(key[1].strip()) if key else ""
    if "overwrite" in words or "twice" in words or "mutate" in words:
        return Fault(shown, "is given twice", f"{name}:{line}", "keep one")
    if "Invalid value" in words:
        return Fault(
            shown, "is not TOML: this is no value", f"{name}:{line}", "put text in quotes; write true or false"
        )
    if ":" in written and "=" not in written:
        return Fault("", "is not TOML: keys and values are joined by =", f"{name}:{line}", "write key = value")
    return Fault(shown, f"is not TOML: {words[:1].lower()}{words[1:]}", f"{name}:{line}")


def _toml_lines(text: str, name: str) -> Iterator[tuple[KeyPath, int]]:
    """The line of each key and table header. Raises ConfigError when brackets or dots go too deep."""
    blanked = _TOML_SKIP.sub(_blank, text)
    table: KeyPath = ()
    counts: dict[KeyPath, int] = {}
    depth = 0
    for number, (bare, written) in enumerate(zip(blanked.split("\n"), text.split("\n"), strict=True), start=1):
        if depth == 0 and (header := _TOML_HEADER.match(bare)):
            table = _keys(written.strip().strip("[]").split("]")[0])
            if header[1] == "[[":
                index = counts.get(table, -1) + 1
                if index == 0:
                    yield table, number
                counts[table] = index
                table = (*table, index)
            else:
                table = _inside_lists(table, counts)
            yield table, number
            deepest = len(table)
        else:
            key: KeyPath = ()
            if depth == 0 and (match := _TOML_KEY.match(written)) and "=" in bare:
                key = (*table, *_keys(match[1]))
                yield key, number
            depth, deepest = _bracket_depth(bare, depth)
            deepest += len(key)
        if deepest > MAX_DEPTH:
            _refuse(f"{name}:{number}", f"goes more than {MAX_DEPTH} levels deep")


def _blank(match: re.Match[str]) -> str:
    """Quoted text and comments as quotes without brackets, on as many lines."""
    return "".join("\n" if char == "\n" else "_" for char in match[0])


def _keys(dotted: str) -> KeyPath:
    return tuple(next(part for part in parts if part) for parts in _TOML_PART.findall(dotted) if any(parts))


def _inside_lists(table: KeyPath, counts: dict[KeyPath, int]) -> KeyPath:
    """``[datasets.video]`` after the second ``[[datasets]]`` is ``("datasets", 1, "video")``."""
    for end in range(len(table) - 1, 0, -1):
        if table[:end] in counts:
            return (*table[:end], counts[table[:end]], *table[end:])
    return table


def _bracket_depth(bare: str, depth: int) -> tuple[int, int]:
    deepest = depth
    for char in bare:
        if char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in "]}":
            depth = max(0, depth - 1)
    return depth, deepest
