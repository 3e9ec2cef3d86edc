"""``mmalign score`` as a shell sees it: data on standard output, words on standard error, and the exit status."""

import csv
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet
import pytest

from mmalign.cli import score
from mmalign.errors import ConfigError, DataError, MmalignError, UnknownNameError
from mmalign.media import Audio, Image, Sample, Scene3D, Video
from mmalign.rewards.cards import load_reward
from mmalign.worlds import shapes

COUNT, BROKEN = 40, 20
COLUMNS = ["id", "media", "prompt", "reward", "score", "std", "status"]
ASPECTS = ["presence", "kind", "colour", "size", "place"]
CAPTION = "a small red circle on the left"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with their captions in a manifest; the middle one ends too early."""
    import torch

    folder = tmp_path_factory.mktemp("pictures")
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random) for _ in range(COUNT)]
    rows = []
    for i, (scene, picture) in enumerate(zip(scenes, shapes.render(scenes, random), strict=True)):
        name = f"{i:03}.png"
        Image(picture).save(folder / name)
        rows.append({"media": name, "prompt": shapes.caption(scene, i % 5)})
    broken = folder / f"{BROKEN:03}.png"
    broken.write_bytes(broken.read_bytes()[:100])
    (folder / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:BROKEN]))
    return folder


def test_one_unreadable_picture_is_one_failed_row(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.jsonl"
    arguments = [str(pictures / "all.jsonl"), "--reward", "embedded/shapes-clip", "--out", str(out)]
    assert score.main([*arguments, "--batch-size", "7"]) == 1
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == [str(i) for i in range(COUNT)]
    assert [Path(row["media"]).name for row in rows] == [f"{i:03}.png" for i in range(COUNT)]
    for i, row in enumerate(rows):
        assert list(row) == COLUMNS
        assert (row["score"] is None) == (i == BROKEN)
        assert (row["status"] == "ok") == (i != BROKEN)
    assert f"row {BROKEN + 1}, column 'media'" in rows[BROKEN]["status"]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no score for 20" in captured.err
    assert f"{COUNT} samples, {COUNT} rows: {COUNT - 1} scored, 1 failed" in captured.err
    assert list(tmp_path.iterdir()) == [out]


def test_scores_are_those_of_the_reward(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from mmalign.data.readers import read_sample_files

    manifest = pictures / "good.jsonl"
    arguments = ["--reward", "shapes-truth", "--reward", "embedded/shapes-clip", "--format", "jsonl"]
    assert score.main([str(manifest), *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [list(row) for row in rows] == [[*COLUMNS, *ASPECTS]] * (2 * BROKEN)
    samples = [file.load() for file in read_sample_files([manifest])]
    for i, name in enumerate(("shapes-truth", "embedded/shapes-clip")):
        expected = load_reward(name).score(samples).value
        assert [row["reward"] for row in rows[i::2]] == [name] * BROKEN
        assert [row["score"] for row in rows[i::2]] == pytest.approx(expected.tolist(), abs=1e-3)


def test_a_weight_adds_the_sum_of_the_scores(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--reward", "shapes-truth:2", "--reward", "placebo", "--format", "csv"]
    assert score.main([str(pictures / "good.jsonl"), *arguments]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert len(rows) == 3 * BROKEN
    for truth, placebo, total in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert total["reward"] == "shapes-truth:2+placebo:1"
        assert float(total["score"]) == pytest.approx(2 * float(truth["score"]) + float(placebo["score"]))


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet", "txt"])
def test_the_suffix_of_the_file_names_its_format(pictures: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "new folder" / f"scores.{suffix}"
    arguments = ["--prompt", CAPTION, "--reward", "shapes-truth", "--out", str(out)]
    assert score.main([str(pictures / "000.png"), str(pictures / "001.png"), *arguments]) == 0
    if suffix == "parquet":
        assert pyarrow.parquet.read_table(out).column_names == [*COLUMNS, *ASPECTS]
    else:
        assert len(out.read_text().splitlines()) == (2 if suffix == "jsonl" else 3)


def test_a_plain_folder_takes_the_prompt_given(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main([str(pictures), "--prompt", CAPTION, "--reward", "placebo", "--format", "jsonl"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == COUNT
    assert {row["prompt"] for row in rows} == {CAPTION}


def test_a_reward_without_prompt_needs_none(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score.main([str(pictures / "000.png"), "--reward", "placebo", "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["prompt"] is None


def test_media_of_all_kinds_are_scored_and_what_a_reward_cannot_take_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    frames = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    Image(frames[0]).save(tmp_path / "a.png")
    Video(frames, 8.0).save(tmp_path / "b.mp4")
    Audio(torch.zeros(1, 800), 8_000).save(tmp_path / "c.wav")
    (tmp_path / "d.wav").write_bytes((tmp_path / "c.wav").read_bytes()[:99])
    Scene3D(frames).save(tmp_path / "e.views.png")
    arguments = ["--prompt", CAPTION, "--format", "jsonl", "--reward", "placebo", "--reward", "shapes-truth"]
    assert score.main([str(tmp_path), *arguments]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["status"] == "ok" for row in rows[::2]] == [True, True, True, False, True]
    assert len({row["score"] for row in rows[::2]}) == 5
    assert "ends too early" in rows[6]["status"]
    statuses = [row["status"] for row in rows[1::2]]
    assert statuses[:3] == ["ok", "takes image, not video", "takes image, not audio"]
    assert statuses[4] == "takes image, not scene3d"


def test_a_manifest_reads_nothing_outside_its_folder_unless_a_root_allows_it(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "rows.jsonl"
    rows = [{"media": str(pictures / f"{i:03}.png"), "prompt": CAPTION} for i in range(2)]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [str(manifest), "--reward", "placebo", "--format", "jsonl"]
    assert score.main(arguments) == 1
    refused = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["score"] for row in refused] == [None, None]
    assert "row 1, column 'media'" in refused[0]["status"]
    assert "lies outside" in refused[0]["status"]
    assert score.main([*arguments, "--root", str(pictures)]) == 0
    assert [json.loads(line)["status"] for line in capsys.readouterr().out.splitlines()] == ["ok", "ok"]


def test_one_reference_is_compared_with_every_file(
    pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = pictures / "000.png", pictures / "001.png"
    arguments = [str(first), str(second), "--reward", "ssim", "--format", "jsonl"]
    assert score.main([*arguments, "--reference", str(first)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    context = {"reference": Image.load(first)}
    alone = load_reward("ssim").score([Sample("", Image.load(second), context)])
    assert [row["score"] for row in rows] == [1.0, pytest.approx(float(alone.value[0]), abs=1e-6)]
    assert rows[1]["score"] < 0.99


def test_a_manifest_gives_each_medium_its_reference(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.load(pictures / "000.png")
    for name in ("a.png", "b.png"):
        picture.save(tmp_path / name)
    manifest = tmp_path / "rows.jsonl"
    references = ["b.png", None, str(pictures / "000.png"), "gone.png"]
    manifest.write_text("".join(json.dumps({"media": "a.png", "reference": r}) + "\n" for r in references))
    assert score.main([str(manifest), "--reward", "ssim", "--format", "jsonl"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["score"] for row in rows] == [1.0, None, None, None]
    for row, fault in zip(rows[1:], ["no reference", "lies outside", "no such file"], strict=True):
        assert fault in row["status"]
    with pytest.raises(DataError, match="has references of its own"):
        score.main([str(manifest), "--reward", "ssim", "--reference", str(pictures / "000.png")])


def test_what_a_reward_compares_with_has_to_be_named(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"has no reference; use a manifest .* or --reference FILE"):
        score.main([str(pictures / "000.png"), "--reward", "ssim"])


def test_a_sound_is_speech_where_only_speech_is_scored() -> None:
    assert score._only_speech([("speech",), ("speech", "video")]) == "speech"
    assert score._only_speech([("speech",), ("audio", "speech")]) is None
    assert score._only_speech([("image",)]) is None


def test_a_prompt_that_was_cut_is_mentioned(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--prompt", "red " * 99, "--reward", "embedded/shapes-clip", "--format", "jsonl"]
    assert score.main([str(pictures / "000.png"), *arguments]) == 0
    captured = capsys.readouterr()
    assert "warning: embedded/shapes-clip reads 32 tokens and scores only the beginning" in captured.err
    assert json.loads(captured.out)["status"] == "ok"


def test_what_failed_before_stays_as_it_was(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmalign.worlds.rewards import ShapesTruth

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "scores.csv"
    out.write_text("older scores")
    monkeypatch.setattr(ShapesTruth, "score", stop)
    with pytest.raises(KeyboardInterrupt):
        score.main([str(pictures / "good.jsonl"), "--reward", "shapes-truth", "--out", str(out)])
    assert out.read_text() == "older scores"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ("{folder}/000.png --reward shape-truth --prompt x", UnknownNameError, "Did you mean 'shapes-truth'"),
        ("{folder}/nothing.png --reward placebo", DataError, "nothing.png: no such file or folder"),
        ("{folder}/001.pgn --reward placebo", DataError, "Did you mean '.*001.png'"),
        ("{folder}/000.png --reward shapes-truth", DataError, "000.png: has no prompts; add --prompt TEXT"),
        ("{folder}/good.jsonl --reward placebo --prompt x", DataError, "has prompts of its own"),
        ("{folder}/000.png", ConfigError, "no reward: add --reward NAME"),
        (
            "--reward placebo",
            ConfigError,
            "nothing to score: name media files, folders, manifests or datasets",
        ),
        ("{folder}/000.png --reward placebo:much", ConfigError, "expected NAME or NAME:WEIGHT"),
        ("{folder}/000.png --reward placebo --reward placebo", ConfigError, "a reward is named twice"),
        (
            "{folder}/000.png --reward placebo --format parquet",
            ConfigError,
            "parquet is no text: add --out FILE",
        ),
        ("{folder}/000.png --reward placebo --out {out}/s.xlsx", ConfigError, "no format has this suffix"),
        (
            "{folder}/000.png --reward placebo --out {out}",
            ConfigError,
            "is a folder; name a file|no format has",
        ),
        (
            "{folder}/000.png --reward placebo --batch-size 0",
            ConfigError,
            "--batch-size = 0: expected at least 1",
        ),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    kind: type[MmalignError],
    message: str,
) -> None:
    with pytest.raises(kind, match=message) as caught:
        score.main(arguments.format(folder=pictures, out=tmp_path).split())
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""
    assert not any(tmp_path.iterdir())


def test_an_unknown_option_is_wrong_usage(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        score.main([str(pictures), "--rewards", "placebo"])
    assert caught.value.code == 2
    assert "--reward" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["score", "rewards"])
def test_help_answers_before_anything_heavy_is_imported(module: str) -> None:
    script = f"""
