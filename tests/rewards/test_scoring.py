"""The scoring engine: one row per file and reward, in order, whatever happens to a file."""

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmalign.media import Image, Sample, SampleFile
from mmalign.rewards.base import Score
from mmalign.rewards.cards import find_card, load_reward
from mmalign.rewards.scoring import ScoredRow, records, score_files, weighted_sum

COUNT, BROKEN = 23, 11


class Brightness:
    """The mean of all pixels, and of the red ones as an aspect; remembers how it was called."""

    card = replace(find_card("placebo"), name="brightness")

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, samples: Sequence[Sample]) -> Score:
        self.batches.append(len(samples))
        pixels = [s.media.pixels if isinstance(s.media, Image) else None for s in samples]
        values = [math.nan if p is None else float(p.mean()) for p in pixels]
        reds = [math.nan if p is None else float(p[0].mean()) for p in pixels]
        status = ["no media" if p is None else "ok" for p in pixels]
        value = torch.tensor(values, dtype=torch.float64)
        return Score(value, status, std=value / 2, aspects={"red": torch.tensor(reds, dtype=torch.float64)})


@pytest.fixture
def files(tmp_path: Path) -> list[SampleFile]:
    """Pictures whose brightness is their number, one of them cut short."""
    paths = [tmp_path / f"{i}.png" for i in range(COUNT)]
    for i, path in enumerate(paths):
        Image(torch.full((3, 8, 8), i / 255)).save(path)
    paths[BROKEN].write_bytes(paths[BROKEN].read_bytes()[:40])
    return [SampleFile(str(i), path, f"prompt {i}", str(path)) for i, path in enumerate(paths)]


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_rows_come_in_order_and_one_fault_stays_alone(
    files: list[SampleFile], batch_size: int, threads: int
) -> None:
    reward = Brightness()
    rows = list(score_files(files, [reward], batch_size=batch_size, threads=threads))
    assert [row.id for row in rows] == [str(i) for i in range(COUNT)]
    assert [row.media for row in rows] == [str(file.path) for file in files]
    assert [row.prompt for row in rows] == [f"prompt {i}" for i in range(COUNT)]
    for i, row in enumerate(rows):
        if i == BROKEN:
            assert row.score is None
            assert row.std is None
            assert row.aspects == {"red": None}
            assert "not a readable picture" in row.status
        else:
            assert row.status == "ok"
            assert row.score == pytest.approx(i / 255)
            assert row.std == pytest.approx(i / 510)
            assert row.aspects["red"] == pytest.approx(i / 255)
    assert sum(reward.batches) == COUNT
    assert max(reward.batches) == min(batch_size, COUNT)


def test_several_rewards_give_one_row_each(files: list[SampleFile]) -> None:
    rows = list(score_files(files, [Brightness(), load_reward("placebo")], batch_size=4))
    assert [(row.id, row.reward) for row in rows] == [
        (str(i), name) for i in range(COUNT) for name in ("brightness", "placebo")
    ]
    assert [row.status == "ok" for row in rows] == [i != BROKEN for i in range(COUNT) for _ in range(2)]


def test_weights_add_a_row_with_the_sum(files: list[SampleFile]) -> None:
    rows = list(score_files(files, [Brightness(), load_reward("placebo")], weights=[2.0, -0.5], batch_size=4))
    assert len(rows) == 3 * COUNT
    for bright, placebo, total in zip(rows[::3], rows[1::3], rows[2::3], strict=True):
        assert total.reward == "brightness:2+placebo:-0.5"
        if bright.score is None or placebo.score is None:
            assert total.score is None
            assert total.status.startswith("brightness: ")
        else:
            assert total.score == pytest.approx(2 * bright.score - 0.5 * placebo.score)


def test_a_sum_with_a_missing_part_is_missing_and_not_smaller() -> None:
    rows = [
        ScoredRow("0", "a.png", None, "one", 5.0, None, "ok"),
        ScoredRow("0", "a.png", None, "two", None, None, "no prompt"),
    ]
    total = weighted_sum(rows, [load_reward("placebo")] * 2, [1.0, 1.0])
    assert (total.score, total.status) == (None, "two: no prompt")


def test_files_are_read_while_the_reward_works(tmp_path: Path) -> None:
    """The reward's first batch waits for a file of the second batch to be read."""
    Image(torch.zeros(3, 4, 4)).save(tmp_path / "a.png")
    second_was_read = threading.Event()

    class Listening(SampleFile):
        def load(self) -> Sample:
            second_was_read.set()
            return super().load()

    class Waiting(Brightness):
        def score(self, samples: Sequence[Sample]) -> Score:
            assert second_was_read.wait(timeout=20)
            return super().score(samples)

    path = tmp_path / "a.png"
    pair = [SampleFile("0", path, None, ""), Listening("1", path, None, "")]
    assert [row.status for row in score_files(pair, [Waiting()], batch_size=1, threads=1)] == ["ok", "ok"]


def test_all_rows_have_the_same_columns() -> None:
    rows = [
        ScoredRow("0", "a.png", "p", "one", 1.0, None, "ok", {"red": 0.5}),
        ScoredRow("0", "a.png", "p", "two", 2.0, 0.1, "ok", {"size": 0.25}),
    ]
    table = records(rows)
    assert [list(record) for record in table] == [
        ["id", "media", "prompt", "reward", "score", "std", "status", "red", "size"]
    ] * 2
    assert (table[0]["size"], table[1]["size"], table[1]["red"]) == (None, 0.25, None)
