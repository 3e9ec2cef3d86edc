"""Labels become the tables that methods read, with annotator and strength, and nothing is lost without a word."""

import json
from pathlib import Path
from typing import Any

import PIL.ExifTags
import PIL.Image
import pytest
import torch

from mmalign.cli import data as command
from mmalign.data.binary import read_binary
from mmalign.data.check import check_preferences
from mmalign.data.convert import convert
from mmalign.data.faults import read_faults
from mmalign.data.label_items import Mode, list_samples
from mmalign.data.label_store import LabelSettings, LabelStore
from mmalign.data.pairs import read_pairs, read_preferences
from mmalign.data.rankings import read_rankings
from mmalign.data.ratings import read_ratings
from mmalign.errors import ConfigError, DataError
from mmalign.media import Image
from tests.data.label_folders import write_folder


def labelled(
    tmp_path: Path, mode: Mode, choices: list[Any], *, each: int = 2, **options: Any
) -> tuple[Path, list[Any]]:
    """A file of one person's choices, of as many prompts, and the rows."""
    prompts = len(choices)
    rows = [(f"prompt {p}", f"{p}-{i}.png") for p in range(prompts) for i in range(each)]
    folder = write_folder(tmp_path / "samples", rows)
    path = tmp_path / "labels.jsonl"
    made = []
    settings = LabelSettings(mode=mode, **{"repeat": 0.0, **options})
    with LabelStore(path, list_samples(folder).samples, settings, folder=folder) as store:
        for choice in choices:
            showing = store.current("ann")
            assert showing is not None
            made.append(store.choose("ann", showing.key, choice))
    return path, made


def test_pairs_keep_annotator_and_strength_and_ties_are_told(tmp_path: Path) -> None:
    choices = [
        {"choice": "left", "strength": 0.5},
        {"choice": "right", "strength": 1.0},
        {"choice": "tie"},
        {"choice": "both_bad"},
        {"skipped": True},
    ]
    path, made = labelled(tmp_path, "pairs", choices)
    found = convert(path, "labels", tmp_path / "pairs.parquet")
    assert (found.rows, found.used, found.written, found.kind) == (5, 4, 4, "pairs")
    assert [str(error).split(": ")[1:] for error in found.rejected] == [["was skipped"]]
    assert "2 of the pairs are ties" in found.notes[0]
    read = read_preferences(tmp_path / "pairs.parquet")
    assert (read.rows, len(read.pairs)) == (4, 2)
    assert [str(error).split(": ")[1:] for error in read.rejected] == [
        ["is no order", "tie"],
        ["is no order", "both bad"],
    ]
    left, right = read_pairs(tmp_path / "pairs.parquet")
    folder = tmp_path / "samples"
    assert [left.chosen.resolve(), left.rejected.resolve()] == [folder / name for name in made[0]["shown"]]
    assert [right.rejected.resolve(), right.chosen.resolve()] == [folder / name for name in made[1]["shown"]]
    assert (left.strength, right.strength, left.annotator, left.source) == (0.5, 1.0, "ann", "labels")
    assert left.prompt == made[0]["prompt"]
    assert check_preferences(tmp_path / "pairs.parquet").sound


def test_rankings_ratings_and_binary_labels_are_read_back(tmp_path: Path) -> None:
    path, made = labelled(
        tmp_path / "k", "ranking", [{"ranks": [2, 1, 1]}, {"ranks": [1, 1, 1]}], each=3, group_size=3
    )
    found = convert(path, "labels", tmp_path / "rankings.parquet")
    assert (found.used, len(found.rejected)) == (2, 0)
    ranking, tie = read_rankings(tmp_path / "rankings.parquet")
    assert [sample.name for sample in ranking.samples] == made[0]["shown"]
    assert (ranking.ranks, ranking.annotator) == ((2.0, 1.0, 1.0), "ann")
    assert tie.ranks == (1.0, 1.0, 1.0)

    scores = [
        {"scores": {"look": 1, "fit": 4}, "rationale": "red, not blue"},
        {"scores": {"look": 2, "fit": 5}},
    ]
    path, made = labelled(tmp_path / "r", "rating", scores, each=1, aspects=("look", "fit"))
    convert(path, "labels", tmp_path / "ratings.parquet")
    ratings = read_ratings(tmp_path / "ratings.parquet")
    assert [(r.aspect, r.score, r.rationale) for r in ratings[:3]] == [
        ("look", 1.0, "red, not blue"),
        ("fit", 4.0, "red, not blue"),
        ("look", 2.0, None),
    ]
    assert {r.annotator for r in ratings} == {"ann"}
    convert(path, "labels", tmp_path / "fit.parquet", aspect="fit")
    assert [r.score for r in read_ratings(tmp_path / "fit.parquet")] == [4.0, 5.0]
    with pytest.raises(DataError, match="no aspect is called 'fitt'; there are: look, fit"):
        convert(path, "labels", tmp_path / "fitt.parquet", aspect="fitt")

    path, made = labelled(tmp_path / "b", "binary", [{"label": True}, {"label": False}], each=1)
    convert(path, "labels", tmp_path / "binary.parquet")
    labels = read_binary(tmp_path / "binary.parquet")
    assert [(x.label, x.sample.name, x.annotator) for x in labels] == [
        (row["label"], row["shown"][0], "ann") for row in made
    ]


