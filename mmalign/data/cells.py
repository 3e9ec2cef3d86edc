"""Single cells of a user's table: texts, numbers and media, each refused with its file, row and column."""

import json
import math
import os
from pathlib import Path
from typing import Any

from mmalign.data.tables import Record
from mmalign.errors import DataError


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
    """A medium's file, relative to the table, which has to exist.

    Raises:
        DataError: no file is named, or there is none.
    """
    medium = path.parent / text_of(row, column, path, number)
    if not medium.is_file():
        raise DataError(f"no such file: {medium}", file=path, row=number, column=column)
    return medium


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
