"""Single cells of a user's table: texts, numbers and media, each refused with its file, row and column."""

import json
import math
import os
from pathlib import Path
from typing import Any

from mmalign.data.readers import Record
from mmalign.errors import DataError
from mmalign.roots import lies_in, outside, root_of


def text_of(row: Record, column: str, path: Path, number: int) -> str:
    """A text that has to be there.

    Raises:
        DataError: it is missing, empty or no text.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value:
        raise DataError(f"expected a text, got {value!r}", file=path, row=number, column=column)
    return value


def optional_text_of(row: Record, column: str, path: Path, number: int) -> str | None:
    """A text, or None where the cell is empty.

    Raises:
        DataError: something else.
    """
    value = row.get(column)
    return None if value is None or value == "" else text_of(row, column, path, number)


def list_of(row: Record, column: str, path: Path, number: int) -> list[Any]:
    """A list that is not empty; csv holds it as JSON.

    Raises:
        DataError: something else.
    """
    value = row.get(column)
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(
                f"expected a list as JSON, got {value[:40]!r}", file=path, row=number, column=column
            ) from None
    if not isinstance(value, list) or not value:
        raise DataError(f"expected a list, got {value!r}", file=path, row=number, column=column)
    return value


def medium_of(row: Record, column: str, path: Path, number: int) -> Path:
    """A medium's file, relative to the table, which has to exist where media of the table may lie (``mmalign.roots``).

    Raises:
        DataError: no file is named, or there is none, or it lies elsewhere.
    """
    medium = path.parent / text_of(row, column, path, number)
    if not lies_in(medium, root_of(path)):
        raise DataError(outside(medium, root_of(path)), file=path, row=number, column=column)
    if not medium.is_file():
        raise DataError(f"no such file: {medium}", file=path, row=number, column=column)
    return medium


def score_of(row: Record, path: Path, number: int) -> float | None:
    """The score of a row of a score file: None where the cell is empty, or where ``status`` says that it failed.

    A row that failed has no value anywhere, whatever number stands beside its status; a table without a column
    ``status`` says nothing of failures.

    Raises:
        DataError: the score is no number.

    >>> score_of({"score": 3.0, "status": "the reward failed"}, Path("scores.jsonl"), 1) is None
    True
    """
    status = row.get("status")
    if status is not None and status not in ("", "ok"):
        return None
    return number_of(row, "score", path, number)


def number_of(row: Record, column: str, path: Path, number: int) -> float | None:
    """A finite number, or None where the cell is empty.

    Raises:
        DataError: something else.
    """
    value = row.get(column)
    if value is None or value == "":
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if isinstance(value, bool) or not math.isfinite(found):
        raise DataError(f"expected a number, got {value!r}", file=path, row=number, column=column)
    return found


def relative_to(table: Path, medium: Path) -> str:
    """A medium's path as it is written into a table."""
    return Path(os.path.relpath(medium, table.parent)).as_posix()
