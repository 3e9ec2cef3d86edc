"""Single samples of prompts: with a score they are ratings, without one demonstrations."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmalign.data.cells import medium_of, number_of, optional_text_of, relative_to, text_of
from mmalign.data.tables import Record, read_records
from mmalign.data.writers import write_parquet
from mmalign.errors import DataError, ShapeError
from mmalign.files import whole_file

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Rating:
    """One sample of a prompt.

    Args:
        prompt: what it was made for.
        sample: its file.
        score: how good it is, in the scorer's unit; None for a demonstration.
        annotator: who said so.
        source: which data or reward it comes from.
        aspect: what was rated; None for the whole.
        rationale: why, in words.
    """

    prompt: str
    sample: Path
    score: float | None = None
    annotator: str | None = None
    source: str | None = None
    aspect: str | None = None
    rationale: str | None = None


OPTIONAL = ("annotator", "source", "aspect", "rationale")
"""Columns that are only written where some sample has them."""


def read_ratings(path: Path) -> list[Rating]:
    """The samples of a jsonl, csv or parquet file with the columns ``prompt, sample, score``.

    Raises:
        DataError: no rows, or a missing column or value, or a medium that does not exist, with row and column.
    """
    rated = read_demonstrations(path)
    for number, rating in enumerate(rated, 1):
        if rating.score is None:
            raise DataError("expected a number, got nothing", file=path, row=number, column="score")
    return rated


def read_demonstrations(path: Path) -> list[Rating]:
    """The samples of a jsonl, csv or parquet file with the columns ``prompt, sample`` (and ``score``).

    Media are paths relative to the file.

    Raises:
        DataError: no rows, or a missing column or value, or a medium that does not exist, with row and column.
    """
    rows = list(read_records(path))
    if not rows:
        raise DataError("no samples in it", file=path)
    return [rating_of(row, path, number) for number, row in enumerate(rows, 1)]


def rating_of(row: Record, path: Path, number: int) -> Rating:
    """One row of a table of samples.

    Raises:
        DataError: a missing value, or a medium that does not exist, with row and column.
    """
    return Rating(
        text_of(row, "prompt", path, number),
        medium_of(row, "sample", path, number),
        number_of(row, "score", path, number),
        *(optional_text_of(row, column, path, number) for column in OPTIONAL),
    )


def write_ratings(path: Path, ratings: Sequence[Rating]) -> None:
    """Write a parquet file of samples, whole or not at all, with media paths relative to it."""
    more = [name for name in OPTIONAL if any(getattr(r, name) is not None for r in ratings)]
    rows = [
        {
            "prompt": r.prompt,
            "sample": relative_to(path, r.sample),
            "score": r.score,
            **{name: getattr(r, name) for name in more},
        }
        for r in ratings
    ]
    with whole_file(path) as unfinished:
        write_parquet(rows, unfinished, text=("prompt", "sample", *more))


def best_of_each(scores: "Tensor", *, kept: int = 1) -> list[tuple[int, int]]:
    """The best samples of each prompt's group; those without a score (NaN) are never among them.

    Args:
        scores: [P, G], G samples for each of P prompts.
        kept: at most this many for each prompt, the best first.

    Returns:
        (prompt, sample) as indices into P, G.

    Raises:
        ShapeError: ``scores`` is not [P, G].

    >>> import torch
    >>> best_of_each(torch.tensor([[0.1, 0.9], [float("nan"), 0.3], [float("nan")] * 2]))
    [(0, 1), (1, 1)]
    """
    if scores.ndim != 2:
        raise ShapeError(f"scores: expected [P, G], got {list(scores.shape)}")
    found = []
    for prompt, group in enumerate(scores.tolist()):
        order = sorted((i for i, score in enumerate(group) if score == score), key=lambda i: -group[i])
        found += [(prompt, i) for i in order[:kept]]
    return found
