"""Rows written in one format read back as they were."""

import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from mmalign.data.readers import read_records
from mmalign.data.writers import TableFormat, format_rows, write_parquet

ROWS: list[dict[str, Any]] = [
    {"id": "0", "prompt": 'a "red" circle, left\nor right', "score": 0.1, "std": None},
    {"id": "1", "prompt": "日本", "score": None, "std": None},
]


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_text_formats_read_back(tmp_path: Path, form: TableFormat) -> None:
    path = tmp_path / f"rows.{form}"
    path.write_text(format_rows(ROWS, form), encoding="utf-8", newline="")
    back = [dict(row) for row in read_records(path)]
    if form == "csv":
        back = [{**row, "score": None if row["score"] is None else float(row["score"])} for row in back]
    assert back == ROWS


def test_parquet_reads_back_with_its_types(tmp_path: Path) -> None:
    write_parquet(ROWS, tmp_path / "rows.parquet", text=("id", "prompt"))
    assert list(read_records(tmp_path / "rows.parquet")) == ROWS
    schema = pyarrow.parquet.read_schema(tmp_path / "rows.parquet")
    assert [str(field.type) for field in schema] == ["string", "string", "double", "double"]


def test_a_number_that_json_has_no_word_for_is_an_error_and_not_a_broken_file() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        format_rows([{"score": math.nan}], "jsonl")


def test_the_table_is_aligned_and_one_line_a_row() -> None:
    lines = format_rows(ROWS, "table").splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["id", "prompt", "score", "std"]
    assert lines[1].index("0.1000") == lines[0].index("score") == lines[2].index("-")
    assert json.loads(format_rows(ROWS, "jsonl").splitlines()[1])["score"] is None
