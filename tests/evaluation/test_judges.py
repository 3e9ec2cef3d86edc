"""Judges of judges: what a right, a wrong, a partial and a biased reward look like on each benchmark's layout."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import torch

from mmalign.cli import reward as command
from mmalign.errors import ConfigError, DataError, MmalignError, UnknownNameError
from mmalign.evaluation.judge_data import read_judge_data
from mmalign.evaluation.judges import Judgement, Measure, judge
from mmalign.evaluation.verdicts import covariates
from mmalign.media import Audio, Image, Sample, Video
from mmalign.rewards.base import OK, Score, scatter
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.pairwise import PairReward, Preference
from mmalign.worlds import shapes

CARD = replace(find_card("placebo"), name="red-v1", needs=())


class Red:
    """How red a picture is, with its green as the aspect "MQ"; a wholly black one has no score."""

    def __init__(self, *, higher_is_better: bool = True, constant: bool = False) -> None:
        self.card, self.constant = (
            replace(CARD, higher_is_better=higher_is_better, range=(0.0, 10.0)),
            constant,
        )

    def score(self, samples: Sequence[Sample]) -> Score:
        pixels = [
            sample.media.pixels if isinstance(sample.media, Image) else torch.zeros(3, 1, 1)
            for sample in samples
        ]
        status = [OK if p.sum() > 0 else "too dark" for p in pixels]
        kept = [p for p, entry in zip(pixels, status, strict=True) if entry == OK]
        values = torch.tensor([0.0 if self.constant else 10 * float(p[0].mean()) for p in kept])
        return scatter(status, values, {"MQ": torch.tensor([float(p[1].mean()) for p in kept])})


class First:
    """A judge of pairs that likes the first place, and redness as far as ``sense`` goes."""

    def __init__(self, sense: float) -> None:
        self.card, self.sense = replace(CARD, name="first-v1"), sense

    def compare(self, first: Sequence[Sample], second: Sequence[Sample]) -> Preference:
        gaps = [
            a.media.pixels[0].mean() - b.media.pixels[0].mean()
            for a, b in zip(first, second, strict=True)
            if isinstance(a.media, Image) and isinstance(b.media, Image)
        ]
        wins = torch.sigmoid(1 + self.sense * torch.stack(gaps))
        return Preference(wins, torch.zeros_like(wins), [OK] * len(first))


def save(folder: Path, name: str, red: float, green: float = 0.2, side: int = 4) -> str:
    picture = torch.full((3, side, side), 0.1)
    picture[0], picture[1] = red, green
    Image(picture).save(folder / name)
    return name


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twenty pairs of ten prompts; the redder one was chosen in all but the last two; better ones are larger."""
    rows = []
    for i in range(20):
        better, worse = save(tmp_path, f"{i}a.png", 0.5 + i / 50, side=8), save(tmp_path, f"{i}b.png", 0.3)
        chosen, rejected = (better, worse) if i < 18 else (worse, better)
        rows.append({"prompt": f"p{i % 10}", "chosen": chosen, "rejected": rejected})
    return lines(tmp_path / "pairs.jsonl", rows)


def named(found: Judgement, name: str) -> Measure:
    (measure,) = [measure for measure in found.measures if measure.name == name]
    return measure


def test_accuracy_has_an_interval_that_holds_it(pairs: Path) -> None:
    data = read_judge_data([pairs])
    found = judge(Red(), data, resamples=200)
    accuracy = named(found, "accuracy")
    assert accuracy.value == pytest.approx(0.9)
    assert accuracy.n == found.pairs == found.judged == 20
    low, high = accuracy.ci95
    assert low < 0.9 < high <= 1
    assert named(judge(Red(higher_is_better=False), data, resamples=20), "accuracy").value == pytest.approx(
        0.1
    )
    assert named(judge(Red(constant=True), data, resamples=20), "accuracy").value == 0


def test_size_is_found_out(pairs: Path) -> None:
    found = judge(Red(), read_judge_data([pairs]), resamples=50)
    assert named(found, "accuracy of pixels alone").value == pytest.approx(0.9)
    assert named(found, "correlation with pixels").value > 0.8
    assert not any("loudness" in measure.name for measure in found.measures)


def test_calibration_does_not_depend_on_the_scale_of_scores(pairs: Path) -> None:
    class Tenfold(Red):
        def score(self, samples: Sequence[Sample]) -> Score:
            plain = super().score(samples)
            return replace(plain, value=10 * plain.value)

    data = read_judge_data([pairs])
    errors = [
        named(judge(reward, data, resamples=20), "calibration error (ECE)").value
        for reward in (Red(), Tenfold())
    ]
    assert errors[0] == pytest.approx(errors[1], abs=1e-6)
    assert 0 <= errors[0] < 0.3


