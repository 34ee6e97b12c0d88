"""Fail where a file, a function or a parameter list has grown too large, or where a module is named after nothing.

python scripts/sizes.py [FOLDER ...]        default: ltxtrain scripts bench tests
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Container, Iterator
from pathlib import Path

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 100
MAX_PARAMETERS = 6
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "manager", "handler", "misc", "common"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def main() -> None:
    folders = [Path(name) for name in sys.argv[1:] or ("ltxtrain", "scripts", "bench", "tests")]
    missing = [str(folder) for folder in folders if not folder.is_dir()]
    if missing:
        sys.exit(f"error: no such folder: {', '.join(missing)}")
    faults = [fault for folder in folders for path in sorted(folder.rglob("*.py")) for fault in faults_in(path)]
    for fault in faults:
        print(fault)
    sys.exit(1 if faults else 0)


def faults_in(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{path}: {lines} lines, at most {MAX_FILE_LINES}: split it by noun"
    for name in sorted({*path.parts[:-1], path.stem} & EMPTY_NAMES):
        yield f"{path}: {name!r} is no name: say what it holds"
    tree = ast.parse(text)
    flags = flags_in(tree)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield from faults_of_function(path, node, flags)


def flags_in(tree: ast.Module) -> set[str]:
    """The names ``Flag`` of ``Flag = Annotated[..., typer.Option(...)]``: what the command line gives."""
    named = [node for node in tree.body if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)]
    return {ast.unparse(node.targets[0]) for node in named if is_flag(node.value)}


def is_flag(annotation: ast.expr) -> bool:
    text = ast.unparse(annotation)
    return text.startswith("Annotated[") and ("typer.Option(" in text or "typer.Argument(" in text)


def faults_of_function(path: Path, function: Function, flags: Container[str]) -> Iterator[str]:
    length = (function.end_lineno or function.lineno) - function.lineno + 1
    if length > MAX_FUNCTION_LINES:
        yield f"{path}:{function.lineno}: {function.name} has {length} lines, at most {MAX_FUNCTION_LINES}"
    count = parameter_count(function.args, flags)
    if count > MAX_PARAMETERS:
        yield f"{path}:{function.lineno}: {function.name} takes {count} parameters, at most {MAX_PARAMETERS}"


def parameter_count(arguments: ast.arguments, flags: Container[str]) -> int:
    """Without ``self`` and flags. A command of the command line, known by its ``Context``, has flags alone: 0."""
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    first = found[0] if found else None
    if first and first.annotation and ast.unparse(first.annotation).endswith("Context"):
        return 0
    counted = [each for each in found if not (each.annotation and ast.unparse(each.annotation) in flags)]
    return len(counted) - (1 if first and first.arg in ("self", "cls") else 0)


if __name__ == "__main__":
    main()
