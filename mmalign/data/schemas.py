"""The tables of preference data that methods learn from, told apart by their columns."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.data.binary import labelled_of
from mmalign.data.faults import fault_of
from mmalign.data.pairs import pair_of
from mmalign.data.rankings import ranking_of
from mmalign.data.ratings import rating_of
from mmalign.data.tables import Record, listing, read_rows
from mmalign.errors import DataError


@dataclass(frozen=True, slots=True)
class Schema:
    """What a table must have, how a row of it is read, and which columns name media."""

    name: str
    columns: tuple[str, ...]
    media: tuple[str, ...]
    parse: Callable[[Record, Path, int], Any]


SCHEMAS = (
    Schema("pairs", ("prompt", "chosen", "rejected"), ("chosen", "rejected"), pair_of),
    Schema("rankings", ("prompt", "samples", "ranks"), ("samples",), ranking_of),
    Schema("faults", ("prompt", "sample", "marked"), ("sample",), fault_of),
    Schema("binary", ("prompt", "sample", "label"), ("sample",), labelled_of),
    Schema("ratings", ("prompt", "sample", "score"), ("sample",), rating_of),
    Schema("demonstrations", ("prompt", "sample"), ("sample",), rating_of),
)
"""The first one whose columns a table has is meant."""


def schema_of(columns: Iterable[str], path: Path) -> Schema:
    """The schema of a table with these columns.

    Raises:
        DataError: none fits.
    """
    names = list(columns)
    for schema in SCHEMAS:
        if set(schema.columns) <= set(names):
            return schema
    known = "; ".join(f"{schema.name} have {', '.join(schema.columns)}" for schema in SCHEMAS)
    said = listing(names)
    raise DataError(f"no kind of preferences has the columns {said}: {known}", file=path)


def read_what_can_be(path: Path) -> tuple[Schema, list[tuple[int, Record, Any]], list[DataError]]:
    """Every row that is sound, and what is wrong with every other: rows in = used + rejected.

    Returns:
        The schema; (number, row, what it means) of sound rows; one error for each other row.

    Raises:
        DataError: the file cannot be read, has no rows, or no schema fits.
    """
    rows = list(read_rows(path))
    found = [row for row in rows if not isinstance(row, DataError)]
    if not found:
        raise next((row for row in rows if isinstance(row, DataError)), DataError("no rows in it", file=path))
    schema = schema_of(dict.fromkeys(name for row in found for name in row), path)
    used, rejected = [], []
    for number, row in enumerate(rows, 1):
        if isinstance(row, DataError):
            rejected.append(row)
            continue
        try:
            used.append((number, row, schema.parse(row, path, number)))
        except DataError as error:
            rejected.append(error)
    return schema, used, rejected


def media_of(schema: Schema, entry: Any) -> Sequence[Path]:
    """The files that one row names."""
    found: list[Path] = []
    for name in schema.media:
        value = getattr(entry, name)
        found += value if isinstance(value, tuple) else [value]
    return found
