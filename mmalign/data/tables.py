"""Rows of tables in jsonl, json, csv, tsv and parquet: each is a row or says why it is none.

Every error names the file and, where there is one, the row: 1 is the first record, headers and blank lines not counted.
A fault of one row is that row's; a fault of the file, such as two columns of one name, is the file's.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

from mmalign.errors import DataError

PARQUET_ROWS = 1_000
"""Read at a time; a row may hold whole pictures."""
LONGEST_NUMBER = 300
"""Digits of a whole number; above, no float holds it, and Python refuses to read more than 4,300."""
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What stands between values where it is no comma, and its name."""
Record: TypeAlias = Mapping[str, Any]


def read_records(path: Path) -> Iterator[Record]:
    """The rows of a table, in order.

    Raises:
        DataError: the file or a row of it cannot be read.
    """
    for row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        yield row


def read_rows(path: Path) -> Iterator[Record | DataError]:
    """The rows of a table, in order, and in place of a row that cannot be read, why.

    A file without a suffix of ``TABLE_SUFFIXES`` is read as jsonl.

    Raises:
        DataError: the file cannot be read, is of another format, or has two columns of one name.
    """
    return _READERS.get(path.suffix.lower(), _jsonl)(path)


def read_text(path: Path) -> str:
    """A text file, without the mark that some programs put before it.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    return text_of_bytes(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """A file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path) from None


