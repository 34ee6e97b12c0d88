"""Whether a package that an option needs is installed, without importing it."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version


def package_lacking(needs: str) -> str:
    """What is wrong with the package that ``needs`` names, as ``xformers>=0.0.29``; empty when it is there, or none is
    needed.

    >>> package_lacking("torch>=2.0")
    ''
    >>> package_lacking("no-such-package>=1.0")
    'no-such-package is not installed'
    """
    if not needs:
        return ""
    name, _, least = needs.partition(">=")
    try:
        found = version(name)
    except PackageNotFoundError:
        return f"{name} is not installed"
    if least and _numbers(found) < _numbers(least):
        return f"{name} {found} is installed, and {least} is the first that will do"
    return ""


def _numbers(release: str) -> tuple[int, ...]:
    """``2.8.0.post2+cu128`` -> (2, 8, 0)."""
    leading = re.match(r"[\d.]*", release)
    return tuple(int(part) for part in leading[0].split(".") if part) if leading else ()
