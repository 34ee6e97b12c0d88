"""``ltxtrain cache --stats``, ``--verify`` and ``--prune``."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ltxtrain.errors import ConfigError, DataError, Fault, MachineError
from ltxtrain.units import counted, format_bytes

if TYPE_CHECKING:
    from ltxtrain.config import LoadedConfig
    from ltxtrain.data.store_upkeep import FileFact, Rubbish, Verdict

NAMED_AT_MOST = 20


def stats(cache_dir: Path, *, as_json: bool) -> None:
    from ltxtrain.data.store_upkeep import cache_stats

    found = cache_stats(cache_dir)
    if as_json:
        _print_json(
            {
                "cache": str(cache_dir),
                "kinds": {kind.kind: {"files": kind.files, "bytes": kind.bytes} for kind in found.kinds},
                "others": {kind.kind: {"files": kind.files, "bytes": kind.bytes} for kind in found.others},
                "leftovers": _plain(found.leftovers),
                "largest": _plain(found.largest),
            }
        )
        return
    print(f"cache: {cache_dir}")
    for kind in (*found.kinds, *found.others):
        print(f"  {kind.kind:<9} {counted(kind.files, 'file'):>14}  {format_bytes(kind.bytes):>10}")
    left = sum(file.bytes for file in found.leftovers)
    print(f"  left over {counted(len(found.leftovers), 'file'):>14}  {format_bytes(left):>10}")
    if found.largest:
        print("largest:")
    for file in found.largest:
        print(f"  {format_bytes(file.bytes):>10}  {file.path.relative_to(cache_dir)}")


def verify(cache_dir: Path, *, as_json: bool) -> None:
    """Raises ``DataError`` that names the damaged entries."""
    verdict = _verdict(cache_dir)
    if as_json:
        _print_json({"cache": str(cache_dir), "entries": _count(verdict), "damaged": _plain(verdict.damaged)})
    elif not verdict.damaged:
        print(f"{counted(_count(verdict), 'file')} in {cache_dir}: all are sound")
    if verdict.damaged:
        names = [str(file.path) for file in verdict.damaged[:NAMED_AT_MOST]]
        more = [f"and {len(verdict.damaged) - NAMED_AT_MOST} more"] if len(verdict.damaged) > NAMED_AT_MOST else []
        head = f"{len(verdict.damaged)} of {counted(_count(verdict), 'file')} damaged"
        raise DataError(
            "\n".join([head, *names, *more]),
            hint="they are encoded again when they are needed; ltxtrain cache --prune removes them",
        )


def prune(loaded: LoadedConfig, *, as_json: bool, yes: bool) -> None:
    """Raises ``MachineError`` while another process uses the cache."""
    from ltxtrain.cli.plan import plan_of
    from ltxtrain.data.claims import nobody_else
    from ltxtrain.data.store_upkeep import remove, rubbish_of

    asks = sys.stdin.isatty() and sys.stderr.isatty()
    if not yes and not asks:
        raise ConfigError([Fault("", "there is nobody to ask before entries are removed")], hint="say --yes")
    plan = plan_of(loaded)
    os.environ["HF_HUB_OFFLINE"] = "1"  # read when the client is imported: nothing is fetched for pruning's sake
    from ltxtrain.precompute import used_entries

    with _told_without_locks(plan.cache_dir), nobody_else(plan.cache_dir) as alone:
        if not alone:
            raise MachineError(
                f"another process is using the cache {plan.cache_dir}", hint="wait for it, then prune the cache"
            )
        used = used_entries(plan)
        rubbish = rubbish_of(plan.cache_dir, _verdict(plan.cache_dir), used)
        _tell(rubbish, plan.cache_dir)
        if rubbish.files:
            if not yes:
                typer.confirm("Remove them?", abort=True, err=True)
            remove(rubbish.files)
    if as_json:
        named = {"damaged": rubbish.damaged, "leftovers": rubbish.leftovers, "unused": rubbish.unused}
        _print_json({"cache": str(plan.cache_dir), "freed": rubbish.bytes} | {k: _plain(v) for k, v in named.items()})


@contextmanager
def _told_without_locks(cache_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MachineError(
            f"whether another process uses the cache {cache_dir} cannot be told, or it cannot be changed "
            f"({error.strerror or error})",
            hint="look at the cache's disk and at whom its files belong to, then prune the cache",
        ) from error


def _verdict(cache_dir: Path) -> Verdict:
    from ltxtrain.cli.drive import drain
    from ltxtrain.data.store_upkeep import iter_verify
    from ltxtrain.listeners.console import console_listener

    with console_listener() as console:
        return drain(iter_verify(cache_dir), [console])


def _tell(rubbish: Rubbish, cache_dir: Path) -> None:
    parts = {
        "damaged": rubbish.damaged,
        "left over": rubbish.leftovers,
        "not used by these options": rubbish.unused,
    }
    for why, files in parts.items():
        if files:
            size = format_bytes(sum(file.bytes for file in files))
            print(f"{counted(len(files), 'file')} {why}: {size}", file=sys.stderr)
    freed = f"{format_bytes(rubbish.bytes)} of {cache_dir} can be freed"
    print(freed if rubbish.files else "there is nothing to remove", file=sys.stderr)


def _count(verdict: Verdict) -> int:
    return len(verdict.sound) + len(verdict.damaged)


def _plain(files: Sequence[FileFact]) -> list[dict[str, object]]:
    return [{"path": str(file.path), "bytes": file.bytes} for file in files]


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    print()
