"""Rows of a table that is still being written: appended batch by batch, and taken up again after a crash."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from mmalign.data.tables import parse_json
from mmalign.data.writers import json_line
from mmalign.errors import ConfigError
from mmalign.files import make_folder, whole_file, writing

Row = dict[str, Any]
VERSION = 2
SUM = "sha256"
"""The only field of the line after a batch."""
SUM_BEGINS = b'{"sha256": "'


class PartialRows:
    """A jsonl file of finished rows beside the output that they are for.

    Its first line says what is being written. A batch goes in with one write, and a line with the SHA-256 of its rows
    after it, so that after a crash (``kill -9``, a full disk, a power cut) the batches that are as they were written
    are kept, up to the first that is not.

    Args:
        path: of the partial file.
        meant_for: what decides the rows: files, rewards, options. Resuming with anything else is refused.
        batch_rows: rows of a whole batch.
        total_rows: rows of the finished table; its last batch may be smaller.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "scores.jsonl.partial"
    >>> with PartialRows(path, meant_for={}, batch_rows=2, total_rows=3) as rows:
    ...     rows.append([{"id": 0}, {"id": 1}])
    >>> with PartialRows(path, meant_for={}, batch_rows=2, total_rows=3, resume=True) as rows:
    ...     print(rows.count, list(rows))
    2 [{'id': 0}, {'id': 1}]
    """

    def __init__(
        self,
        path: Path,
        *,
        meant_for: Mapping[str, Any],
        batch_rows: int,
        total_rows: int,
        resume: bool = False,
    ) -> None:
        self.path, self.count = path, 0
        make_folder(path.parent)
        self._header = (json.dumps({"partial": VERSION, **meant_for}, sort_keys=True) + "\n").encode()
        end = self._resumed(batch_rows, total_rows) if resume and path.exists() else None
        if end is None:
            with whole_file(path) as unfinished:
                unfinished.write_bytes(self._header)
            end = len(self._header)
        self._file: BinaryIO = path.open("r+b")
        self._file.truncate(end)
        self._file.seek(end)

    def _resumed(self, batch_rows: int, total_rows: int) -> int | None:
        """Where the last whole batch ends, or None where not even the first line is whole.

        Raises:
            ConfigError: the file was begun for something else.
        """
        with self.path.open("rb") as file:
            header = file.readline()
            if not header.endswith(b"\n"):
                return None
            if header != self._header:
                raise ConfigError(
                    f"{self.path}: {_difference(header, self._header)}; leave --resume out to begin anew"
                )
            end, rows = file.tell(), list[bytes]()
            while line := file.readline():
                if not line.startswith(SUM_BEGINS) and len(rows) < batch_rows:
                    rows.append(line)
                    continue
                count = self.count + len(rows)
                if line != _sum(rows) or (count % batch_rows and count != total_rows):
                    break
                end, self.count, rows = file.tell(), count, []
        return end

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch.

        Raises:
            ValueError: a number is NaN or infinite, for which JSON has no word.
            WriteError: the disk is full.
        """
        with writing(self.path):
            lines = [json_line(row).encode() for row in rows]
            self._file.write(b"".join([*lines, _sum(lines)]))
            self._file.flush()
            os.fsync(self._file.fileno())
        self.count += len(rows)

    def __iter__(self) -> Iterator[Row]:
        """All rows so far, in order, read from the file again."""
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                row = json.loads(line)
                if row.keys() != {SUM}:
                    yield row

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self.count == 0:
            self.path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the file: its rows are in the output now."""
        self._file.close()
        self.path.unlink(missing_ok=True)


def _sum(rows: Sequence[bytes]) -> bytes:
    """The line after a batch."""
    return json_line({SUM: hashlib.sha256(b"".join(rows)).hexdigest()}).encode()


def _difference(found: bytes, wanted: bytes) -> str:
    """Which arguments differ, in words."""
    try:
        was, now = parse_json(found), parse_json(wanted)
        names = sorted(name for name in now.keys() | was.keys() if now.get(name) != was.get(name))
        return f"was begun with other {', '.join(names)}"
    except (ValueError, AttributeError):
        return "is no partial file"
