"""Tables of what is wrong in samples."""

from pathlib import Path

import pytest
import torch

from mmalign.data.faults import Fault, parse_marked, read_faults, write_faults
from mmalign.errors import DataError
from mmalign.media import Image


def test_marks_are_read_and_written_alike() -> None:
    for marked in (
        "a yellow_0 cat",
        "a_0 cat, small_0, on (it_0).",
        "a cat_01 and snake_0_case",
        "a  red_0\tone",
    ):
        prompt, right = parse_marked(marked)
        assert Fault(prompt, Path("x"), right).marked == marked
        assert len(right) == len(prompt.split())
    assert parse_marked("a cat_01 and snake_0_case") == ("a cat_01 and snake_0_case", (True,) * 4)


def test_a_table_comes_back_and_what_is_wrong_with_it_is_told(tmp_path: Path) -> None:
    for name in ("a.png", "region.png"):
        Image(torch.zeros(3, 4, 4)).save(tmp_path / name)
    faults = [
        Fault("a red star", tmp_path / "a.png", (True, False, True), tmp_path / "region.png"),
        Fault("a red star", tmp_path / "a.png", (True, True, True)),
    ]
    write_faults(tmp_path / "faults.parquet", faults)
    assert read_faults(tmp_path / "faults.parquet") == faults
    for row, message in (
        ("a blue star,a.png,a red_0 star,", "expected the prompt with _0"),
        ("a red star,a.png,,", "expected a text"),
        ("a red star,a.png,a red_0 star,none.png", "no such file"),
    ):
        (tmp_path / "bad.csv").write_text(f"prompt,sample,marked,region\n{row}\n")
        with pytest.raises(DataError, match=message):
            read_faults(tmp_path / "bad.csv")
