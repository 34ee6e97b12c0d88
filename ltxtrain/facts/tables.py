"""Tables that name clips and hold their captions: .parquet, .csv and .jsonl, read row by row.

Whatever makes a table unreadable is one ``DataError`` that names the file, the line and the columns that there are.
What is wrong with one row (no caption, no such file) is the clip's own matter and does not stop the others.
"""

from __future__ import annotations

import csv
import json
import math
import reprlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from ltxtrain.config.datasets import TableRule
from ltxtrain.errors import DataError
from ltxtrain.facts.tables_parquet import parquet_rows

FILE_COLUMNS = ("filename", "file_name", "file", "path", "video", "image", "media")
CAPTION_COLUMNS = ("caption", "captions", "text", "prompt", "description")
MAX_CAPTION = 64 * 1024
MAX_LINE = 16 * 1024 * 1024

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """``place`` is ``line 3`` or ``row 3``, counted from 1. ``captions`` as they stand there; ``fault`` says why one is
    no text."""

    place: str
    file: str
    captions: tuple[str, ...]
    size: tuple[int, int] | None
    fault: str = ""


def read_table(rule: TableRule) -> Iterator[Row]:
    """All rows in order. Raises ``DataError``, also in the middle."""
    reader = {".parquet": _read_parquet, ".csv": _read_csv, ".jsonl": _read_jsonl}.get(rule.path.suffix.lower())
    if reader is None:
        raise DataError(f"{rule.path} is no table", hint="give a file whose name ends in .parquet, .csv or .jsonl")
    if not rule.path.is_file():
        what = "is not a file" if rule.path.exists() else "does not exist"
        raise DataError(f"the table {what}: {rule.path}", hint="correct the path of the table")
    with _told(rule.path):
        yield from reader(rule)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error) from error
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DataError(f"the table {path} cannot be read: {reason}", hint="write it again") from error


# ------------------------------------------------------------- columns


@dataclass(frozen=True)
class Columns:
    """Which columns hold what. ``captions`` are alternatives; ``fallback`` is asked where none of them has text."""

    file: str
    captions: tuple[str, ...]
    fallback: str | None
    width: str | None
    height: str | None

    @property
    def asked(self) -> tuple[str, ...]:
        asked = (self.file, *self.captions, self.fallback, self.width, self.height)
        return tuple(column for column in asked if column)

    def row(self, place: str, record: Record, path: Path) -> Row:
        captions, fault = captions_in(record, self.captions, self.fallback)
        size = size_in(record, self.width, self.height, f"{path}: {place}")
        name = dig(record, self.file)
        return Row(place, "" if name is None else str(name).strip(), captions, size, fault)


def chosen_columns(rule: TableRule, there: Sequence[str], texts: Collection[str] | None = None) -> Columns:
    """The columns of ``rule`` in a table that has ``there``; where it names none, the first of the usual names.

    ``texts`` are those that can hold names of files (None: all). Raises ``DataError`` for a column that is not there.
    """
    file = rule.filename_column or first_of(FILE_COLUMNS, there if texts is None else texts)
    if file is None:
        raise DataError(
            f"{rule.path} has no column that names the files; it has {listed(there)}",
            hint="say which one it is: filename_column",
        )
    usual = first_of(CAPTION_COLUMNS, there)
    captions = rule.caption_columns or ((usual,) if usual else ())
    found = Columns(file, captions, rule.fallback_caption_column, rule.width_column, rule.height_column)
    for column in found.asked:
        check_column(column, there, str(rule.path))
    return found


def check_column(column: str, there: Collection[str], where: str) -> None:
    if outermost(column, there) is None:
        raise DataError(
            f"{where} has no column {column!r}; it has {listed(there)}", hint="name one of the columns that are there"
        )


def outermost(column: str, there: Collection[str]) -> str | None:
    """``meta`` for ``meta.caption``, unless a column has that very name; None where there is neither."""
    if column in there:
        return column
    top = column.split(".")[0]
    return top if top in there else None


def first_of(names: Sequence[str], there: Collection[str]) -> str | None:
    return next((name for name in names if name in there), None)


def listed(columns: Collection[str]) -> str:
    shown = [repr(column) for column in list(columns)[:20]]
    more = len(columns) - len(shown)
    return (", ".join(shown) or "none") + (f" and {more} more" if more > 0 else "")


# ------------------------------------------------------------- values


def dig(record: Record, column: str) -> Any:
    """The value of a column, which may be dotted. In a list, a number is a place, and a name is asked of each item."""
    if column in record:
        return record[column]
    value: Any = record
    for step, part in enumerate(column.split(".")):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit():
            value = value[int(part)] if int(part) < len(value) else None
        elif isinstance(value, list):
            rest = ".".join(column.split(".")[step:])
            return [dig(item, rest) for item in value if isinstance(item, Mapping)]
        else:
            return None
    return value


def captions_in(record: Record, columns: Sequence[str], fallback: str | None) -> tuple[tuple[str, ...], str]:
    """All captions of a record, and what is wrong with them ("" when nothing is)."""
    captions: list[str] = []
    for column in columns:
        for value in _values(dig(record, column)):
            if not isinstance(value, str):
                return (), f"column {column!r} holds {type(value).__name__}, not text"
            captions.append(value)
    if sum(map(len, captions)) > MAX_CAPTION:
        return (), f"its captions have more than {MAX_CAPTION} letters"
    if fallback is not None and not any(caption.strip() for caption in captions):
        return captions_in(record, (fallback,), None)
    return tuple(captions), ""


