"""Lists of prompts: a text with one a line, a table with a column of them, or a list that ships with the package."""

from pathlib import Path
from typing import Any

from mmalign.data.tables import (
    TABLE_SUFFIXES,
    brief,
    is_text,
    lines_of,
    listing,
    parse_json,
    read_bytes,
    read_rows,
    text_of_bytes,
)
from mmalign.errors import DataError, UnknownNameError
from mmalign.resources import resource

COLUMNS = ("prompt", "caption", "captions", "text")
"""Columns of prompts, the first that a table has."""


def read_prompts(name: str) -> list[str]:
    """The prompts of a file or of ``embedded/<list>``; blank ones are skipped.

    >>> len(read_prompts("embedded/shapes-heldout"))
    540

    Raises:
        UnknownNameError: no embedded list has this name.
        DataError: the file is missing, empty or not UTF-8, or a table without a column of prompts, or with one that is
            no text.
    """
    if name.startswith("embedded/"):
        folder = resource("assets") / "prompts"
        path = folder / f"{name.removeprefix('embedded/')}.txt"
        if not path.is_file():
            raise UnknownNameError("prompt list", name, (f"embedded/{p.stem}" for p in folder.glob("*.txt")))
    else:
        path = Path(name)
    return read_prompt_file(path)


def read_prompt_file(path: Path, *, skip_faults: bool = False) -> list[str]:
    """The prompts of a table (jsonl, json, csv, tsv, parquet), or of any other file with one a line.

    A json file may also be a plain list of texts.

    Args:
        path: the file.
        skip_faults: whether rows of a table that cannot be read, or whose prompt is no text, are passed over.

    Raises:
        DataError: as ``read_prompts``.
    """
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        found: list[Any] = _lines(path)
    else:
        found = _plain_list(path) if suffix == ".json" else _column(path)
    prompts = []
    for number, prompt in enumerate(found, 1):
        fault = prompt if isinstance(prompt, DataError) else None
        if fault is None and prompt is not None and not (isinstance(prompt, str) and is_text(prompt)):
            fault = DataError(f"expected a prompt, got {brief(prompt)}", file=path, row=number)
        if fault is not None and not skip_faults:
            raise fault
        if fault is None and prompt is not None and prompt.strip():
            prompts.append(prompt.strip())
    if not prompts:
        wanted = "write one a line" if suffix not in TABLE_SUFFIXES else "its rows are empty"
        raise DataError(f"no prompts in it; {wanted}", file=path)
    return prompts


def _lines(path: Path) -> list[str]:
    data = read_bytes(path)
    try:
        return lines_of(text_of_bytes(data, path))
    except DataError as fault:
        if "not UTF-8" not in str(fault):
            raise
        try:
            data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError("not UTF-8; save it as UTF-8 and try again", file=path, row=line) from None
        raise


def _plain_list(path: Path) -> list[Any]:
    """The texts of a json file that is a list of them; none where it is a list of rows."""
    try:
        found = parse_json(text_of_bytes(read_bytes(path), path))
    except ValueError as error:
        raise DataError(f"not JSON ({error})", file=path) from None
    if isinstance(found, list) and found and not any(isinstance(entry, dict) for entry in found):
        return found
    return _column(path)


def _column(path: Path) -> list[Any]:
    """The cells of the column of prompts, and what is wrong in place of a row that cannot be read."""
    rows = list(read_rows(path))
    if not rows:
        raise DataError("no rows in it", file=path)
    names = dict.fromkeys(name for row in rows if not isinstance(row, DataError) for name in row)
    column = next((name for name in COLUMNS if name in names), None)
    if not names:
        return rows
    if column is None:
        raise DataError(
            f"no column holds prompts; known: {', '.join(COLUMNS)}; there are: {listing(names)}", file=path
        )
    return [row if isinstance(row, DataError) else row.get(column) for row in rows]
