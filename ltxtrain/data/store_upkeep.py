"""Looking after a cache: how much is in it, whether it is sound, and what may go. Needs no torch."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from ltxtrain.data.store import KINDS, SUFFIX, verified
from ltxtrain.events import Event, StageDone, StageProgress, StageStarted

LEFTOVERS = ".*.tmp"
# Where a file system knows no locks, only its age tells that nobody is writing a temporary file any more.
OLD_SECONDS = 600.0
LARGEST = 5
STAGE = "cache entries"
OTHERS = ("digests", "index", "clips", "models", "datasets")


@dataclass(frozen=True)
class FileFact:
    path: Path
    bytes: int


@dataclass(frozen=True)
class KindStats:
    """One folder of the cache: its files, and the temporary files that a kill left in it."""

    kind: str
    files: int
    bytes: int


@dataclass(frozen=True)
class CacheStats:
    kinds: tuple[KindStats, ...]
    others: tuple[KindStats, ...]
    leftovers: tuple[FileFact, ...]
    largest: tuple[FileFact, ...]


@dataclass(frozen=True)
class Verdict:
    sound: tuple[FileFact, ...]
    damaged: tuple[FileFact, ...]


@dataclass(frozen=True)
class Rubbish:
    """What pruning removes, by reason."""

    damaged: tuple[FileFact, ...]
    leftovers: tuple[FileFact, ...]
    unused: tuple[FileFact, ...]

    @property
    def files(self) -> tuple[FileFact, ...]:
        return self.damaged + self.leftovers + self.unused

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def entries_of(cache_dir: Path, kind: str) -> Iterator[FileFact]:
    """Everything that lies where entries of ``kind`` lie, whatever it is, but for temporary files."""
    return (file for file in _files(cache_dir / kind) if not _is_leftover(file.path))


def cache_stats(cache_dir: Path) -> CacheStats:
    entries = {kind: list(entries_of(cache_dir, kind)) for kind in KINDS}
    everything = [file for files in entries.values() for file in files]
    return CacheStats(
        tuple(_sum(kind, files) for kind, files in entries.items()),
        tuple(_sum(name, _files(cache_dir / name)) for name in OTHERS if (cache_dir / name).is_dir()),
        tuple(leftovers_of(cache_dir)),
        tuple(sorted(everything, key=lambda file: (-file.bytes, file.path))[:LARGEST]),
    )


def iter_verify(cache_dir: Path) -> Generator[Event, None, Verdict]:
    """Read every entry whole. Damaged is what is not as its own name, key and checksum say."""
    files = [file for kind in KINDS for file in entries_of(cache_dir, kind)]
    yield StageStarted(STAGE, len(files), 0, "entries")
    started = time.perf_counter()
    sound: list[FileFact] = []
    damaged: list[FileFact] = []
    for number, file in enumerate(files, 1):
        is_sound = verified(file.path, file.path.name.removesuffix(SUFFIX)) is not None
        (sound if is_sound else damaged).append(file)
        yield StageProgress(STAGE, number)
    yield StageDone(STAGE, time.perf_counter() - started, f"{len(sound)} sound, {len(damaged)} damaged")
    return Verdict(tuple(sound), tuple(damaged))


def leftovers_of(cache_dir: Path, older_than: float = 0.0) -> list[FileFact]:
    """Temporary files of all that runs write here."""
    limit = time.time() - older_than
    places = [*(file for name in (*KINDS, *OTHERS) for file in _files(cache_dir / name)), *_directly_in(cache_dir)]
    found = (file for file in places if _is_leftover(file.path))
    return [file for file in found if older_than <= 0 or _modified(file.path) < limit]


def rubbish_of(cache_dir: Path, verdict: Verdict, used: Set[Path]) -> Rubbish:
    """What is damaged, left over, or not one of the ``used`` paths."""
    unused = tuple(file for file in verdict.sound if file.path not in used)
    limit = time.time() - OLD_SECONDS
    claims = (file for file in _files(cache_dir / "claims") if file.path.suffix == ".lock")
    ended = [file for file in claims if _modified(file.path) < limit]  # of runs that were killed
    return Rubbish(verdict.damaged, (*leftovers_of(cache_dir, OLD_SECONDS), *ended), unused)


def remove(files: Sequence[FileFact]) -> None:
    for file in files:
        file.path.unlink(missing_ok=True)


def _directly_in(folder: Path) -> Iterator[FileFact]:
    return _facts(sorted(folder.glob(LEFTOVERS)))


def _files(folder: Path) -> Iterator[FileFact]:
    return _facts(sorted(folder.rglob("*")))


def _facts(paths: Iterable[Path]) -> Iterator[FileFact]:
    for path in paths:
        try:
            if path.is_file() and not path.is_symlink():
                yield FileFact(path, path.stat().st_size)
        except OSError:
            continue  # it went while we looked


def _is_leftover(path: Path) -> bool:
    return path.match(LEFTOVERS)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()


def _sum(kind: str, files: Iterable[FileFact]) -> KindStats:
    sizes = [file.bytes for file in files]
    return KindStats(kind, len(sizes), sum(sizes))