def test_repeated_undone_and_torn_are_notes_and_samples_that_are_gone_are_rejected(tmp_path: Path) -> None:
    left = {"choice": "left", "strength": 1.0}
    path, made = labelled(tmp_path, "pairs", [left] * 4, repeat=1.0)
    folder = tmp_path / "samples"
    with LabelStore(path, list_samples(folder).samples, LabelSettings(repeat=1.0), folder=folder) as store:
        while (showing := store.current("ann")) is not None:
            store.choose("ann", showing.key, left)
        store.undo("ann", None)
    with path.open("ab") as file:
        file.write(b'{"annotator": "ann", "number": 9')
    (folder / made[0]["shown"][0]).unlink()
    found = convert(path, "labels", tmp_path / "pairs.parquet")
    assert (found.rows, found.used) == (4, 3)
    assert "no such file" in str(found.rejected[0])
    repeated, undone, torn = found.notes
    assert repeated.startswith("3 choices repeat")
    assert undone == "1 choices were undone"
    assert "torn" in torn


def test_marks_are_words_and_a_white_place(tmp_path: Path) -> None:
    choices = [{"regions": [[0.5, 0, 1, 0.25]], "words": [1]}, {"regions": [], "words": []}]
    path, made = labelled(tmp_path, "marks", choices, each=1)
    for row in made:
        Image(torch.zeros(3, 8, 4)).save(tmp_path / "samples" / row["shown"][0])
    convert(path, "labels", tmp_path / "faults.parquet")
    wrong, right = read_faults(tmp_path / "faults.parquet")
    assert (wrong.right, right.right) == ((True, False), (True, True))
    assert wrong.region is not None
    assert right.region is not None
    mask = Image.load(wrong.region).pixels[0]
    expected = torch.zeros(8, 4)
    expected[:2, 2:] = 1
    assert mask.tolist() == expected.tolist()
    assert Image.load(right.region).pixels.max() == 0


def test_a_folder_that_was_moved_is_asked_for(tmp_path: Path) -> None:
    path, _ = labelled(tmp_path, "pairs", [{"choice": "left", "strength": 1.0}])
    (tmp_path / "samples").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="with --samples FOLDER"):
        convert(path, "labels", tmp_path / "pairs.parquet")
    assert convert(path, "labels", tmp_path / "p.parquet", samples=tmp_path / "elsewhere").used == 1


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    path, _ = labelled(tmp_path / "t", "pairs", [{"skipped": True}])
    with pytest.raises(DataError, match="none of its 1 choices"):
        convert(path, "labels", tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match="names its media itself"):
        convert(path, "pickapic", tmp_path / "x.parquet", samples=tmp_path)
    with pytest.raises(ConfigError, match="for datasets"):
        convert(path, "labels", tmp_path / "x.parquet", split="train")
    lines = path.read_text().splitlines()
    broken = {**json.loads(lines[1]), "skipped": False, "choice": None}
    path.write_text(f"{lines[0]}\n{json.dumps(broken)}\n")
    with pytest.raises(DataError, match="none of its 0 choices"):
        convert(path, "labels", tmp_path / "x.parquet")


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = labelled(tmp_path, "pairs", [{"choice": "left", "strength": 1.0}, {"choice": "tie"}])
    out = tmp_path / "pairs.parquet"
    assert command.main(["convert", str(path), "--from", "labels", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert "2 rows = 2 used + 0 rejected: 2 pairs" in said.err
    assert "1 of the pairs are ties" in said.err
    assert command.main(["agreement", str(path), "--resamples", "20"]) == 0
    said = capsys.readouterr()
    assert "pairs, 2 choices of 1 annotators" in said.out
    assert "Krippendorff's alpha: - [-, -], 0 values shared" in said.out
    assert "suggested exclusions: 0" in said.out


def test_marks_on_a_photograph_that_was_held_sideways_lie_where_people_saw_them(tmp_path: Path) -> None:
    """The page shows it upright, as its EXIF asks; a mask of the raw size would teach another quarter."""
    path, made = labelled(tmp_path, "marks", [{"regions": [[0.5, 0.0, 1.0, 0.25]], "words": []}], each=1)
    sample = tmp_path / "samples" / made[0]["shown"][0]
    raw = PIL.Image.new("RGB", (8, 16))
    exif = raw.getexif()
    exif[PIL.ExifTags.Base.Orientation] = 6  # turn it right by 90 degrees to see it
    raw.save(sample, "JPEG", exif=exif)
    assert Image.load(sample).pixels.shape == (3, 8, 16)
    convert(path, "labels", tmp_path / "faults.parquet")
    (fault,) = read_faults(tmp_path / "faults.parquet")
    assert fault.region is not None
    mask = Image.load(fault.region).pixels[0]
    expected = torch.zeros(8, 16)
    expected[:2, 8:] = 1
    assert mask.tolist() == expected.tolist()


def test_a_log_of_two_modes_uses_those_of_its_own(tmp_path: Path) -> None:
    path, made = labelled(tmp_path, "binary", [{"label": True}, {"label": False}], each=1)
    lines = path.read_text().split("\n")
    odd = {k: v for k, v in made[1].items() if k != "label"} | {"mode": "rating", "scores": {"overall": 3}}
    path.write_text("\n".join([*lines[:2], json.dumps(odd), ""]))
    found = convert(path, "labels", tmp_path / "binary.parquet")
    assert (found.rows, found.used) == (2, 1)
    assert "is of mode rating, and the file is of mode 'binary'" in str(found.rejected[0])