def _values(value: Any) -> list[Any]:
    """The items of a list, a single value, or nothing where there is none (NaN is how tables of numbers say so)."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if item is not None and not (isinstance(item, float) and math.isnan(item))]


def size_in(record: Record, width: str | None, height: str | None, where: str) -> tuple[int, int] | None:
    """Width and height as stated, in pixels; None where one is not. Raises ``DataError`` for what is no size."""
    if width is None or height is None:
        return None
    sides = [_side(dig(record, column), column, where) for column in (width, height)]
    return None if None in sides else (sides[0] or 0, sides[1] or 0)


def _side(value: Any, column: str, where: str) -> int | None:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        side = float(value)
    except (TypeError, ValueError, OverflowError):
        side = math.nan
    if not (1 <= side <= 1_000_000 and side == int(side)):
        shown = reprlib.repr(value) if isinstance(value, (int, str)) else f"{value!r}"[:60]
        raise DataError(f"{where}: {column} is {shown}, not a number of pixels", hint="correct it, or leave it empty")
    return int(side)


# ------------------------------------------------------------- the three kinds of file


def _read_parquet(rule: TableRule) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(rule.path) as file:
            schema = file.schema_arrow
            there = list(schema.names)
            whole = {name for name in there if pa.types.is_nested(schema.field(name).type)}
            whole |= {name for name in there if pa.types.is_binary(schema.field(name).type)}
            columns = chosen_columns(rule, there, [name for name in there if name not in whole])
            if columns.file in whole:
                raise DataError(
                    f"{rule.path}: column {columns.file!r} holds {schema.field(columns.file).type}, not names of files",
                    hint="a table that holds the files themselves is read with type huggingface",
                )
            tops = list(dict.fromkeys(outermost(column, there) or column for column in columns.asked))
        for number, record in enumerate(parquet_rows(rule.path, tops), 1):
            yield columns.row(f"row {number}", record, rule.path)
    except pa.ArrowException as error:
        message = str(error).splitlines()[0]
        raise DataError(f"the table {rule.path} is no parquet file: {message}", hint="write it again") from error


def _read_csv(rule: TableRule) -> Iterator[Row]:
    with rule.path.open(encoding="utf-8-sig", newline="") as file:
        head = file.readline(MAX_LINE)
        file.seek(0)
        lines = csv.reader(_lines_of(file, rule.path), delimiter=_delimiter(head), strict=True)
        try:
            there = next(lines, [])
            columns = chosen_columns(rule, there)
            started = lines.line_num + 1
            for cells in lines:
                place, started = f"line {started}", lines.line_num + 1
                if not cells:
                    continue
                if len(cells) != len(there):
                    raise DataError(
                        f"{rule.path}: {place} has {len(cells)} fields, and the first line has {len(there)}",
                        hint='put a caption with a comma in it between quotation marks: "..."',
                    )
                yield columns.row(place, dict(zip(there, cells, strict=True)), rule.path)
        except csv.Error as error:
            raise DataError(f"{rule.path}: line {lines.line_num}: {error}", hint="correct that line") from error


def _lines_of(file: TextIO, path: Path) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            raise DataError(f"{path}: line {number} is longer than {MAX_LINE} letters", hint="correct that line")
        yield line


def _delimiter(head: str) -> str:
    """A comma; a tab or a semicolon where the first line has no comma: so some spreadsheets write it."""
    return next((mark for mark in (",", "\t", ";") if mark in head), ",")


def _read_jsonl(rule: TableRule) -> Iterator[Row]:
    columns: Columns | None = None
    seen: dict[str, None] = {}
    with rule.path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            record = _json_line(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line, number, rule.path)
            if record is None:
                continue
            seen |= dict.fromkeys(record)
            # A line may leave out what it has nothing for: what is there is known at the end.
            columns = columns or chosen_columns(rule, [*record, *_tops(rule)])
            yield columns.row(f"line {number}", record, rule.path)
    for column in columns.asked if columns else ():
        check_column(column, seen, str(rule.path))
    if columns is None:
        raise DataError(f"the table {rule.path} is empty", hint="it needs a line of JSON for each clip")


def _tops(rule: TableRule) -> list[str]:
    asked = (
        rule.filename_column,
        *rule.caption_columns,
        rule.fallback_caption_column,
        rule.width_column,
        rule.height_column,
    )
    return [column for column in asked if column]


def _json_line(line: bytes, number: int, path: Path) -> Record | None:
    if not line.strip():
        return None
    try:
        if len(line) > MAX_LINE:
            raise ValueError(f"it is longer than {MAX_LINE} bytes")
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError("it is no object {...}")
    except (ValueError, RecursionError) as error:
        problem = getattr(error, "msg", None) or str(error)
        raise DataError(f"{path}: line {number} is no JSON object: {problem}", hint="correct that line") from error
    return record


def _not_utf8(path: Path, error: UnicodeDecodeError) -> DataError:
    """The reader knows the place in its buffer only: the line is looked for."""
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1):
            try:
                line.decode()
            except UnicodeDecodeError as found:
                return DataError(
                    f"{path}: line {number} is not UTF-8: byte 0x{line[found.start]:02x}", hint="save it again as UTF-8"
                )
    return DataError(f"{path} is not UTF-8: {error.reason}", hint="save it again as UTF-8")
