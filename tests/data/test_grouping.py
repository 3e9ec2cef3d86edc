"""Scores become preferences: who beats whom, by how much, and who takes no part."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmalign.cli import pairs as command
from mmalign.data.grouping import all_above_margin, as_rankings, ranks_of, read_scores, west_of_n
from mmalign.data.pairs import best_against_worst, read_pairs
from mmalign.data.rankings import read_rankings
from mmalign.errors import ConfigError, DataError, MmalignError, ShapeError
from mmalign.media import Image
from mmalign.roots import rooted

NAN = math.nan
groups = st.lists(
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, NAN]), min_size=4, max_size=4), min_size=1, max_size=5
).map(lambda rows: torch.tensor(rows, dtype=torch.float64))


@settings(max_examples=40, deadline=None)
@given(scores=groups, margin=st.sampled_from([0.0, 0.5, 0.9]))
def test_all_pairs_are_the_plain_loop(scores: torch.Tensor, margin: float) -> None:
    plain = [
        (p, i, j)
        for p, group in enumerate(scores.tolist())
        for i, a in enumerate(group)
        for j, b in enumerate(group)
        if a - b > margin
    ]
    assert sorted(all_above_margin(scores, margin=margin)) == plain


@settings(max_examples=40, deadline=None)
@given(scores=groups)
def test_with_two_samples_all_ways_agree(scores: torch.Tensor) -> None:
    two = scores[:, :2]
    assert all_above_margin(two) == best_against_worst(two) == west_of_n(two, keep=1.0)


@settings(max_examples=40, deadline=None)
@given(scores=groups, keep=st.sampled_from([0.1, 0.5, 1.0]))
def test_west_of_n_keeps_the_widest(scores: torch.Tensor, keep: float) -> None:
    every, kept = best_against_worst(scores), west_of_n(scores, keep=keep)
    assert len(kept) == math.ceil(keep * len(every))
    gap = {pair: float(scores[pair[0], pair[1]] - scores[pair[0], pair[2]]) for pair in every}
    left = [gap[pair] for pair in every if pair not in kept]
    assert not left or min(gap[pair] for pair in kept) >= max(left)


def test_the_gap_grows_with_n() -> None:
    scores = torch.randn(2_000, 16, generator=torch.Generator().manual_seed(0))
    gaps = [
        sum(float(scores[p, a] - scores[p, b]) for p, a, b in west_of_n(scores[:, :n], keep=1.0)) / 2_000
        for n in (2, 4, 16)
    ]
    assert gaps[0] == pytest.approx(2 / math.sqrt(math.pi), abs=0.06)  # E|x - y| of two standard normals
    assert gaps[0] < gaps[1] < gaps[2]


def test_rare_samples_are_left_out() -> None:
    scores = torch.tensor([[0.0, 9.0], [0.0, 8.0], [0.0, 1.0], [0.0, 0.5]])
    likely = torch.tensor([[-9.0, -9.0], [-1.0, -1.0], [-1.0, -1.0], [-9.0, -9.0]])
    assert west_of_n(scores, keep=0.5, log_likelihood=likely) == [(1, 1, 0)]


@settings(max_examples=40, deadline=None)
@given(scores=groups)
def test_ranks_are_the_order(scores: torch.Tensor) -> None:
    ranks = ranks_of(scores)
    assert torch.equal(ranks.isnan(), scores.isnan())
    for group, places in zip(scores.tolist(), ranks.tolist(), strict=True):
        for a, i in zip(group, places, strict=True):
            for b, j in zip(group, places, strict=True):
                if a == a and b == b:
                    assert (a > b) == (i < j)
                    assert (a == b) == (i == j)
    assert_close(ranks_of(2 * scores + 1), ranks, equal_nan=True)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: all_above_margin(torch.zeros(3)), ShapeError),
        (lambda: all_above_margin(torch.zeros(3, 2), margin=-1), ConfigError),
        (lambda: all_above_margin(torch.zeros(3, 2), margin=NAN), ConfigError),
        (lambda: west_of_n(torch.zeros(3, 2), keep=0), ConfigError),
        (lambda: west_of_n(torch.zeros(3, 2), log_likelihood=torch.zeros(3, 1)), ShapeError),
    ],
)
def test_what_cannot_work_is_refused(make: Any, kind: type[MmalignError]) -> None:
    with pytest.raises(kind):
        make()


# The command


@pytest.fixture
def scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three prompts with three, two and one sample, by two rewards; one row failed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "media").mkdir()
    rows = []
    values: dict[str, list[float | None]] = {
        "a": [1.0, 5.0, 3.0],
        "b": [2.0, None],
        "c": [7.0],
        "d": [4.0, 4.0],
    }
    for prompt, group in values.items():
        for i, score in enumerate(group):
            name = f"media/{prompt}{i}.png"
            Image(torch.zeros(3, 2, 2)).save(tmp_path / name)
            status = "ok" if score is not None else "no media"
            rows += [
                {"media": name, "prompt": prompt, "reward": "placebo", "score": score, "status": status},
                {"media": name, "prompt": prompt, "reward": "other", "score": i, "status": "ok"},
            ]
    path = tmp_path / "scores.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def named(path: Path, out: Path) -> list[tuple[str, str, float | None]]:
    return [(pair.chosen.stem, pair.rejected.stem, pair.margin) for pair in read_pairs(out)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--reward placebo", [("a1", "a0", 4.0)]),
        ("--reward placebo --by all", [("a1", "a0", 4.0), ("a1", "a2", 2.0), ("a2", "a0", 2.0)]),
        ("--reward placebo --by all --margin 2", [("a1", "a0", 4.0)]),
        ("--reward placebo --by west-of-n --keep 1", [("a1", "a0", 4.0)]),
        ("--reward placebo --better lower", [("a0", "a1", 4.0)]),
        ("--reward other --per-prompt 2", [("a2", "a0", 2.0), ("b1", "b0", 1.0), ("d1", "d0", 1.0)]),
    ],
)
def test_the_command_writes_pairs_that_training_reads(
    scores: Path, tmp_path: Path, arguments: str, expected: list[tuple[str, str, float]], capsys: Any
) -> None:
    out = tmp_path / "far" / "pairs.parquet"
    assert command.main([str(scores), "--out", str(out), *arguments.split()]) == 0
    said = capsys.readouterr()
    assert said.out.strip() == str(out)
    assert f"whatever reads it wants --root {tmp_path}" in said.err.replace("\n", "")
    with pytest.raises(DataError, match="lies outside"):
        read_pairs(out)
    with rooted(tmp_path):
        assert named(scores, out) == expected
        assert {pair.source for pair in read_pairs(out)} == {arguments.split()[1]}


def test_a_row_that_failed_has_no_value_whatever_number_it_holds(scores: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in scores.read_text().splitlines()]
    for row in rows:
        if row["media"] == "media/a1.png":
            row["status"] = "the reward failed"
    scores.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_scores(scores, reward="placebo")
    assert found.unscored == 2
    out = tmp_path / "pairs.parquet"
    assert command.main([str(scores), "--out", str(out), "--reward", "placebo", "--by", "all"]) == 0
    assert named(scores, out) == [("a2", "a0", 2.0)]


def test_the_command_writes_rankings(scores: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "ranked.parquet"
    assert command.main([str(scores), "--out", str(out), "--reward", "placebo", "--by", "ranking"]) == 0
    (ranking,) = read_rankings(out)
    assert (ranking.prompt, [path.stem for path in ranking.samples]) == ("a", ["a0", "a1", "a2"])
    assert ranking.ranks == (3.0, 1.0, 2.0)
    assert "8 samples, 7 with a score by placebo, 4 prompts: 1 rankings" in capsys.readouterr().err


def test_the_card_says_which_score_is_better(scores: Path) -> None:
    up, down = (read_scores(scores, reward="placebo", higher_is_better=higher) for higher in (True, False))
    assert_close(up.scores, -down.scores, equal_nan=True)
    assert up.unscored == 1
    assert [ranking.ranks for ranking in as_rankings(down)] == [(1.0, 3.0, 2.0)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "has scores of placebo, other; add --reward NAME"),
        ("--reward none", "no scores of 'none'; there are: placebo, other"),
        ("--reward placebo --by all --margin 9", "no preference among 4 prompts"),
        ("--reward placebo --margin 1", "--margin is for --by all"),
        ("--reward placebo --keep 0.5 --by all", "--keep is for --by west-of-n"),
        ("--reward placebo --root gone", "row 1, column 'media': no such file: gone/media/a0.png"),
    ],
)
def test_wrong_usage_is_one_sentence(scores: Path, tmp_path: Path, arguments: str, message: str) -> None:
    out = tmp_path / "pairs.parquet"
    with pytest.raises((ConfigError, DataError), match=message):
        command.main([str(scores), "--out", str(out), *arguments.split()])
    assert not out.exists()


def test_pairs_are_parquet(scores: Path) -> None:
    with pytest.raises(ConfigError, match=r"name it pairs\.parquet"):
        command.main([str(scores), "--out", "pairs.csv"])
