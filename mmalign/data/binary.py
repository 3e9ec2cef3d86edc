"""Single samples with a verdict: good or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmalign.data.cells import medium_of, optional_text_of, relative_to, text_of
from mmalign.data.tables import Record, brief, read_records
from mmalign.data.writers import write_parquet
from mmalign.errors import DataError
from mmalign.files import whole_file

WORDS: dict[Any, bool] = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
"""What a label may be, in lower case; JSON's true and 1 are among them."""


@dataclass(frozen=True)
class Labelled:
    """One sample of a prompt.

    Args:
        prompt: what it was made for.
        sample: its file.
        label: whether it is good.
        annotator: who said so.
        source: which data it comes from.
        aspect: what was judged; None for the whole.
    """

    prompt: str
    sample: Path
    label: bool
    annotator: str | None = None
    source: str | None = None
    aspect: str | None = None


OPTIONAL = ("annotator", "source", "aspect")
"""Columns that are only written where some sample has them."""


def read_binary(path: Path) -> list[Labelled]:
    """The samples of a jsonl, csv or parquet file with the columns ``prompt, sample, label``.

    A label is true or false, or 1 or 0. Media are paths relative to the file.

    Raises:
        DataError: no rows, a missing column or value, another label, or a medium that does not exist, with row and
            column.
    """
    rows = list(read_records(path))
    if not rows:
        raise DataError("no samples in it", file=path)
    return [labelled_of(row, path, number) for number, row in enumerate(rows, 1)]


def labelled_of(row: Record, path: Path, number: int) -> Labelled:
    """One row of a table of labels.

    Raises:
        DataError: a missing value, another label, or a medium that does not exist, with row and column.
    """
    prompt, sample = text_of(row, "prompt", path, number), medium_of(row, "sample", path, number)
    label = WORDS.get(str(row.get("label")).lower())
    if label is None:
        raise DataError(
            f"expected true or false, got {brief(row.get('label'))}", file=path, row=number, column="label"
        )
    return Labelled(
        prompt, sample, label, *(optional_text_of(row, column, path, number) for column in OPTIONAL)
    )


def write_binary(path: Path, labels: Sequence[Labelled]) -> None:
    """Write a parquet file of samples with their labels, 1 or 0, whole or not at all, media relative to it."""
    more = [name for name in OPTIONAL if any(getattr(entry, name) is not None for entry in labels)]
    rows = [
        {
            "prompt": entry.prompt,
            "sample": relative_to(path, entry.sample),
            "label": float(entry.label),
            **{name: getattr(entry, name) for name in more},
        }
        for entry in labels
    ]
    with whole_file(path) as unfinished:
        write_parquet(rows, unfinished, text=("prompt", "sample", *more))
