"""Single cells of a user's table: texts, numbers and media, each refused with its file, row and column."""

import math
import os
from pathlib import Path
from typing import Any

from mmalign.data.tables import Record, brief, is_file, is_text, parse_json
from mmalign.errors import DataError
from mmalign.roots import lies_in, outside, root_of


def text_of(row: Record, column: str, path: Path, number: int) -> str:
    """A text that has to be there.

    Raises:
        DataError: it is missing, empty, blank or no text.
    """
    value = _string_of(row, column, path, number)
    if not is_text(value):
        raise DataError(f"holds half a character: {brief(value)}", file=path, row=number, column=column)
    if not value.strip():
        raise DataError(f"expected a text, got {brief(value)}", file=path, row=number, column=column)
    return value


def _string_of(row: Record, column: str, path: Path, number: int) -> str:
    value = row.get(column)
    if not isinstance(value, str) or not value:
        raise DataError(f"expected a text, got {brief(value)}", file=path, row=number, column=column)
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
            value = parse_json(value)
        except ValueError:
            raise DataError(
                f"expected a list as JSON, got {brief(value)}", file=path, row=number, column=column
            ) from None
    if not isinstance(value, list) or not value:
        raise DataError(f"expected a list, got {brief(value)}", file=path, row=number, column=column)
    return value


def medium_of(row: Record, column: str, path: Path, number: int) -> Path:
    """A medium's file, relative to the table, which has to exist where media of the table may lie (``mmalign.roots``).

    Raises:
        DataError: no file is named, or there is none, or it lies elsewhere.
    """
    name = _string_of(row, column, path, number)  # the name of a file need not be UTF-8
    medium = path.parent / name
    if not is_file(medium):
        raise DataError(f"no such file: {plain_name(medium)}", file=path, row=number, column=column)
    if not lies_in(medium, root_of(path)):
        raise DataError(outside(medium, root_of(path)), file=path, row=number, column=column)
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
    return None if failed(row) else number_of(row, "score", path, number)


def plain_name(medium: Path) -> str:
    """A file's name as an error shows it: as it is, unless it is too long for any file or would break the line."""
    name = str(medium)
    return name if len(name) <= 1_000 and name.isprintable() else brief(name)


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
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    # float() takes bytes, and texts such as 1_000, which nobody writes who means a number.
    odd = isinstance(value, bool | bytes) or (isinstance(value, str) and "_" in value)
    if odd or not math.isfinite(found):
        raise DataError(f"expected a number, got {brief(value)}", file=path, row=number, column=column)
    return found


def share_of(row: Record, column: str, path: Path, number: int) -> float | None:
    """A number in [0, 1], or None where the cell is empty.

    Raises:
        DataError: something else.
    """
    found = number_of(row, column, path, number)
    if found is not None and not 0 <= found <= 1:
        raise DataError(f"expected a number in [0, 1], got {found:g}", file=path, row=number, column=column)
    return found


def failed(row: Record) -> bool:
    """Whether a row that ``mmalign score`` wrote says that its sample could not be scored."""
    return row.get("status") not in (None, "", "ok")


def relative_to(table: Path, medium: Path) -> str:
    """A medium's path as it is written into a table."""
    return Path(os.path.relpath(medium, table.parent)).as_posix()
