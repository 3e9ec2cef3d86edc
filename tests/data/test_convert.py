"""Published layouts become ours, and every row of a table is used or rejected with its reason."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from mmalign.cli import data as command
from mmalign.data.binary import read_binary
from mmalign.data.check import check_preferences, leaked_prompts
from mmalign.data.convert import convert
from mmalign.data.pairs import read_pairs, read_preferences
from mmalign.data.rankings import Ranking, read_rankings, write_rankings
from mmalign.data.ratings import read_demonstrations
from mmalign.errors import ConfigError, DataError, UnknownNameError
from mmalign.media import Image


def picture(path: Path, level: float = 0.0) -> bytes:
    Image(torch.full((3, 2, 2), level)).save(path)
    return path.read_bytes()


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Four files: three contents, the last two alike."""
    for i, name in enumerate("abcd"):
        picture(tmp_path / f"{name}.png", min(i, 2) / 255)
    return tmp_path


# Layouts


def test_pickapic_keeps_its_pictures_and_its_ties(tmp_path: Path) -> None:
    first, second = (picture(tmp_path / f"{i}.jpg", i / 2) for i in (0, 1))

    def row(a: float | None, b: float | None, **more: Any) -> dict[str, Any]:
        both = {
            "caption": "a dog",
            "jpg_0": first,
            "jpg_1": second,
            "image_0_uid": "u/0",
            "image_1_uid": "u1",
        }
        labels = {"label_0": a, "label_1": b, "has_label": True, "user_id": 7, "best_image_uid": "u1"}
        return {**both, **labels, **more}

    rows = [
        row(1.0, 0.0),
        row(0.0, 1.0),
        row(0.5, 0.5),
        row(1.0, 0.0, has_label=False),
        row(None, 1.0),
        row(1.0, 0.0, jpg_1=b"hello"),
        row(1.0, 0.0, caption=None),
    ]
    path, out = parquet(tmp_path / "pick.parquet", rows), tmp_path / "out" / "pairs.parquet"
    found = convert(path, "pickapic", out)
    assert (found.rows, found.used, len(found.rejected), found.written) == (7, 3, 4, 3)
    said = [str(error) for error in found.rejected]
    for number, words in enumerate(("has no label", "has no label", "like no medium", "a text"), 4):
        assert f"row {number}, column " in said[number - 4]
        assert words in said[number - 4]
    assert "1 of the pairs are ties" in found.notes[0]
    one, two = read_pairs(out)
    (tie,) = read_preferences(out).rejected
    assert str(tie) == f"{out}, row 3, column 'verdict': is no order: tie"
    assert (one.chosen.read_bytes(), one.rejected.read_bytes()) == (first, second)
    assert (two.chosen, two.rejected) == (one.rejected, one.chosen)
    assert (one.prompt, one.annotator, one.source) == ("a dog", "7", "pickapic")
    assert sorted(path.parent.name for path in (one.chosen, one.rejected)) == ["pairs-media"] * 2
    assert one.chosen.name.startswith("u_0-")


@pytest.mark.parametrize("overall", [None, "Overall", "ALL"])
def test_videoalign_gives_one_pair_an_aspect(media: Path, overall: str | None) -> None:
    verdicts = [("A", "B", "same", "B"), ("same", "same", "same", "same"), ("A", "A", "C", "A")]
    rows = [
        {
            "path_A": "./a.png",
            "path_B": "b.png",
            "prompt": "a dog",
            **dict(zip(("VQ", "MQ", "TA"), labels, strict=False)),
            **({overall: labels[3]} if overall else {}),
        }
        for labels in verdicts
    ]
    path, out = table(media / "data.csv", rows), media / "pairs.parquet"
    found = convert(path, "videoalign", out)
    pairs = [(pair.chosen.stem, pair.rejected.stem, pair.aspect) for pair in read_pairs(out)]
    if overall:
        assert pairs == [("b", "a", None), ("a", "b", None)]
        assert (found.rows, found.used, found.written) == (3, 3, 3)
        assert [error.row for error in read_preferences(out).rejected] == [2]
    else:
        assert pairs == [("a", "b", "VQ"), ("b", "a", "MQ")]
        assert (found.rows, found.used, found.written) == (3, 2, 6)  # the third row has no verdict for TA
        assert [error.row for error in read_preferences(out).rejected] == [3, 4, 5, 6]
    convert(path, "videoalign", out, aspect="MQ")
    assert [(p.chosen.stem, p.aspect) for p in read_pairs(out)] == [("b", "MQ"), ("a", "MQ")]
    with pytest.raises(DataError, match=r"none of its 3 rows can be used.*no aspect is called 'XQ'"):
        convert(path, "videoalign", out, aspect="XQ")


