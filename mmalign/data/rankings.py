"""Rankings: several samples of one prompt, from best to worst, ties allowed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmalign.data.cells import list_of, medium_of, number_of, optional_text_of, relative_to, text_of
from mmalign.data.tables import Record, read_records
from mmalign.errors import DataError
from mmalign.files import whole_file


@dataclass(frozen=True)
class Ranking:
    """The samples of one prompt in an order.

    Args:
        prompt: what all were made for.
        samples: K files, K >= 2.
        ranks: one each; 1 is the best, and equal ranks are a tie.
        source: which data or reward it comes from.
        annotator: who said so.
        aspect: what was compared; None for the whole.
    """

    prompt: str
    samples: tuple[Path, ...]
    ranks: tuple[float, ...]
    source: str | None = None
    annotator: str | None = None
    aspect: str | None = None


OPTIONAL = ("annotator", "aspect")
"""Columns that are only written where some ranking has them."""


def read_rankings(path: Path) -> list[Ranking]:
    """The rankings of a jsonl, csv or parquet file with the columns ``prompt, samples, ranks``.

    ``source``, ``annotator`` and ``aspect`` may stand beside them. ``samples`` and ``ranks`` are lists of one length
    (in csv as JSON); media are paths relative to the file.

    Raises:
        DataError: no rows, a missing column or value, lists of different lengths, or a medium that does not exist,
            with row and column.
    """
    rows = list(read_records(path))
    if not rows:
        raise DataError("no rankings in it", file=path)
    return [ranking_of(row, path, number) for number, row in enumerate(rows, 1)]


def ranking_of(row: Record, path: Path, number: int) -> Ranking:
    """One row of a table of rankings.

    Raises:
        DataError: a missing value, lists of different lengths, or a medium that does not exist, with row and column.
    """
    prompt = text_of(row, "prompt", path, number)
    named, ranks = (list_of(row, column, path, number) for column in ("samples", "ranks"))
    if len(named) < 2:
        raise DataError("expected two samples or more", file=path, row=number, column="samples")
    if len(ranks) != len(named):
        raise DataError(
            f"expected {len(named)} ranks, one for each sample, got {len(ranks)}",
            file=path,
            row=number,
            column="ranks",
        )
    numbers = [number_of({"ranks": rank}, "ranks", path, number) for rank in ranks]
    if any(rank is None for rank in numbers):
        raise DataError("expected a number, got nothing", file=path, row=number, column="ranks")
    samples = tuple(medium_of({"samples": name}, "samples", path, number) for name in named)
    source = row.get("source")
    return Ranking(
        prompt,
        samples,
        tuple(rank for rank in numbers if rank is not None),
        source if isinstance(source, str) else None,
        *(optional_text_of(row, column, path, number) for column in OPTIONAL),
    )


def write_rankings(path: Path, rankings: Sequence[Ranking]) -> None:
    """Write a parquet file of rankings, whole or not at all, with media paths relative to it."""
    import pyarrow
    import pyarrow.parquet

    text = pyarrow.string()
    more = [name for name in OPTIONAL if any(getattr(ranking, name) is not None for ranking in rankings)]
    schema = pyarrow.schema(
        [
            ("prompt", text),
            ("samples", pyarrow.list_(text)),
            ("ranks", pyarrow.list_(pyarrow.float64())),
            ("source", text),
            *((name, text) for name in more),
        ]
    )
    rows = [
        {
            "prompt": ranking.prompt,
            "samples": [relative_to(path, sample) for sample in ranking.samples],
            "ranks": list(ranking.ranks),
            "source": ranking.source,
            **{name: getattr(ranking, name) for name in more},
        }
        for ranking in rankings
    ]
    with whole_file(path) as unfinished:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), unfinished)
