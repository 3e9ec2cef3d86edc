"""Prompts are read from texts and tables; only the end of a line ends a prompt."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mmalign.data.prompts import read_prompts
from mmalign.errors import DataError

ODD = "a circle,\u2028on the\x85left\x0b of\x0c it"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("p.txt", f"\ufeff{ODD}\r\n \n\tb  \n"),
        ("p.txt", f"{ODD}\rb"),
        ("p.prompts", f"{ODD}\nb"),
        ("p.csv", f'\ufeffid,prompt\r\n1,"{ODD}"\r\n2,b\r\n3,\r\n4,"  "\r\n'),
        ("p.csv", f'caption\n"{ODD}"\nb\n'),
        ("p.tsv", f"id\tprompt\n1\t{ODD}\n2\tb\n"),
        ("p.json", json.dumps([ODD, "b", ""])),
        ("p.json", json.dumps([{"prompt": ODD}, {"prompt": None}, {"prompt": "b"}])),
        ("p.jsonl", json.dumps({"prompt": ODD, "text": "x"}, ensure_ascii=False) + '\n\n{"prompt": "b"}\n'),
    ],
)
def test_every_kind_of_file_gives_its_prompts(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_bytes(content.encode())
    assert read_prompts(str(tmp_path / name)) == [ODD, "b"]


def test_parquet_gives_its_prompts(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [ODD, None, "b"]}), tmp_path / "p.parquet")
    assert read_prompts(str(tmp_path / "p.parquet")) == [ODD, "b"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", b" \n\n", "no prompts in it; write one a line"),
        ("p.txt", "a\n".encode("utf-16"), "is UTF-16"),
        ("p.txt", b"a\n\xff\n", "row 2: not UTF-8"),
        ("p.txt", b"a\0b", "holds bytes of zero"),
        ("p.csv", b"id,words\n1,a\n", "no column holds prompts; known: prompt, .* there are: id, words"),
        ("p.csv", b"prompt\n", "no rows in it"),
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": 3}\n', "row 2: expected a prompt, got 3"),
        ("p.jsonl", b'{"prompt": "a"}\n[[[[\n', "row 2: not JSON"),
        ("p.jsonl", rb'{"prompt": "\ud800"}', r"row 1: expected a prompt, got '\\ud800'"),
        ("p.json", b'["a", 3]', "row 2: expected a prompt, got 3"),
        ("p.json", b'"a"', "expected a list of objects"),
    ],
)
def test_what_holds_no_prompts_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_prompts(str(tmp_path / name))
    assert "\n" not in str(caught.value)
