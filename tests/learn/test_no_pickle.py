"""No pickle is read or written anywhere in the package."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ltxtrain

PACKAGE = Path(ltxtrain.__file__).parent
FORBIDDEN_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN_CALLS = {
    ("torch", "load"),
    ("torch", "save"),
    ("np", "load"),
    ("numpy", "load"),
    ("np", "save"),
    ("yaml", "load"),
}


def faults(tree: ast.AST) -> list[str]:
    """What in a module's source reads or writes pickles, or lets a library do so."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in FORBIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            module = (node.module or "").split(".")[0]
            found += [module] if module in FORBIDDEN_MODULES else []
            found += [f"{module}.{name.name}" for name in node.names if (module, name.name) in FORBIDDEN_CALLS]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}.{node.attr}"] if (node.value.id, node.attr) in FORBIDDEN_CALLS else []
        elif isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
            found += [str(node.arg)] if not (isinstance(node.value, ast.Constant) and node.value.value is False) else []
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_module_touches_pickle(path: Path) -> None:
    assert faults(ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import torch\ntorch.load('x', weights_only=True)",
        "from torch import save",
        "from pickle import loads",
        "from_pretrained(x, trust_remote_code=True)",
        "np.load(x)",
        "import joblib.numpy_pickle",
    ],
)
def test_planted_pickle_is_found(source: str) -> None:
    assert faults(ast.parse(source))