def test_a_pair_that_fails_is_neither_right_nor_wrong(pairs: Path) -> None:
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    Image(torch.zeros(3, 2, 2)).save(pairs.parent / "black.png")
    more = [
        {"prompt": "q", "chosen": "black.png", "rejected": "0b.png"},
        {"prompt": "q", "chosen": "0a.png", "rejected": "gone.png"},
        {"prompt": "q", "chosen": "0a.png", "rejected": "../outside.png"},
    ]
    Image(torch.ones(3, 2, 2)).save(pairs.parent.parent / "outside.png")
    found = judge(Red(), read_judge_data([lines(pairs, rows + more)]), resamples=20)
    assert (found.pairs, found.judged) == (23, 20)
    assert named(found, "accuracy").value == pytest.approx(0.9)
    said = " ".join(found.failures)
    assert "too dark" in said
    assert "no such file" in said
    assert "lies outside" in said
    with pytest.raises(MmalignError, match="none of the 3 pairs has a verdict"):
        judge(Red(), read_judge_data([lines(pairs, more)]))


def test_videoalign_has_ties_and_aspects(tmp_path: Path) -> None:
    save(tmp_path, "a.png", 0.9, green=0.1)
    save(tmp_path, "b.png", 0.3, green=0.8)
    save(tmp_path, "c.png", 0.3, green=0.8)
    header = {"prompt": "x", "path_A": "a.png", "path_B": "b.png"}
    rows = [{**header, "prompt": f"p{i}", "Overall": "A", "MQ": "B"} for i in range(4)] + [
        {**header, "prompt": f"q{i}", "path_A": "c.png", "Overall": "same", "MQ": "A"} for i in range(2)
    ]
    found = judge(Red(), read_judge_data([lines(tmp_path / "bench.jsonl", rows)]), resamples=20)
    assert named(found, "accuracy, Overall").value == 1
    (ties,) = [m for m in found.measures if m.name.startswith("accuracy, Overall, with ties")]
    assert (ties.value, ties.n) == (1, 6)
    assert named(found, "accuracy, MQ").value == pytest.approx(
        4 / 6
    )  # by the reward's own aspect of that name


def test_mj_bench_by_its_protocol(tmp_path: Path) -> None:
    """Bytes in parquet, one file a perspective; ties are wrong, or left out."""
    folder = tmp_path / "bench"
    folder.mkdir()

    def cell(red: float) -> dict[str, Any]:
        return {"bytes": (tmp_path / save(tmp_path, "x.png", red)).read_bytes(), "path": None}

    def row(first: float, second: float, label: int, subset: str) -> dict[str, Any]:
        return {
            "caption": "x",
            "image0": cell(first),
            "image1": cell(second),
            "label": label,
            "subset": subset,
        }

    tables = {
        "alignment": [
            row(0.8, 0.2, 0, "object"),
            row(0.2, 0.8, 1, "object"),
            row(0.8, 0.2, 1, "count"),
            row(0.4, 0.4, 0, "count"),
        ],
        "safety": [row(0.2, 0.8, 0, "crime")],
        "artifact": [row(0.2, 0.6, 1, "face")],
        "bias": [
            {"caption": "a nurse", "occupation": name, "image": cell(red)}
            for name, reds in (("nurse", (0.2, 0.4, 0.6, 0.8)), ("judge", (0.6, 0.6, 0.6)))
            for red in reds
        ],
    }
    for name, rows in tables.items():
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    data = read_judge_data([folder])
    assert (data.layout, len(data.cases), len(data.singles)) == ("mj-bench", 6, 7)
    found = judge(Red(), data, resamples=20)
    expected = {
        "alignment, ties wrong": (0.5, 4),
        "alignment, ties left out": (2 / 3, 3),
        "alignment: object": (1, 2),
        "alignment: count": (0, 2),
        "safety, ties wrong": (0, 1),
        "quality, ties wrong": (1, 1),
        "bias: NDS": ((0.552786 + 1) / 2, 7),
        "bias: GES": ((0.75 + 1) / 2, 7),
        "bias: ACC": (0.5, 7),
    }
    for name, (value, n) in expected.items():
        measure = named(found, name)
        assert measure.value == pytest.approx(value, abs=5e-3), name
        assert measure.n == n, name
    wide = judge(Red(), data, threshold=7.0, resamples=20)
    assert named(wide, "alignment, ties wrong").value == 0


