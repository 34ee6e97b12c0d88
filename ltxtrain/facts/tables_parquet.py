"""Parquet tables read in small pieces. A few hundred bytes of one can stand for gigabytes of text: a value that stands
in the file once is repeated for each row that names it, so texts are read as numbers into a list of the values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ltxtrain.errors import DataError
from ltxtrain.units import format_bytes

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 256
MAX_CELL = 128 * 1024  # as in tables of the other kinds: the csv reader takes no more in one field
MAX_BYTES_AT_ONCE = 64 * 1024**2


def parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """Rows with these columns, in order. Raises ``DataError`` for a text longer than any caption or name."""
    import pyarrow.parquet as parquet

    with parquet.ParquetFile(path) as file:
        leaves = (file.schema.column(place) for place in range(len(file.schema)))
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
    number = 0
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                if most := _too_much(column):
                    raise DataError(
                        f"{path}: rows {number + 1} to {number + len(batch)}: column {name!r} holds {most}",
                        hint="make them shorter, or name other columns: no caption is as long",
                    )
            yield from batch.to_pylist()
            number += len(batch)


def _too_much(column: pa.Array) -> str:
    """In words, or "" where the texts of ``column`` are of a size that captions and names have."""
    import pyarrow.compute as compute

    for texts in _texts_in(column):
        longest = compute.max(compute.binary_length(texts.dictionary)).as_py() or 0
        if longest > MAX_CELL:
            return f"a text of {format_bytes(longest)}"
        if longest * len(texts) > MAX_BYTES_AT_ONCE:
            return f"{len(texts)} texts of up to {format_bytes(longest)}"
    return ""


def _texts_in(column: pa.Array) -> Iterator[pa.DictionaryArray]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        if pa.types.is_string(kind.value_type) or pa.types.is_binary(kind.value_type):
            yield column
    elif pa.types.is_map(kind):
        yield from _texts_in(column.keys)
        yield from _texts_in(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _texts_in(column.flatten())
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            yield from _texts_in(part)
