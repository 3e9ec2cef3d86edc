"""Long scoring jobs: cut off and resumed, in shards, from datasets, with explanations; every row as in one run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmalign.cli import score
from mmalign.data.readers import read_records
from mmalign.errors import ConfigError, DataError, MmalignError
from mmalign.media import Image, Sample
from mmalign.rewards import cards as table
from mmalign.rewards import targets
from mmalign.rewards.base import Score, TokenScores
from mmalign.rewards.cards import find_card
from mmalign.worlds import shapes

COUNT, BATCH, BROKEN = 22, 4, 9
REWARDS = ["--reward", "embedded/shapes-clip", "--reward", "shapes-truth:2"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with captions that come again; one is cut short, one is missing."""
    folder = tmp_path_factory.mktemp("pictures")
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random) for _ in range(COUNT)]
    rows = []
    for i, picture in enumerate(shapes.render(scenes, random)):
        Image(picture).save(folder / f"{i:02}.png")
        rows.append({"media": f"{i:02}.png", "prompt": shapes.caption(scenes[i % 7], i % 5)})
    (folder / f"{BROKEN:02}.png").write_bytes((folder / f"{BROKEN:02}.png").read_bytes()[:50])
    (folder / f"{BROKEN + 1:02}.png").unlink()
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def single(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What one run writes."""
    out = tmp_path_factory.mktemp("single") / "scores.jsonl"
    assert run(manifest, out) == 1
    assert len(out.read_bytes().splitlines()) == 3 * COUNT
    return out.read_bytes()


def run(manifest: Path, out: Path, *more: str) -> int:
    return score.main([str(manifest), *REWARDS, "--batch-size", str(BATCH), "--out", str(out), *more])


def stopped_after(manifest: Path, out: Path, batches: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The partial file of a run that somebody stopped."""
    from mmalign.worlds.rewards import ShapesTruth

    whole, left = ShapesTruth.score, [batches]

    def stop(self: ShapesTruth, samples: Sequence[Sample]) -> Score:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return whole(self, samples)

    with monkeypatch.context() as patch:
        patch.setattr(ShapesTruth, "score", stop)
        with pytest.raises(KeyboardInterrupt):
            run(manifest, out)
    return out.with_name(out.name + ".partial")


def test_a_run_that_was_stopped_is_resumed_to_the_same_file(
    manifest: Path,
    single: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "scores.jsonl"
    partial = stopped_after(manifest, out, 3, monkeypatch)
    assert "12 files are kept in" in capsys.readouterr().err
    assert not out.exists()
    assert len(partial.read_bytes().splitlines()) == 1 + 3 * (BATCH * 3 + 1)
    assert run(manifest, out, "--resume") == 1
    assert out.read_bytes() == single
    assert list(tmp_path.iterdir()) == [out]
    said = capsys.readouterr().err
    assert f"going on after 12 of {COUNT} files" in said
    assert f"{COUNT} samples, {3 * COUNT} rows: {3 * COUNT - 6} scored, 6 failed" in said


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1), garbage=st.binary(max_size=20))
def test_wherever_the_partial_file_ends_the_resumed_one_is_the_same(
    manifest: Path,
    single: bytes,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    share: float,
    garbage: bytes,
) -> None:
    out = tmp_path_factory.mktemp("cut") / "scores.jsonl"
    partial = stopped_after(manifest, out, 4, monkeypatch)
    whole = partial.read_bytes()
    partial.write_bytes(whole[: round(share * len(whole))] + garbage)
    if not whole.startswith(partial.read_bytes().split(b"\n")[0] + b"\n") and b"\n" in partial.read_bytes():
        with pytest.raises(ConfigError, match="is no partial file"):
            run(manifest, out, "--resume")
    else:
        assert run(manifest, out, "--resume") == 1
        assert out.read_bytes() == single