import sys
from mmalign.cli.{module} import main
try:
    main(["--help"])
finally:
    heavy = {{"torch", "numpy", "transformers", "open_clip", "pyarrow"}} & set(sys.modules)
    assert not heavy, heavy
"""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.returncode == 0, done.stderr
    assert "usage: mmalign" in done.stdout
    assert time.monotonic() - started < 10  # on a loaded machine; what keeps it short is the line on imports


@pytest.mark.parametrize(
    ("paths", "out", "said"),
    [
        ("{folder}/000.png", "{folder}/000.png/scores.jsonl", "000.png/scores.jsonl: could not be written"),
        ("{folder}/000.png", "/proc/scores.jsonl", "/proc/"),
        ("{folder}/000.png", "{folder}/" + "x" * 300 + ".jsonl", "the name is too long for this file system"),
        ("{folder}/" + "x" * 300 + ".png", "{folder}/scores.jsonl", "x" * 300),
    ],
)
def test_what_cannot_be_written_or_named_is_one_sentence(
    pictures: Path, capsys: pytest.CaptureFixture[str], paths: str, out: str, said: str
) -> None:
    from mmalign.cli.main import main

    arguments = [paths.format(folder=pictures), "--out", out.format(folder=pictures)]
    assert main(["score", *arguments, "--prompt", CAPTION, "--reward", "shapes-truth"]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert said in error
    assert error.count("mmalign: ") == 1
