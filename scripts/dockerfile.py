"""Reading a Dockerfile: stages, instructions, here-documents and what a stage is made of. Nothing is looked up or run.

The parsers in reach know no here-documents and take their lines for instructions.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEREDOC = re.compile(r"(?<!<)<<(-?)(?!<)(['\"]?)([A-Za-z_]\w*)\2")
_DIRECTIVE = re.compile(r"#\s*(syntax|escape)\s*=", re.IGNORECASE)
_FLAG = re.compile(r"\s*(--[a-z][\w-]*(?:=\S*)?)(?=\s|$)")
_SEPARATORS = re.compile(r"&&|\|\||[;|&\n()`]")


@dataclass(frozen=True)
class Instruction:
    """``text`` is what follows name and flags, on one line; ``script`` are the bodies of its here-documents."""

    line: int
    name: str
    flags: tuple[str, ...]
    text: str
    script: str = ""

    def __str__(self) -> str:
        return " ".join((self.name, *self.flags, self.text, self.script))

    def commands(self) -> Iterator[str]:
        """The commands of a RUN, one by one, without comments; words in quotes may be torn, which no rule minds."""
        shell = f"{' '.join(self.words() or [self.text])}\n{self.script}".replace("\\\n", " ")
        lines = [line for line in shell.splitlines() if not line.lstrip().startswith("#")]
        for command in _SEPARATORS.split("\n".join(lines)):
            if command.strip():
                yield " ".join(command.split())

    def words(self) -> list[str] | None:
        """The words of an exec form (``["tini", "--"]``); None for a shell form."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return None
        return found if isinstance(found, list) and all(isinstance(word, str) for word in found) else None

    def pairs(self) -> list[tuple[str, str]]:
        """Names and values of ARG, ENV or LABEL, the old ``ENV NAME VALUE`` included. Raises ``ValueError``."""
        words = shlex.split(self.text)
        if self.name != "ARG" and words and "=" not in words[0]:
            return [(words[0], " ".join(words[1:]))]
        return [(word.partition("=")[0], word.partition("=")[2]) for word in words]

    def taken_from(self) -> list[str]:
        """What ``--from=`` and ``--mount=...,from=`` name."""
        return [found[1] for flag in self.flags if (found := re.search(r"(?:^--|[=,])from=([^,]+)", flag))]


@dataclass(frozen=True)
class Stage:
    line: int
    name: str
    base: str
    instructions: tuple[Instruction, ...]

    @property
    def title(self) -> str:
        return self.name or "the last stage"


@dataclass(frozen=True)
class Dockerfile:
    """``arguments`` are those before the first FROM, by name; ``directives`` the lines that change its language."""

    path: Path
    text: str
    stages: tuple[Stage, ...]
    arguments: dict[str, str] = field(default_factory=dict)
    directives: tuple[int, ...] = ()

    def instructions(self, *names: str) -> Iterator[tuple[Stage, Instruction]]:
        for stage in self.stages:
            for instruction in stage.instructions:
                if not names or instruction.name in names:
                    yield stage, instruction

    def stage(self, name: str) -> Stage | None:
        return next((stage for stage in self.stages if stage.name and stage.name == name.lower()), None)

    def chain(self, stage: Stage | None) -> list[Stage]:
        """``stage`` and the stages under it, the lowest first."""
        found: list[Stage] = []
        while stage is not None and stage not in found:
            found.insert(0, stage)
            stage = self.stage(stage.base)
        return found

    def made_of(self, stage: Stage | None) -> list[Stage]:
        """``stage`` and every stage that something in it comes from."""
        found: list[Stage] = []
        todo = [stage]
        while todo:
            one = todo.pop()
            if one is not None and one not in found:
                found.append(one)
                names = [one.base, *(name for instruction in one.instructions for name in instruction.taken_from())]
                todo += [self.stage(name) for name in names]
        return found


def read_dockerfile(path: Path) -> Dockerfile:
    text = path.read_text(encoding="utf-8")
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for instruction in _instructions(text):
        if instruction.name == "FROM":
            words = instruction.text.split()
            name = words[2].lower() if len(words) == 3 and words[1].upper() == "AS" else ""
            stages.append(Stage(instruction.line, name, words[0] if words else "", ()))
        elif stages:
            last = stages[-1]
            stages[-1] = Stage(last.line, last.name, last.base, (*last.instructions, instruction))
        elif instruction.name == "ARG":
            arguments.update(instruction.pairs())
    directives = tuple(number for number, line in enumerate(text.splitlines(), 1) if _DIRECTIVE.match(line))
    return Dockerfile(path, text, tuple(stages), arguments, directives)


def _instructions(text: str) -> Iterator[Instruction]:
    lines = list(enumerate(text.splitlines(), 1))
    while lines:
        number, line = lines.pop(0)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        while line.rstrip().endswith("\\") and lines:
            _, more = lines.pop(0)
            if not more.lstrip().startswith("#"):  # comments may stand between the lines of one instruction
                line = f"{line.rstrip()[:-1]} {more.strip()}" if more.strip() else line
        name, _, rest = line.strip().partition(" ")
        flags: list[str] = []
        while found := _FLAG.match(rest):
            flags.append(found[1])
            rest = rest[found.end() :]
        bodies = []
        if name.upper() in ("RUN", "COPY", "ADD"):
            bodies = [_body(lines, word, tabs=bool(dash)) for dash, _, word in _HEREDOC.findall(rest)]
        yield Instruction(number, name.upper(), tuple(flags), rest.strip(), "\n".join(bodies))


def _body(lines: list[tuple[int, str]], word: str, *, tabs: bool) -> str:
    body = []
    while lines:
        _, line = lines.pop(0)
        if (line.lstrip("\t") if tabs else line) == word:
            break
        body.append(line)
    return "\n".join(body)


@dataclass(frozen=True)
class Ignored:
    """A .dockerignore: which paths of a folder are not sent to the engine. The last line that fits decides."""

    rules: tuple[tuple[re.Pattern[str], bool], ...]

    def __contains__(self, path: str) -> bool:
        parts = path.split("/")
        places = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        out = False
        for pattern, leaves_out in self.rules:
            if any(pattern.fullmatch(place) for place in places):
                out = leaves_out
        return out


def read_ignored(path: Path) -> Ignored:
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    return Ignored(tuple((_pattern(line.removeprefix("!")), not line.startswith("!")) for line in lines))


def _pattern(line: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", line.strip().strip("/"))
    meant = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(meant.get(piece, re.escape(piece)) for piece in pieces))
