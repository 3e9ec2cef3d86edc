"""The file of labels: one line for everything that was done, appended and flushed to the disk, never changed.

    {"labels": 1, "mode": "pairs", ...}                                       the first line: what is asked
    {"annotator": "ann", "number": 1, "item": ..., "shown": [...], ...}       a choice
    {"annotator": "ann", "undo": 1}                                           takes choice 1 of this person back

A line that a crash cut off stays where it is, is reported, and counts for nothing. So does whatever else is no label.
"""

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Self

from mmalign.data.label_choices import LARGEST_SCALE, checked_choice
from mmalign.data.label_items import MODES
from mmalign.data.tables import brief, is_text, parse_json
from mmalign.data.writers import json_line
from mmalign.errors import ConfigError, DataError
from mmalign.files import sync, writing
from mmalign.locks import locked_output

Row = dict[str, Any]
VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelLines:
    """What a file of labels holds.

    Args:
        header: its first line.
        choices: that stand, in the order they were made: everything that was not undone.
        undone: choices that were taken back.
        last: the highest ``number`` of each annotator, undone ones counted.
        faults: lines that count for nothing, each with its row and reason.
        whole: whether the file ends with the end of a line.
    """

    header: Row
    choices: tuple[Row, ...]
    undone: int
    last: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[DataError, ...] = ()
    whole: bool = True


def read_labels(path: Path) -> LabelLines:
    """Read a file of labels.

    A last line without its end counts if it is whole: the choice was made, whether or not the page still heard of it.

    Raises:
        DataError: it cannot be read, or does not begin as a file of labels does.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})", file=path) from None
    whole = lines[-1] == b""
    header = _object(lines[0])
    if header is None or header.get("labels") != VERSION:
        raise DataError("is no file of labels: its first line does not say so", file=path, row=1)
    standing: dict[tuple[str, int], Row] = {}
    last: dict[str, int] = {}
    faults: list[DataError] = []
    undone = 0
    for row, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        found = _object(line)
        fault = None
        if found is None:
            fault = "is torn (no whole JSON), kept, and not counted"
        elif not isinstance(found.get("annotator"), str):
            fault = "names no annotator, and is not counted"
        elif not is_text(found["annotator"]):
            fault = "names an annotator with half a character, and is not counted"
        elif "undo" in found:
            if standing.pop((found["annotator"], _number(found["undo"])), None) is None:
                fault = f"takes back choice {brief(found['undo'])}, which does not stand"
            else:
                undone += 1
        elif (said := _choice_of(found)) is None:
            fault = "is no choice, and is not counted"
        elif found["number"] <= last.get(found["annotator"], 0):
            fault = (
                f"choice {found['number']} of '{found['annotator']}' is there already; the first one counts"
            )
        else:
            standing[found["annotator"], found["number"]] = {**found, **said}
            last[found["annotator"]] = found["number"]
        if fault is not None:
            faults.append(DataError(fault, file=path, row=row))
    return LabelLines(
        header=header,
        choices=tuple(standing.values()),
        undone=undone,
        last=last,
        faults=tuple(faults),
        whole=whole,
    )


def _object(line: bytes) -> Row | None:
    try:
        found = parse_json(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _number(value: Any) -> int:
    """The number of a choice, from 1; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _choice_of(row: Row) -> Row | None:
    """What a row says, as readers of choices rely on it; None where it says nothing that can be."""
    files, prompt, scores = (row.get(name) for name in ("shown", "prompt", "scores"))
    if not _number(row.get("number")) or not isinstance(row.get("item"), str):
        return None
    if not isinstance(prompt, str) or not is_text(prompt) or row.get("mode") not in MODES:
        return None
    if not isinstance(files, list) or not files or not all(isinstance(name, str) for name in files):
        return None
    if row["mode"] != "ranking" and len(files) != (2 if row["mode"] == "pairs" else 1):
        return None
    aspects = tuple(scores) if isinstance(scores, dict) else ()
    try:
        return checked_choice(
            row,
            row["mode"],
            shown=len(files),
            words=len(prompt.split()),
            aspects=aspects,
            scale=LARGEST_SCALE,
        )
    except ConfigError:
        return None


class LabelLog:
    """A file of labels that is open for more; one process at a time.

    Args:
        path: of the file; it and its folder are made if they are not there.
        asked: what the first line says: mode, seed and whatever else decides what is shown. A file that was begun with
            another answer is refused.

    Raises:
        ConfigError: the file was begun for something else, or another process has it open.
        DataError: the file is something else.
    """

    def __init__(self, path: Path, asked: Mapping[str, Any]) -> None:
        self.path, self._torn = path, False
        self._alone = ExitStack()
        self._alone.enter_context(locked_output(path))
        try:
            with writing(path):
                self._file: BinaryIO = self._alone.enter_context(path.open("ab"))
            header = json_line({"labels": VERSION, **asked})
            if header.encode()[:-1].startswith(path.read_bytes()):
                self._file.truncate(0)  # cut off in its first line, or empty: it holds no choice
            if path.stat().st_size == 0:
                self._append(header)
                sync(path.parent)
            self.found = read_labels(path)
            _check_header(self.found.header, json.loads(header), path)
            if not self.found.whole:
                self._append("\n")
        except BaseException:
            self.close()
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one line; when this returns, it is on the disk.

        Raises:
            OSError: the disk is full or gone; what was written of the line will be read as torn.
        """
        self._append(json_line(row))

    def _append(self, text: str) -> None:
        data = ("\n" + text if self._torn else text).encode()
        written, self._torn = 0, True
        while written < len(data):  # a raw write may take less than it is given
            written += os.write(self._file.fileno(), data[written:])
        self._torn = False
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let another process have the file."""
        self._alone.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _check_header(found: Row, asked: Row, path: Path) -> None:
    other = sorted(name for name in found.keys() | asked.keys() if found.get(name) != asked.get(name))
    if other:
        said = "; ".join(f"{name} {found.get(name)!r}, not {asked.get(name)!r}" for name in other)
        raise ConfigError(f"{path} was begun with {said}; repeat that, or give another --out")