def test_rewardbench_weighs_subsets_by_their_counts(tmp_path: Path) -> None:
    save(tmp_path, "a.png", 0.9)
    save(tmp_path, "b.png", 0.1)
    good = {"prompt": "x", "chosen": "a.png", "rejected": "b.png"}
    bad = {"prompt": "y", "chosen": "b.png", "rejected": "a.png"}
    rows = [
        *[{**good, "section": "chat", "subset": "easy"}] * 3,
        {**bad, "section": "chat", "subset": "hard"},
        {**bad, "section": "safety", "subset": "refusals"},
        {**good, "section": "safety", "subset": "refusals"},
    ]
    found = judge(Red(), read_judge_data([lines(tmp_path / "bench.jsonl", rows)]), resamples=20)
    assert named(found, "subset easy").value == 1
    assert named(found, "section chat").value == pytest.approx(0.75)
    assert named(found, "section safety").value == pytest.approx(0.5)
    assert named(found, "mean of the sections").value == pytest.approx(0.625)


def test_a_judge_of_pairs_is_asked_in_both_orders(pairs: Path) -> None:
    data = read_judge_data([pairs])
    blind, keen = judge(First(0.0), data, resamples=20), judge(First(40.0), data, resamples=20)
    assert named(blind, "order consistency").value == 0
    assert named(blind, "accuracy").value == 0  # the first place cancels, and what is left is a tie
    assert named(keen, "order consistency").value == 1
    assert named(keen, "accuracy").value == pytest.approx(0.9)


def test_the_judge_that_ships_is_one_of_pairs(tmp_path: Path) -> None:
    """It shows both orders itself, and says in how many pairs they agreed."""
    random = torch.Generator().manual_seed(0)
    scenes = [shapes.random_scene(random, split="heldout") for _ in range(6)]
    for i, picture in enumerate(shapes.render(scenes, random)):
        Image(picture).save(tmp_path / f"{i}.png")
    rows = [
        {"prompt": shapes.caption(scenes[i]), "chosen": f"{i}.png", "rejected": f"{(i + 1) % 6}.png"}
        for i in range(6)
    ]
    reward = load_reward("embedded/shapes-vlm-pair")
    assert isinstance(reward, PairReward)
    data = read_judge_data([lines(tmp_path / "pairs.jsonl", rows)])
    found = judge(reward, data, resamples=20)
    sides = [
        [Sample(row["prompt"], Image.load(tmp_path / row[k])) for row in rows] for k in ("chosen", "rejected")
    ]
    assert named(found, "order consistency").value == pytest.approx(reward.compare(*sides).consistency)
    assert named(found, "accuracy").value >= 0.8


def test_what_is_measured_of_media() -> None:
    red = torch.zeros(3, 4, 6)
    red[0] = 0.5
    found = covariates(Video(red.expand(8, -1, -1, -1), 4.0))
    assert found == pytest.approx({"pixels": 24, "brightness": 0.5 / 3, "saturation": 1.0, "duration_s": 2.0})
    assert covariates(Audio(torch.full((2, 800), -0.25), 8_000)) == pytest.approx(
        {"duration_s": 0.1, "loudness": 0.25}
    )
    assert covariates(None) == {}


def test_the_command_prints_a_table_and_writes_all_of_it(
    pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "judged" / "placebo.json"
    arguments = ["evaluate", "placebo", "--data", str(pairs), "--out", str(out), "--resamples", "20"]
    assert command.main(arguments) == 0
    found = capsys.readouterr()
    assert found.out.splitlines()[0].split() == ["measure", "value", "low", "high", "n"]
    assert "pairs: 20 pairs, 20 with a verdict by placebo" in found.err
    written = json.loads(out.read_text())
    assert written["measures"][0]["measure"] == "accuracy"
    assert 0 <= written["measures"][0]["value"] <= 1
    with pairs.open("a") as file:
        file.write(json.dumps({"prompt": "x", "chosen": "gone.png", "rejected": "0a.png"}) + "\n")
    assert command.main(arguments) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"promt": "x"}, "no known layout of pairs has the columns promt"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "row 1, column 'prompt': expected a text"),
        (
            {"caption": "x", "image0": "a", "image1": "b", "label": 2},
            "row 1, column 'label': expected 0 or 1",
        ),
        (
            {"prompt": "x", "path_A": "a", "path_B": "b", "MQ": "C"},
            "row 1, column 'MQ': expected A, B or same",
        ),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_judge_data([lines(tmp_path / "t.jsonl", [row])])


def test_wrong_usage_is_one_sentence(tmp_path: Path, pairs: Path) -> None:
    with pytest.raises(ConfigError, match="add --data FILE"):
        command.main(["evaluate", "placebo"])
    with pytest.raises(UnknownNameError, match="Did you mean 'evaluate'"):
        command.main(["evalute"])
    with pytest.raises(DataError, match="no such file or folder"):
        read_judge_data([tmp_path / "gone.jsonl"])
    other = lines(tmp_path / "mj.jsonl", [{"caption": "x", "image0": "a", "image1": "b", "label": 0}])
    with pytest.raises(DataError, match="expected one layout, got pairs and mj-bench"):
        read_judge_data([pairs, other])
