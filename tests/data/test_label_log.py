"""The file of labels: whole lines stay, torn ones are kept and told, and one process writes at a time."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmalign.data.label_log import LabelLog, read_labels
from mmalign.errors import ConfigError, DataError

ASKED = {"mode": "pairs", "seed": 0}


def label(number: int, annotator: str = "ann") -> dict[str, Any]:
    return {
        "annotator": annotator,
        "number": number,
        "mode": "pairs",
        "item": f"i{number}",
        "prompt": "p",
        "shown": ["a", "b"],
        "choice": "left",
        "strength": 1.0,
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with LabelLog(tmp_path / "labels.jsonl", ASKED) as log:
        for number in (1, 2, 3):
            log.append(label(number))
        log.append({"annotator": "ann", "undo": 2})
    return tmp_path / "labels.jsonl"


def numbers(path: Path) -> list[int]:
    return [row["number"] for row in read_labels(path).choices]


def test_what_was_appended_is_read_and_what_was_undone_is_not(path: Path) -> None:
    found = read_labels(path)
    assert found.header == {"labels": 1, **ASKED}
    assert [row["number"] for row in found.choices] == [1, 3]
    assert (found.undone, found.last, found.faults, found.whole) == (1, {"ann": 3}, (), True)


@settings(max_examples=25)
@given(cut=st.integers(0, 620))
def test_a_file_cut_anywhere_keeps_every_whole_line_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "labels.jsonl"
    with LabelLog(path, ASKED) as log:
        for number in (1, 2, 3):
            log.append(label(number))
    data = path.read_bytes()
    cut = min(cut, len(data))
    path.write_bytes(data[:cut])
    # A line is whole when its last brace is there, with or without the end of the line.
    ends = [i for i in range(len(data)) if data[i : i + 2] == b"}\n"]
    whole = sum(end < cut for end in ends[1:])
    with LabelLog(path, ASKED) as log:
        assert [row["number"] for row in log.found.choices] == list(range(1, whole + 1))
        log.append(label(9))
    assert numbers(path) == [*range(1, whole + 1), 9]
    torn = cut > ends[0] and cut - 1 not in ends and cut not in [0, *(end + 2 for end in ends)]
    assert len(read_labels(path).faults) == torn
    if cut > ends[0]:
        assert path.read_bytes().startswith(data[:cut]), "what was there was changed"


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (b'{"annotator": "ann", "num', "torn"),
        (b"[1]", "torn"),
        (b'{"number": 4}', "no annotator"),
        (b'{"annotator": "ann", "number": 4}', "no choice"),
        (json.dumps({**label(4), "choice": None}).encode(), "no choice"),
        (json.dumps({**label(4), "mode": "dance"}).encode(), "no choice"),
        (json.dumps({**label(4), "shown": []}).encode(), "no choice"),
        (b'{"annotator": "ann", "undo": 2}', "does not stand"),
        (json.dumps(label(3)).encode(), "there already"),
    ],
)
def test_a_line_that_says_nothing_is_told_with_its_row(path: Path, line: bytes, word: str) -> None:
    with path.open("ab") as file:
        file.write(line + b"\n" + json.dumps(label(5)).encode() + b"\n")
    found = read_labels(path)
    assert [row["number"] for row in found.choices] == [1, 3, 5]
    (fault,) = found.faults
    assert word in str(fault)
    assert fault.row == 6


def test_two_processes_do_not_write_one_file(path: Path) -> None:
    with (
        LabelLog(path, ASKED),
        pytest.raises(ConfigError, match=f"is being written by .*process {os.getpid()}"),
    ):
        LabelLog(path, ASKED)
    LabelLog(path, ASKED).close()


def test_a_file_that_was_begun_otherwise_is_refused(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="begun with seed 0, not 1"):
        LabelLog(path, {**ASKED, "seed": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"prompt,chosen\n", b'{"prompt": "a"}\n', b"\xff\xfe", b"\n\n"])
def test_another_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no file of labels"):
        LabelLog(path, ASKED)
    assert path.read_bytes() == content


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_labels(tmp_path / "none.jsonl")


def test_each_line_is_on_the_disk_before_append_returns(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    fsync = os.fsync

    def note(handle: int) -> None:
        fsync(handle)
        synced.append(path.read_bytes())

    with LabelLog(path, ASKED) as log:
        monkeypatch.setattr(os, "fsync", note)
        log.append(label(4))
    assert len(synced) == 1
    assert synced[0].endswith(json.dumps(label(4)).encode() + b"\n")


def test_after_a_full_disk_the_next_line_stands_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, calls = os.write, []

    def half(handle: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        return write(handle, data[: len(data) // 2])

    with LabelLog(path, ASKED) as log:
        monkeypatch.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            log.append(label(4))
        monkeypatch.setattr(os, "write", write)
        log.append(label(5))
    found = read_labels(path)
    assert [row["number"] for row in found.choices] == [1, 3, 5]
    assert len(found.faults) == 1