def text_of_bytes(data: bytes, path: Path) -> str:
    """UTF-8 without its mark.

    Raises:
        DataError: it is something else, such as the UTF-16 that spreadsheets call Unicode.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError("is UTF-16; save it as UTF-8", file=path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}; save it as UTF-8", file=path) from None
    if "\0" in text:
        raise DataError("holds bytes of zero, as no text does; save it as UTF-8", file=path)
    return text


def lines_of(text: str) -> list[str]:
    r"""The lines of a text: only ``\n``, ``\r\n`` and ``\r`` end one.

    ``str.splitlines`` also parts a line at U+2028, NEL, vertical tabs and form feeds, which people paste into prompts
    and JSON strings may hold.

    >>> lines_of("a\u2028b\r\nc\n")
    ['a\u2028b', 'c']
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def parse_json(text: str | bytes) -> Any:
    """JSON, without what Python's reader lets pass or stumbles over.

    Raises:
        ValueError: it is no JSON, names a key twice (the last one would win), or is nested too deeply.
    """
    try:
        return json.loads(text, parse_int=_whole, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _whole(digits: str) -> float:
    """A whole number; one that no float holds is infinite, which readers of numbers refuse."""
    return int(digits) if len(digits) <= LONGEST_NUMBER else float(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"two values are called {_twice(name for name, _ in pairs)!r}")
    return found


def _twice(names: Iterable[str]) -> str | None:
    """The first name that occurs more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def check_columns(names: Iterable[str], path: Path) -> None:
    """Refuse a table in which one column would hide another.

    Raises:
        DataError: two columns have one name.
    """
    twice = _twice(name for name in names if name)
    if twice is not None:
        raise DataError(f"two columns are called {twice!r}; rename or remove one", file=path)


def _jsonl(path: Path) -> Iterator[Record | DataError]:
    number = 0
    for line in text_of_bytes(read_bytes(path), path).split("\n"):
        if not line.strip():
            continue
        number += 1
        try:
            record = parse_json(line)
        except ValueError as error:
            yield DataError(f"not JSON ({error})", file=path, row=number)
            continue
        if isinstance(record, dict):
            yield record
        else:
            yield DataError(f"expected an object, got {line.strip()[:40]!r}", file=path, row=number)


def _json(path: Path) -> Iterator[Record | DataError]:
    """A list of objects."""
    try:
        found = parse_json(text_of_bytes(read_bytes(path), path))
    except ValueError as error:
        raise DataError(f"not JSON ({error})", file=path) from None
    if not isinstance(found, list):
        raise DataError("expected a list of objects", file=path)
    for number, record in enumerate(found, 1):
        if isinstance(record, dict):
            yield record
        else:
            yield DataError(f"expected an object, got {brief(record)}", file=path, row=number)


def _csv(path: Path) -> Iterator[Record | DataError]:
    return _separated(path, ",")


def _tsv(path: Path) -> Iterator[Record | DataError]:
    return _separated(path, "\t")


def _separated(path: Path, delimiter: str) -> Iterator[Record | DataError]:
    reader = csv.reader(
        StringIO(text_of_bytes(read_bytes(path), path), newline=""), strict=True, delimiter=delimiter
    )
    number = 0
    try:
        header = next(reader, [])
        _check_delimiter(header, path)
        check_columns(header, path)
        for values in reader:
            if not values:
                continue
            number += 1
            if len(values) != len(header):
                yield DataError(f"{len(values)} values under {len(header)} columns", file=path, row=number)
                continue
            # csv has no null: an empty cell is the absence of a value.
            yield {name: value or None for name, value in zip(header, values, strict=True)}
    except csv.Error as error:
        # Where a quote is not closed no later row can be told from a value.
        raise DataError(f"not CSV ({error})", file=path, row=number + 1) from None


def _check_delimiter(header: list[str], path: Path) -> None:
    """Refuse a header that is one name with other separators in it.

    Raises:
        DataError: it is, with what was found.
    """
    other = next((mark for mark in DELIMITERS if len(header) == 1 and mark in header[0]), None)
    if other is not None:
        way = "name it .tsv" if other == "\t" else "save it with commas"
        raise DataError(
            f"its columns are parted by {DELIMITERS[other]} ({brief(header[0])}), not by commas; {way}",
            file=path,
        )


def _parquet(path: Path) -> Iterator[Record | DataError]:
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_columns(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=PARQUET_ROWS):
                for record in _plain(batch):
                    number += 1
                    yield (
                        record
                        if not isinstance(record, Exception)
                        else DataError(f"cannot be read ({_said(record)})", file=path, row=number)
                    )
    except DataError:
        raise
    except Exception as error:  # a decoder that is fed damaged bytes raises anything at all
        raise DataError(f"not a readable parquet file ({_said(error)})", file=path) from None


def _plain(batch: Any) -> list[Any]:
    """The rows of a batch as dictionaries, and the exception in place of each that is none."""
    try:
        rows: list[Any] = batch.to_pylist()
        return rows
    except Exception:  # one bad date or text hides all others
        found: list[Any] = []
        for i in range(len(batch)):
            try:
                found += batch.slice(i, 1).to_pylist()
            except Exception as error:
                found.append(error)
        return found


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have, too long or with a zero in it, is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def is_text(value: str) -> bool:
    """Whether a text can be written as UTF-8; JSON may hold half a character, which nothing after it can."""
    try:
        value.encode()
        return True
    except UnicodeEncodeError:
        return False


def listing(names: Iterable[Any]) -> str:
    """Names as an error lists them: one short line, whatever they are."""
    found = list(names)
    said = [
        str(n) if str(n).isprintable() and str(n).strip() == str(n) != "" else brief(n) for n in found[:20]
    ]
    said = [name if len(name) <= 80 else f"{name[:77]}..." for name in said]
    return ", ".join([*said, *([f"and {len(found) - 20} more"] if len(found) > 20 else [])]) or "none"


def brief(value: Any) -> str:
    """A value as an error shows it: one short line, whatever it is."""
    try:
        said = repr(value)
    except ValueError:  # a whole number of more digits than Python writes
        said = f"a {type(value).__name__}"
    return said if len(said) <= 80 else f"{said[:77]}..."


_READERS: dict[str, Callable[[Path], Iterator[Record | DataError]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
    ".tsv": _tsv,
    ".json": _json,
}
TABLE_SUFFIXES = tuple(_READERS)
