"""Writes rows as jsonl, csv, parquet or an aligned table."""

import csv
import json
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal

TableFormat = Literal["table", "jsonl", "csv", "parquet"]


def format_rows(rows: Sequence[Mapping[str, Any]], form: TableFormat) -> str:
    r"""Rows as text; all have the same columns, and None is JSON's null, csv's empty cell and the table's "-".

    >>> format_rows([{"id": "0", "score": None}], "csv")
    'id,score\n0,\n'
    """
    if form == "jsonl":
        return "".join(json.dumps(dict(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    if form == "csv":
        stream = StringIO()
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return stream.getvalue()
    cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)) for line in cells)
    return "".join(line.rstrip() + "\n" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value).replace("\n", " ")


def write_parquet(rows: Sequence[Mapping[str, Any]], path: Path, *, text: Sequence[str]) -> None:
    """Write rows whose columns ``text`` are strings and all others numbers, also where every value is None."""
    import pyarrow
    import pyarrow.parquet

    names = list(rows[0]) if rows else list(text)
    schema = pyarrow.schema([(n, pyarrow.string() if n in text else pyarrow.float64()) for n in names])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows], schema=schema), path)
