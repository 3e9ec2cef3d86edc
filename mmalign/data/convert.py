"""Other people's preference tables as ours: every row is used, or rejected with its place and reason."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.data.hub import is_dataset, load_rows
from mmalign.data.layouts import LAYOUTS, Place
from mmalign.data.pairs import Pair, write_pairs
from mmalign.data.ratings import Rating, write_ratings
from mmalign.data.readers import Record, read_records
from mmalign.errors import ConfigError, DataError, UnknownNameError

METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What became of a table: rows in = ``used`` + ``rejected``."""

    rows: int
    used: int
    rejected: tuple[DataError, ...]
    written: int
    """Rows of the new table; one of the old may give several, an aspect each."""
    kind: str
    """pairs or demonstrations."""


def convert(
    path: Path, layout: str, out: Path, *, aspect: str | None = None, split: str | None = None
) -> Converted:
    """Convert a table to our columns, as a parquet file.

    Args:
        path: jsonl, json, csv or parquet; a dataset, as ``hf:owner/name`` or a folder that ``save_to_disk`` wrote;
            for ``imagefolder`` the folder.
        layout: one of ``LAYOUTS``.
        out: the parquet file. Media that the table holds itself go to the folder ``<name of out>-media`` beside it.
        aspect: which one of a layout that has several, or "all".
        split: of a dataset that has several.

    Raises:
        UnknownNameError: no such layout.
        DataError: the table cannot be read, or no row of it can be used; nothing was written to ``out``.
        ConfigError: ``aspect`` for a layout that has none, or ``out`` is no parquet file.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout", layout, LAYOUTS)
    if aspect is not None and layout != "videoalign":
        raise ConfigError(f"--aspect {aspect}: the layout {layout} has no aspects")
    if out.suffix.lower() != ".parquet":
        raise ConfigError(f"--out {out}: preferences are written as parquet; name it {out.stem}.parquet")
    folder = out.with_name(f"{out.stem}-media")
    names: dict[str, Path] = {}
    entries: list[Pair | Rating] = []
    rejected: list[DataError] = []
    rows = 0
    table, records = _rows(path, split)
    for rows, row in enumerate(records, 1):
        try:
            entries += LAYOUTS[layout](row, Place(table, rows, folder, aspect, names))
        except DataError as error:
            rejected.append(error)
    if not entries:
        first = f": {rejected[0]}" if rejected else ""
        raise DataError(f"none of its {rows} rows can be used{first}", file=path)
    pairs = [entry for entry in entries if isinstance(entry, Pair)]
    ratings = [entry for entry in entries if isinstance(entry, Rating)]
    if pairs:
        write_pairs(out, pairs)
    else:
        write_ratings(out, ratings)
    return Converted(
        rows=rows,
        used=rows - len(rejected),
        rejected=tuple(rejected),
        written=len(entries),
        kind="pairs" if pairs else "demonstrations",
    )


def _rows(path: Path, split: str | None) -> tuple[Path, Iterator[Record]]:
    """The table that is meant, which media are relative to, and its rows."""
    if is_dataset(path):
        return path, iter(load_rows(path, split=split))
    if split is not None:
        raise ConfigError("--split is for datasets")
    if path.is_dir():
        found = next((path / name for name in METADATA if (path / name).is_file()), None)
        if found is None:
            raise DataError(f"no table in this folder; expected one of {', '.join(METADATA)}", file=path)
        return found, read_records(found)
    if path.suffix.lower() == ".json":
        return path, iter(_json(path))
    return path, read_records(path)


def _json(path: Path) -> list[Any]:
    """A list of objects, or one of lists, column by column."""
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})", file=path) from None
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise DataError("expected a list of objects", file=path)
    return found
