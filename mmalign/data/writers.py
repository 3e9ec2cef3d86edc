"""Writes rows as jsonl, csv, parquet or an aligned table."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from io import StringIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TextIO

TableFormat = Literal["table", "jsonl", "csv", "parquet"]
Row = Mapping[str, Any]
PARQUET_ROWS = 10_000
"""Rows that are held at once while a parquet file is written, and its row groups."""


def format_rows(rows: Sequence[Row], form: TableFormat) -> str:
    r"""Rows as text; all have the same columns, and None is JSON's null, csv's empty cell and the table's "-".

    >>> format_rows([{"id": "0", "score": None}], "csv")
    'id,score\n0,\n'
    """
    if form == "jsonl":
        return "".join(map(json_line, rows))
    stream = StringIO()
    if form == "csv":
        _write_csv(rows, list(rows[0]) if rows else [], stream)
    elif rows:
        _write_aligned(lambda: iter(rows), list(rows[0]), stream)
    return stream.getvalue()


def stream_rows(
    read: Callable[[], Iterable[Row]],
    out: Path | TextIO,
    form: TableFormat,
    *,
    columns: Sequence[str],
    text: Sequence[str],
) -> None:
    """Write any number of rows without holding them.

    Args:
        read: gives all rows from the start, each time it is called; what a row does not have is None.
        out: a file, or an open stream for all but parquet.
        form: of the output.
        columns: of all rows, in order.
        text: the columns that are strings; all others are numbers.
    """

    def filled() -> Iterator[Row]:
        return ({name: row.get(name) for name in columns} for row in read())

    if form == "parquet":
        assert isinstance(out, Path)
        _write_parquet(filled(), out, columns, text)
        return
    with out.open("w", encoding="utf-8", newline="") if isinstance(out, Path) else nullcontext(out) as stream:
        if form == "jsonl":
            stream.writelines(map(json_line, filled()))
        elif form == "csv":
            _write_csv(filled(), columns, stream)
        else:
            _write_aligned(filled, columns, stream)


def json_line(row: Row) -> str:
    r"""A row as one line of JSON; names of files that are no UTF-8 come back as they were.

    >>> json_line({"id": "é", "media": b"\xff.png".decode("utf-8", "surrogateescape")})
    '{"id": "\\u00e9", "media": "\\udcff.png"}\n'

    Raises:
        ValueError: a number is NaN or infinite, for which JSON has no word.
    """
    line = json.dumps(dict(row), ensure_ascii=False, allow_nan=False)
    return (line if _is_utf8(line) else json.dumps(dict(row), allow_nan=False)) + "\n"


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


def _plain(value: Any) -> Any:
    """A cell that any file can hold."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _write_csv(rows: Iterable[Row], columns: Sequence[str], stream: TextIO) -> None:
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _plain(value) for name, value in row.items()} for row in rows)


def _write_aligned(read: Callable[[], Iterable[Row]], columns: Sequence[str], stream: TextIO) -> None:
    """Two passes: widths, then lines."""
    widths = [len(name) for name in columns]
    for row in read():
        widths = [max(width, len(_cell(row[name]))) for width, name in zip(widths, columns, strict=True)]

    def line(cells: Iterable[str]) -> str:
        return "  ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)).rstrip() + "\n"

    stream.write(line(columns))
    stream.writelines(line(_cell(row[name]) for name in columns) for row in read())


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(_plain(value)).replace("\n", " ")


def write_parquet(rows: Sequence[Row], path: Path, *, text: Sequence[str]) -> None:
    """Write rows whose columns ``text`` are strings and all others numbers, also where every value is None."""
    _write_parquet(iter(rows), path, list(rows[0]) if rows else list(text), text)


def _write_parquet(rows: Iterator[Row], path: Path, columns: Sequence[str], text: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    schema = pyarrow.schema([(n, pyarrow.string() if n in text else pyarrow.float64()) for n in columns])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while block := list(islice(rows, PARQUET_ROWS)):
            plain = [{name: _plain(value) for name, value in row.items()} for row in block]
            writer.write_table(pyarrow.Table.from_pylist(plain, schema=schema))