def test_a_flipped_bit_of_the_partial_file_is_scored_again(
    manifest: Path, single: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, draw = tmp_path / "scores.jsonl", random.Random(0)
    partial = stopped_after(manifest, out, 4, monkeypatch)
    whole = partial.read_bytes()
    begin = whole.index(b"\n") + 1
    for _ in range(6):
        at = draw.randrange(begin, len(whole))
        partial.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << draw.randrange(8))]) + whole[at + 1 :])
        assert run(manifest, out, "--resume") == 1
        assert out.read_bytes() == single


def test_a_partial_file_of_another_run_is_refused_and_kept(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.jsonl"
    partial = stopped_after(manifest, out, 2, monkeypatch)
    before = partial.read_bytes()
    with pytest.raises(ConfigError, match=r"was begun with other batch_size; leave --resume out"):
        score.main([str(manifest), *REWARDS, "--batch-size", "5", "--out", str(out), "--resume"])
    with pytest.raises(ConfigError, match="was begun with other rewards"):
        score.main([str(manifest), "--reward", "placebo", "--batch-size", "4", "--out", str(out), "--resume"])
    assert partial.read_bytes() == before


def test_without_resume_a_partial_file_is_begun_anew(
    manifest: Path, single: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "scores.jsonl"
    stopped_after(manifest, out, 2, monkeypatch).write_bytes(b"nonsense\n")
    assert run(manifest, out) == 1
    assert out.read_bytes() == single


@pytest.mark.parametrize("shards", [1, 3, 9])
def test_shards_in_order_are_the_file_of_one_run(
    manifest: Path, single: bytes, tmp_path: Path, shards: int
) -> None:
    parts = []
    for i in range(1, shards + 1):
        out = tmp_path / f"{i}.jsonl"
        assert run(manifest, out, "--shard", f"{i}/{shards}") in (0, 1)
        parts.append(out.read_bytes())
    assert b"".join(parts) == single
    assert shards == 1 or sum(map(bool, parts)) > 1


@pytest.mark.parametrize("suffix", ["csv", "parquet", "txt"])
def test_other_formats_are_streamed_with_the_same_rows(
    manifest: Path, single: bytes, tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"scores.{suffix}"
    assert run(manifest, out) == 1
    rows = [json.loads(line) for line in single.splitlines()]
    if suffix == "parquet":
        assert pyarrow.parquet.read_table(out).to_pylist() == rows
    elif suffix == "csv":
        back = list(read_records(out))
        assert [list(row) for row in back] == [list(row) for row in rows]
        assert [row["score"] and float(row["score"]) for row in back] == [row["score"] for row in rows]
    else:
        lines = out.read_text().splitlines()
        assert len(lines) == 1 + len(rows)
        assert lines[0].split() == list(rows[0])


@pytest.mark.slow
def test_kill_9_and_resume(manifest: Path, tmp_path: Path) -> None:
    many, out, whole = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl", tmp_path / "whole.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    more = [{**row, "media": str(manifest.parent / row["media"])} for row in rows * 40]
    many.write_text("".join(json.dumps(row) + "\n" for row in more))
    arguments = [str(many), "--root", str(manifest.parent), *REWARDS, "--batch-size", "2"]
    command = [sys.executable, "-m", "mmalign", "score", *arguments, "--out", str(out)]
    partial = out.with_name("scores.jsonl.partial")
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        while not (partial.exists() and partial.stat().st_size > 20_000):
            assert process.poll() is None
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    assert partial.exists()
    assert score.main([*arguments, "--out", str(out), "--resume"]) == 1
    assert score.main([*arguments, "--out", str(whole)]) == 1
    assert out.read_bytes() == whole.read_bytes()


# Datasets


@pytest.fixture(scope="module")
def saved(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same pictures as a dataset with two splits, saved to disk: inside its rows, and as the bytes of files."""
    rows = [json.loads(line) for line in manifest.read_text().splitlines()][:5]
    data = [(manifest.parent / row["media"]).read_bytes() for row in rows]
    pictures = [{"bytes": b[: len(b) // 2] if i == 3 else b, "path": None} for i, b in enumerate(data)]
    prompts = [row["prompt"] for row in rows]
    first = datasets.Dataset.from_dict({"caption": prompts, "picture": pictures})
    second = datasets.Dataset.from_dict({"prompt": prompts, "media": data, "id": list("abcde")})
    folder = tmp_path_factory.mktemp("saved") / "pictures"
    split = datasets.DatasetDict(
        {"test": first.cast_column("picture", datasets.Image(decode=False)), "raw": second}
    )
    for name, part in split.items():
        part.save_to_disk(folder / name)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(split)}))
    return folder


@pytest.mark.parametrize("split", ["test", "raw"])
def test_a_dataset_scores_as_its_files_do(
    saved: Path, single: bytes, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = score.main(
        [str(saved), "--split", split, *REWARDS, "--format", "jsonl", "--batch-size", str(BATCH)]
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = [json.loads(line) for line in single.splitlines()[:15]]
    assert [row["prompt"] for row in rows] == [row["prompt"] for row in expected]
    if split == "test":
        assert status == 1
        assert [row["score"] is None for row in rows] == [9 <= i < 12 for i in range(15)]
        assert "row 4, column 'picture': not a readable picture" in rows[9]["status"]
        rows, expected = rows[:9] + rows[12:], expected[:9] + expected[12:]
    else:
        assert status == 0
        assert [row["id"] for row in rows[::3]] == list("abcde")
    for mine, theirs in zip(rows, expected, strict=True):
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-4)


def test_one_split_alone_and_whatever_load_dataset_takes(
    saved: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = ["--reward", "placebo", "--format", "jsonl"]
    assert score.main([str(saved / "raw"), *plain]) == 0
    folder = tmp_path / "folder"
    folder.mkdir()
    for i in range(2):
        (folder / f"{i}.png").write_bytes((manifest.parent / f"{i:02}.png").read_bytes())
    lines = [json.dumps({"file_name": f"{i}.png", "text": f"picture {i}"}) + "\n" for i in range(2)]
    (folder / "metadata.jsonl").write_text("".join(lines))
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        assert score.main([f"hf:{folder}", "--root", str(folder), *plain]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prompt"] for row in rows] == ["picture 0", "picture 1"]
    assert len({row["score"] for row in rows}) == 2


def test_a_dataset_names_files_only_inside_its_folder(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(manifest.parent / "00.png")
    rows = {"prompt": ["x", "y"], "media": [path, None]}
    datasets.Dataset.from_dict(rows).save_to_disk(tmp_path / "linked")
    arguments = [str(tmp_path / "linked"), "--reward", "placebo", "--format", "jsonl"]
    assert score.main(arguments) == 1
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert "row 1, column 'media'" in first["status"]
    assert "lies outside" in first["status"]
    assert "no file is named" in second["status"]
    assert score.main([*arguments, "--root", str(manifest.parent)]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0])["status"] == "ok"


def test_a_dataset_gives_each_medium_its_reference(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = ((manifest.parent / f"0{i}.png").read_bytes() for i in range(2))
    pictures = {
        name: [{"bytes": data, "path": None} for data in column]
        for name, column in (("picture", (first, first)), ("reference", (first, second)))
    }
    features = datasets.Features({name: datasets.Image(decode=False) for name in pictures})
    datasets.Dataset.from_dict(pictures, features=features).save_to_disk(tmp_path / "saved")
    assert score.main([str(tmp_path / "saved"), "--reward", "ssim", "--format", "jsonl"]) == 0
    same, other = (json.loads(line)["score"] for line in capsys.readouterr().out.splitlines())
    assert same == 1
    assert other < 0.99


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ("{saved} --reward placebo", ConfigError, "has the splits test, raw; add --split NAME"),
        ("{saved} --reward placebo --split train", ConfigError, "has no split 'train'; there are: test, raw"),
        ("{saved}/raw --reward placebo --split raw", ConfigError, "is a single split"),
        (
            "{saved}/raw --reward placebo --media-column picture",
            ConfigError,
            "no column 'picture'; there are",
        ),
        ("{saved}/raw --reward placebo --prompt-column text", ConfigError, "no column 'text'; there are"),
        ("hf:{saved}/gone --reward placebo", DataError, "cannot be loaded as a dataset"),
        ("{manifest} --reward placebo --split test", ConfigError, "are for datasets, and none is named"),
        ("{manifest} --reward placebo --resume", ConfigError, "--resume goes on with a file: add --out FILE"),
        ("{manifest} --reward placebo --shard 0/3", ConfigError, "expected I/N with I from 1 to N"),
        ("{manifest} --reward placebo --shard 4/3", ConfigError, "expected I/N with I from 1 to N"),
        ("{manifest} --reward placebo --shard 1/3/5", ConfigError, "expected I/N with I from 1 to N"),
    ],
)
def test_wrong_usage_is_one_sentence(
    saved: Path, manifest: Path, arguments: str, kind: type[MmalignError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        score.main(arguments.format(saved=saved, manifest=manifest).split())


# Explanations and rewards that fail


class Explaining:
    """Finds the fault in the right half of every picture, and raises at a prompt that it does not like."""

    whole_groups = False

    def __init__(self, card: table.RewardCard, **_: object) -> None:
        self.card = card

    def score(self, samples: Sequence[Sample]) -> Score:
        if any(sample.prompt == "<i>bad</i>" for sample in samples):
            raise ValueError("cannot\nread this")
        regions = torch.zeros(len(samples), 4, 4)
        regions[:, :, 2:] = 1
        ok = [sample.media is not None for sample in samples]
        return Score(
            torch.tensor([1.0 if entry else float("nan") for entry in ok]),
            ["ok" if entry else "no media" for entry in ok],
            regions=regions,
            tokens=[TokenScores(tuple(sample.prompt.split()), (1.0, -2.0)) for sample in samples],
            text=["too dark"] * len(samples),
        )


@pytest.fixture
def explaining(monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(find_card("placebo"), name="why-v1", target=f"{__name__}:Explaining", needs=("prompt",))
    monkeypatch.setattr(table, "cards", lambda: {"why-v1": card})
    monkeypatch.setitem(targets.TARGETS, "Explaining", card.target)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Explaining.__module__])


def test_what_a_reward_says_beside_its_number_is_written(explaining: None, tmp_path: Path) -> None:
    Image(torch.zeros(3, 16, 16)).save(tmp_path / "dark.png")
    rows = [
        {"media": "dark.png", "prompt": "a <dog>", "id": "../x/1"},
        {"media": "gone.png", "prompt": "two words"},
        {"media": "dark.png", "prompt": "<i>bad</i>"},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = tmp_path / "why"
    out = tmp_path / "scores.jsonl"
    assert (
        score.main(
            [str(tmp_path / "rows.jsonl"), "--reward", "why-v1", "--explain", str(folder), "--out", str(out)]
        )
        == 1
    )
    stem = "000000-.._x_1-why-v1"
    assert sorted(path.name for path in folder.iterdir()) == [f"{stem}{s}" for s in (".html", ".png", ".txt")]
    pixels = np.asarray(PIL.Image.open(folder / f"{stem}.png"))
    assert pixels[:, :4].max() == 0
    assert (pixels[:, 12:] == pixels[0, 15]).all()
    assert pixels[0, 15].tolist() == [round(255 * 0.63), round(255 * 0.07), round(255 * 0.07)]
    page = (folder / f"{stem}.html").read_text()
    assert re.search(r'rgba\(60,110,220,0\.50\)" title="1">a<', page)
    assert re.search(r'rgba\(200,40,40,1\.00\)" title="-2">&lt;dog&gt;<', page)
    assert (folder / f"{stem}.txt").read_text() == "too dark\n"
    statuses = [json.loads(line)["status"] for line in out.read_text().splitlines()]
    assert statuses[0] == "ok"
    assert "no such file" in statuses[1]
    assert statuses[2] == "the reward failed (ValueError: cannot read this)"