@pytest.mark.parametrize(
    ("prompt", "other", "suffix"), [("captions", "reject", ".json"), ("prompt", "rejected", ".jsonl")]
)
def test_tangoflux_in_both_of_its_spellings(media: Path, prompt: str, other: str, suffix: str) -> None:
    rows = [
        {prompt: "a dog barks", "chosen": "a.png", other: "b.png", "duration": 3},
        {prompt: "rain", "chosen": "a.png", other: "gone.png", "duration": 3},
    ]
    path = table(media / f"train{suffix}", rows)
    if suffix == ".json":
        path.write_text(json.dumps(rows))
    found = convert(path, "tangoflux", media / "pairs.parquet")
    assert (found.used, len(found.rejected)) == (1, 1)
    assert f"row 2, column '{other}': no such file" in str(found.rejected[0])
    (pair,) = read_pairs(media / "pairs.parquet")
    assert (pair.prompt, pair.chosen.name, pair.rejected.name) == ("a dog barks", "a.png", "b.png")


def test_verl_omni_reads_messages_and_scores(media: Path) -> None:
    messages = [{"role": "system", "content": "help"}, {"role": "user", "content": "a dog"}]
    rows: list[dict[str, Any]] = [
        {"prompt": messages, "img_win": "a.png", "img_lose": "b.png", "win_score": 0.75, "lose_score": 0.5},
        {"prompt": messages, "img_win": "a.png", "img_lose": "b.png", "win_score": 0.5, "lose_score": 0.5},
        {
            "prompt": messages[:1],
            "img_win": "a.png",
            "img_lose": "b.png",
            "win_score": 1.0,
            "lose_score": 0.5,
        },
        {"prompt": messages, "img_win": "a.png", "img_lose": "b.png", "win_score": None, "lose_score": None},
    ]
    path = parquet(
        media / "dpo.parquet", [{**row, "extra_info": {"raw_prompt": None, "index": 1}} for row in rows]
    )
    found = convert(path, "verl-omni", media / "pairs.parquet")
    assert [str(error).partition(": ")[2][:20] for error in found.rejected] == [
        "the winner's score, ",
        "no message of a user",
    ]
    assert [(pair.prompt, pair.margin) for pair in read_pairs(media / "pairs.parquet")] == [
        ("a dog", 0.25),
        ("a dog", None),
    ]
    parquet(path, [{**rows[0], "extra_info": {"raw_prompt": "a cat"}}])
    convert(path, "verl-omni", media / "pairs.parquet")
    assert read_pairs(media / "pairs.parquet")[0].prompt == "a cat"


@pytest.mark.parametrize(("name", "text"), [("metadata.jsonl", "text"), ("metadata.csv", "caption")])
def test_an_imagefolder_gives_demonstrations(media: Path, name: str, text: str) -> None:
    table(media / name, [{"file_name": "a.png", text: "a dog"}, {"file_name": "z.png", text: "a cat"}])
    found = convert(media, "imagefolder", media / "shown.parquet")
    assert (found.kind, found.rows, found.used, len(found.rejected)) == ("demonstrations", 2, 1, 1)
    (shown,) = read_demonstrations(media / "shown.parquet")
    assert (shown.prompt, shown.sample.name) == ("a dog", "a.png")


