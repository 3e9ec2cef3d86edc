"""Other people's preference tables as ours: every row is used, or rejected with its place and reason."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.data.binary import Labelled, write_binary
from mmalign.data.faults import Fault, write_faults
from mmalign.data.hub import is_dataset, load_rows, rows_of
from mmalign.data.label_tables import tables_of
from mmalign.data.layouts import LAYOUTS, Place
from mmalign.data.pairs import Pair, write_pairs
from mmalign.data.rankings import Ranking, write_rankings
from mmalign.data.ratings import Rating, write_ratings
from mmalign.data.tables import TABLE_SUFFIXES, Record, is_folder, read_rows
from mmalign.errors import ConfigError, DataError, UnknownNameError

LABELS = "labels"
WRITERS: dict[type, tuple[str, Callable[..., None]]] = {
    Pair: ("pairs", write_pairs),
    Ranking: ("rankings", write_rankings),
    Rating: ("ratings", write_ratings),
    Labelled: ("binary labels", write_binary),
    Fault: ("samples with what is wrong in them", write_faults),
}
METADATA = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Converted:
    """What became of a table: rows in = ``used`` + ``rejected``."""

    rows: int
    used: int
    rejected: tuple[DataError, ...]
    written: int
    """Rows of the new table; one of the old may give several, an aspect each."""
    kind: str
    """pairs, rankings, ratings, binary labels or demonstrations."""
    notes: tuple[str, ...] = ()
    """What else was left out, and why that is as it should be."""
    media: tuple[Path, ...] = ()
    """Different files of the new table."""


def convert(
    path: Path,
    layout: str,
    out: Path,
    *,
    aspect: str | None = None,
    split: str | None = None,
    samples: Path | None = None,
) -> Converted:
    """Convert a table to our columns, as a parquet file.

    Args:
        path: a table; a dataset, as ``hf:owner/name`` or a folder that ``save_to_disk`` wrote;
            for ``imagefolder`` the folder.
        layout: one of ``LAYOUTS``, or ``labels`` for the file that ``mmalign label`` writes.
        out: the parquet file. Media that the table holds itself go to the folder ``<name of out>-media`` beside it.
        aspect: which one of a layout that has several, or "all".
        split: of a dataset that has several.
        samples: the folder that labels are about, if it is not where it was.

    Raises:
        UnknownNameError: no such layout.
        DataError: the table cannot be read, or no row of it can be used; nothing was written to ``out``.
        ConfigError: ``aspect`` for a layout that has none, or ``out`` is no parquet file.
    """
    if layout not in (*LAYOUTS, LABELS):
        raise UnknownNameError("layout", layout, (*LAYOUTS, LABELS))
    if aspect is not None and layout not in ("videoalign", LABELS):
        raise ConfigError(f"--aspect {aspect}: the layout {layout} has no aspects")
    if out.suffix.lower() != ".parquet":
        raise ConfigError(f"--out {out}: preferences are written as parquet; name it {out.stem}.parquet")
    if layout == LABELS:
        if split is not None:
            raise ConfigError("--split is for datasets")
        return _labels(path, out, samples, aspect)
    if samples is not None:
        raise ConfigError(f"--samples: the layout {layout} names its media itself")
    folder = out.with_name(f"{out.stem}-media")
    names: dict[str, Path] = {}
    entries: list[Pair | Rating] = []
    rejected: list[DataError] = []
    rows = 0
    table, records = _rows(path, split)
    for rows, row in enumerate(records, 1):
        if isinstance(row, DataError):
            rejected.append(row)
            continue
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
        notes=_ties(pairs),
        media=_media(entries),
    )


def _labels(path: Path, out: Path, samples: Path | None, aspect: str | None) -> Converted:
    """The tables of labels: pairs, rankings, ratings or binary labels, as their mode is."""
    found = tables_of(path, samples, aspect=aspect, masks=out.with_name(f"{out.stem}-media"))
    if not found.entries:
        first = f": {found.rejected[0]}" if found.rejected else ""
        raise DataError(f"none of its {found.rows} choices can be used{first}", file=path)
    kind, write = WRITERS[type(found.entries[0])]
    write(out, found.entries)
    return Converted(
        rows=found.rows,
        used=found.rows - len(found.rejected),
        rejected=found.rejected,
        written=len(found.entries),
        kind=kind,
        notes=(*_ties(entry for entry in found.entries if isinstance(entry, Pair)), *found.notes),
        media=_media(found.entries),
    )


def _media(entries: Sequence[Any]) -> tuple[Path, ...]:
    """The files that entries of one kind name, each once."""
    found: list[Path] = []
    for entry in entries:
        found += [getattr(entry, name) for name in ("chosen", "rejected", "sample") if hasattr(entry, name)]
        found += getattr(entry, "samples", ())
    return tuple(dict.fromkeys(found))


def _ties(pairs: Iterable[Pair]) -> tuple[str, ...]:
    """What is to be known of pairs without an order."""
    count = sum(pair.verdict is not None for pair in pairs)
    if not count:
        return ()
    return (
        f"{count} of the pairs are ties (column verdict): `mmalign reward train --loss davidson` and rao-kupper learn "
        "from them, all else counts them as rejected",
    )


def _rows(path: Path, split: str | None) -> tuple[Path, Iterator[Record | DataError]]:
    """The table that is meant, which media are relative to, and its rows."""
    if is_dataset(path):
        return path, rows_of(load_rows(path, split=split), path)
    if split is not None:
        raise ConfigError("--split is for datasets")
    if is_folder(path):
        found = next((path / name for name in METADATA if (path / name).is_file()), None)
        if found is None:
            raise DataError(f"no table in this folder; expected one of {', '.join(METADATA)}", file=path)
        return found, read_rows(found)
    return path, read_rows(path)
