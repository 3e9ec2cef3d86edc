"""Rows of tables in jsonl, csv and parquet; imports no torch, so that a table is checked before anything is loaded.

Every error names the file and, where there is one, the row: 1 is the first record, headers and blank lines not counted.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from mmalign.errors import DataError

TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
PARQUET_ROWS = 1_000
"""Read at a time; a row may hold whole pictures."""
Record = Mapping[str, Any]


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a jsonl, csv or parquet file, in order.

    Raises:
        DataError: the file or a row of it cannot be read.
    """
    if path.suffix.lower() == ".parquet":
        yield from _parquet(path)
        return
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save it as UTF-8", file=path) from None
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path) from None
    yield from _csv(text, path) if path.suffix.lower() == ".csv" else _jsonl(text, path)


def _jsonl(text: str, path: Path) -> Iterator[Record]:
    # Not splitlines(): JSON strings may hold U+2028 and other ends of lines.
    for row, line in enumerate((line for line in text.split("\n") if line.strip()), start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"not JSON ({error})", file=path, row=row) from None
        if not isinstance(record, dict):
            raise DataError(f"expected an object, got {line.strip()[:40]!r}", file=path, row=row)
        yield record


def _csv(text: str, path: Path) -> Iterator[Record]:
    reader = csv.reader(StringIO(text, newline=""), strict=True)
    row = 0
    try:
        header = next(reader, [])
        for values in reader:
            if not values:
                continue
            row += 1
            if len(values) != len(header):
                raise DataError(f"{len(values)} values under {len(header)} columns", file=path, row=row)
            # csv has no null: an empty cell is the absence of a value.
            yield {name: value or None for name, value in zip(header, values, strict=True)}
    except csv.Error as error:
        raise DataError(f"not CSV ({error})", file=path, row=row + 1) from None


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"not a readable parquet file ({error})", file=path) from None