def test_the_command_says_what_was_left_out(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(
        media / "train.jsonl",
        [{"captions": "x", "chosen": "a.png", "reject": name} for name in ("b.png", "gone.png")],
    )
    out = media / "pairs.parquet"
    assert command.main(["convert", str(path), "--from", "tangoflux", "--out", str(out)]) == 1
    found = capsys.readouterr()
    assert "2 rows = 1 used + 1 rejected: 1 pairs" in found.err
    assert "row 2, column 'reject': no such file" in found.err
    assert found.out.strip() == str(out)
    with pytest.raises(ConfigError, match="has no aspects"):
        command.main(["convert", str(path), "--from", "tangoflux", "--out", str(out), "--aspect", "VQ"])
    with pytest.raises(ConfigError, match="are written as parquet"):
        command.main(["convert", str(path), "--from", "tangoflux", "--out", "pairs.csv"])
    with pytest.raises(UnknownNameError, match="Did you mean 'convert'"):
        command.main(["convrt"])


# Rankings and binary labels


def test_rankings_come_back_as_they_were_written(media: Path, tmp_path: Path) -> None:
    written = [
        Ranking("a dog", (media / "a.png", media / "b.png", media / "c.png"), (1.0, 3.0, 1.0), "people")
    ]
    out = tmp_path / "ranked.parquet"
    write_rankings(out, written)
    assert read_rankings(out) == written
    rows = [{"prompt": "a dog", "samples": json.dumps(["a.png", "b.png"]), "ranks": "[2, 1]"}]
    (read,) = read_rankings(table(media / "ranked.csv", rows))
    assert (read.ranks, [path.stem for path in read.samples]) == ((2.0, 1.0), ["a", "b"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"samples": ["a.png"], "ranks": [1]}, "column 'samples': expected two samples or more"),
        ({"samples": ["a.png", "b.png"], "ranks": [1]}, "column 'ranks': expected 2 ranks"),
        ({"samples": ["a.png", "z.png"], "ranks": [1, 2]}, "column 'samples': no such file"),
        (
            {"samples": ["a.png", "b.png"], "ranks": [1, None]},
            "column 'ranks': expected a number, got nothing",
        ),
        ({"samples": ["a.png", "b.png"], "ranks": [1, "x"]}, "column 'ranks': expected a number, got 'x'"),
        ({"samples": "a.png", "ranks": [1, 2]}, "column 'samples': expected a list as JSON"),
        ({"samples": [], "ranks": []}, "column 'samples': expected a list"),
    ],
)
def test_a_wrong_ranking_is_named_by_row_and_column(media: Path, row: dict[str, Any], message: str) -> None:
    fine = {"prompt": "x", "samples": ["a.png", "b.png"], "ranks": [1, 2]}
    path = table(media / "ranked.jsonl", [fine, {"prompt": "x", **row}])
    with pytest.raises(DataError, match=f"row 2, {message}"):
        read_rankings(path)


def test_labels_are_true_or_false_and_nothing_else(media: Path) -> None:
    spelt = [True, False, 1, 0, "true", "FALSE", 1.0, "0"]
    rows = [{"prompt": "x", "sample": "a.png", "label": label} for label in spelt]
    assert [entry.label for entry in read_binary(table(media / "l.jsonl", rows))] == [True, False] * 4
    for label in (2, "yes", None, 0.5, [1]):
        path = table(media / "l.jsonl", [{"prompt": "x", "sample": "a.png", "label": label}])
        with pytest.raises(DataError, match="row 1, column 'label': expected true or false"):
            read_binary(path)


# Checks


def test_a_check_counts_every_row_once(media: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
        return {"prompt": prompt, "chosen": f"{chosen}.png", "rejected": f"{rejected}.png"}

    rows = [
        row("a dog", "a", "b"),
        row("a dog", "a", "b"),  # again
        row("a dog", "b", "a"),  # contradicts
        row("a cat", "c", "d"),  # two names of one content
        row("a cat", "c", "c"),  # against itself
        row("a cat", "c", "z"),  # is not there
        row("", "c", "d"),
    ]
    path = table(media / "pairs.jsonl", rows)
    found = check_preferences(path)
    assert (found.schema, found.rows, found.used, len(found.rejected)) == ("pairs", 7, 5, 2)
    assert (found.missing_media, found.prompts, found.media) == (1, 2, 4)
    assert (found.repeated_rows, found.same_content, found.contradictions) == (1, 1, 2)
    assert not found.sound
    assert command.main(["check", str(path)]) == 1
    said = capsys.readouterr().out
    assert "rows: 7 = 5 used + 2 rejected" in said
    assert "row 6, column 'rejected': no such file" in said
    table(path, rows[:1])
    assert command.main(["check", str(path)]) == 0


@pytest.mark.parametrize(
    ("row", "schema"),
    [
        ({"samples": ["a.png", "b.png"], "ranks": [1, 2]}, "rankings"),
        ({"sample": "a.png", "label": True}, "binary"),
        ({"sample": "a.png", "score": 1.5}, "ratings"),
        ({"sample": "a.png"}, "demonstrations"),
    ],
)
def test_a_table_is_known_by_its_columns(media: Path, row: dict[str, Any], schema: str) -> None:
    assert check_preferences(table(media / "t.jsonl", [{"prompt": "x", **row}])).schema == schema
    with pytest.raises(DataError, match="no kind of preferences has the columns"):
        check_preferences(table(media / "t.jsonl", [{"promt": "x", **row}]))


def test_prompts_that_leak_are_found_whatever_their_case(
    media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": prompt, "chosen": "a.png", "rejected": "b.png"} for prompt in ("A  dog.", "a cat", "a cat")
    ]
    path, held = table(media / "pairs.jsonl", rows), media / "heldout.txt"
    held.write_text("a dog\na bird\n")
    assert leaked_prompts(path, held) == ["A  dog."]
    assert command.main(["check", str(path), "--against", str(held)]) == 1
    assert "heldout.txt has too: 1" in capsys.readouterr().out
    held.write_text("a bird\n")
    assert command.main(["check", str(path), "--against", str(held)]) == 0
