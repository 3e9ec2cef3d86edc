"""A fault of a row is that row's, a fault of the file is one sentence, and nothing hides in either."""

import ast
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import torch

import mmalign
from mmalign.data.check import check_preferences
from mmalign.data.convert import convert
from mmalign.data.grouping import read_scores
from mmalign.data.label_log import read_labels
from mmalign.data.pairs import read_preferences
from mmalign.data.readers import read_sample_files
from mmalign.data.tables import read_records, read_rows
from mmalign.data.unlabelled import read_pool
from mmalign.errors import DataError
from mmalign.files import WriteError
from mmalign.media import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "ab":
        Image(torch.zeros(3, 2, 2)).save(tmp_path / f"{name}.png")
    return tmp_path


def written(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


ROW = '{"prompt": "a", "chosen": "a.png", "rejected": "b.png"%s}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 100_000, "not JSON (nested too deeply)"),
        ('{"a": ' * 100_000, "not JSON (nested too deeply)"),
        ("[1]", "expected an object, got '[1]'"),
        (ROW % ', "margin": 1' + "0" * 5_000, "not JSON"),
        (ROW % (', "margin": 1' + "0" * 5_000), "column 'margin': expected a number, got inf"),
        (ROW % (', "margin": 1' + "0" * 350), "column 'margin': expected a number, got inf"),
        (ROW % ', "margin": NaN', "column 'margin': expected a number, got nan"),
        (
            ROW % ', "margin": -1',
            "column 'margin': expected how much better the chosen side is, at least 0, got -1",
        ),
        (ROW % ', "margin": "1_0"', "column 'margin': expected a number, got '1_0'"),
        (ROW % ', "strength": 1.5', "column 'strength': expected a number in [0, 1], got 1.5"),
        (ROW % ', "strength": -0.5', "column 'strength': expected a number in [0, 1], got -0.5"),
        (ROW % ', "strength": 0', "nobody has labelled this pair yet"),
        (
            ROW % ', "verdict": "draw"',
            "column 'verdict': expected chosen, tie, both_bad or nothing, got 'draw'",
        ),
        (ROW % ', "prompt": "b"', "not JSON (two values are called 'prompt')"),
        ((ROW % "").replace('"a"', r'"\ud800"'), "column 'prompt': holds half a character"),
        ((ROW % "").replace('"a"', '"  "'), "column 'prompt': expected a text, got '  '"),
        ((ROW % "").replace("b.png", "x" * 300), "column 'rejected': no such file"),
        ((ROW % "").replace("b.png", r"\u0000"), "column 'rejected': no such file"),
        ((ROW % "").replace("b.png", r"\ud800.png"), "column 'rejected': no such file"),
        ((ROW % "").replace("b.png", r"b\n.png"), "column 'rejected': no such file"),
    ],
)
def test_a_bad_row_is_rejected_as_a_row(folder: Path, line: str, reason: str) -> None:
    path = written(folder / "pairs.jsonl", f"{ROW % ''}\n{line}\n{ROW % ''}\n")
    found = check_preferences(path)
    assert (found.rows, found.used) == (3, 2)
    (said,) = map(str, found.rejected)
    assert said.startswith(f"{path}, row 2")
    assert reason in said
    assert "\n" not in said
    assert len(said) < 600


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "p.csv",
            "prompt,chosen,rejected,prompt\na,b,c,d\n",
            "two columns are called 'prompt'; rename or remove",
        ),
        ("p.tsv", "prompt\tprompt\na\tb\n", "two columns are called 'prompt'"),
        (
            "p.csv",
            "prompt;chosen;rejected\na;b;c\n",
            "parted by semicolons ('prompt;chosen;rejected'), not by commas",
        ),
        ("p.csv", "prompt\tchosen\na\tb\n", "parted by tabs .*name it .tsv"),
        ("p.csv", "prompt,chosen\na,b\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("p.csv", "prompt\nä\n".encode("latin-1"), "not UTF-8 at byte 7"),
        ("p.csv", b"prompt\na\0b\n", "holds bytes of zero"),
        ("p.json", "{}", "expected a list of objects"),
        ("p.json", "[" * 100_000, "nested too deeply"),
        ("p.json", "[1" + "0" * 5_000 + "]", "row 1: expected an object, got inf"),
        ("p.parquet", b"PAR1", "not a readable parquet file"),
    ],
)
def test_a_broken_file_is_one_sentence(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(DataError, match=message.replace("(", r"\(").replace(")", r"\)")):
        list(read_records(path))


def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    column = pyarrow.array(["a"])
    table = pyarrow.Table.from_arrays([column, column], names=["prompt", "prompt"])
    pyarrow.parquet.write_table(table, tmp_path / "p.parquet")
    with pytest.raises(DataError, match="two columns are called 'prompt'"):
        list(read_records(tmp_path / "p.parquet"))


def test_a_date_that_no_calendar_has_is_one_row_of_a_parquet_file(tmp_path: Path) -> None:
    dates = pyarrow.array([0, 2**62, 1], pyarrow.timestamp("us"))
    pyarrow.parquet.write_table(
        pyarrow.table({"prompt": ["a", "b", "c"], "at": dates}), tmp_path / "p.parquet"
    )
    first, second, third = read_rows(tmp_path / "p.parquet")
    assert not isinstance(first, DataError)
    assert not isinstance(third, DataError)
    assert isinstance(second, DataError)
    assert "row 2: cannot be read" in str(second)
    assert third["prompt"] == "c"


def test_a_row_of_another_length_is_rejected_and_those_behind_it_are_read(tmp_path: Path) -> None:
    rows = list(read_rows(written(tmp_path / "p.csv", "a,b\n1,2\n3\n4,5\n")))
    assert rows[0] == {"a": "1", "b": "2"}
    assert str(rows[1]).endswith("row 2: 1 values under 2 columns")
    assert rows[2] == {"a": "4", "b": "5"}


def test_tsv_and_json_say_what_jsonl_says(tmp_path: Path) -> None:
    rows = [{"a": "1", "b": "x, y"}, {"a": "2", "b": "z"}]
    assert list(read_records(written(tmp_path / "p.json", json.dumps(rows)))) == rows
    assert list(read_records(written(tmp_path / "p.tsv", "a\tb\n1\tx, y\n2\tz\n"))) == rows
    assert list(read_records(written(tmp_path / "p.jsonl", "\n".join(map(json.dumps, rows))))) == rows


def test_ties_are_counted_as_rejected_where_an_order_is_needed(folder: Path) -> None:
    tie, bad = ROW % ', "verdict": "tie"', ROW % ', "verdict": "both_bad"'
    path = written(folder / "pairs.jsonl", f"{ROW % ''}\n{tie}\n{bad}\n" + ROW % ', "verdict": "chosen"')
    found = read_preferences(path)
    assert (found.rows, len(found.pairs)) == (4, 2)
    assert [str(e) for e in found.rejected] == [
        f"{path}, row 2, column 'verdict': is no order: tie",
        f"{path}, row 3, column 'verdict': is no order: both bad",
    ]
    with pytest.raises(DataError, match="none of its 1 rows says which side is better: all are ties"):
        read_preferences(written(folder / "ties.jsonl", tie))


def test_a_row_that_says_it_failed_makes_no_pair(folder: Path) -> None:
    rows = [
        {"media": name, "prompt": "a", "reward": "r", "score": score, "status": status}
        for name, score, status in (
            ("a.png", 1.0, "ok"),
            ("b.png", 9.0, "cannot be read"),
            ("b.png", 0.0, None),
        )
    ]
    path = written(folder / "scores.jsonl", "\n".join(map(json.dumps, rows)))
    groups = read_scores(path, root=folder)
    assert groups.unscored == 1
    assert groups.scores.tolist() == [[1.0, 0.0]]
    pool = read_pool(written(folder / "more.jsonl", "\n".join(map(json.dumps, rows[:2]))), root=folder)
    assert [path.name for path in pool.media[0]] == ["a.png"]


def test_an_output_that_cannot_be_written_is_a_sentence(folder: Path) -> None:
    path = written(folder / "p.json", '[{"caption": "a", "file_name": "a.png"}]')
    written(folder / "file", "")
    for out in (folder / "file" / "out.parquet", folder / ("x" * 300 + ".parquet")):
        with pytest.raises(WriteError, match="could not be written"):
            convert(path, "imagefolder", out)


def test_odd_lines_of_a_label_log_count_for_nothing(tmp_path: Path) -> None:
    choice = {
        "annotator": "ann",
        "number": 1,
        "mode": "marks",
        "item": "i",
        "prompt": "a",
        "shown": ["a.png"],
    }
    odd = [
        {"annotator": "ann", "undo": [1]},
        {"annotator": "ann", "undo": {}},
        {"annotator": "\ud800", "undo": 1},
        {**choice, "regions": [[0, 0, 10**400, 1]], "words": []},
        {**choice, "mode": "pairs", "shown": ["a", "b", "c"], "choice": "left", "strength": 1},
        {**choice, "mode": ["pairs"]},
    ]
    lines = [json.dumps({"labels": 1, "mode": "marks"}), *map(json.dumps, odd), "[" * 100_000]
    found = read_labels(written(tmp_path / "labels.jsonl", "\n".join(lines)))
    assert found.choices == ()
    assert len(found.faults) == len(odd) + 1


def test_no_file_is_parted_at_what_only_looks_like_the_end_of_a_line() -> None:
    """``splitlines`` parts JSON strings and prompts at U+2028, NEL and vertical tabs."""
    root = Path(mmalign.__file__).parent
    files = sorted(root.rglob("*.py"))
    assert len(files) > 100
    found = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "splitlines":
                what = ast.unparse(node.value)
                if "read_text" in what or "read(" in what or "decode" in what or what == "text":
                    found.append(f"{file.relative_to(root)}:{node.lineno}: {what}")
    assert not found


def test_a_name_of_several_lines_is_shown_in_one(tmp_path: Path) -> None:
    path = written(tmp_path / "m.json", json.dumps([{"media": "a.png", "modality": "im\nage" + "x" * 900}]))
    with pytest.raises(DataError, match=r"no modality is called 'im\\nagexx") as caught:
        read_sample_files([path], needs_prompt=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
