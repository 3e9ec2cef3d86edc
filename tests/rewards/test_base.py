"""What every scorer is built from: reasons for no score, and scores put back in their rows."""

import math

import pytest
import torch

from mmalign.errors import ShapeError
from mmalign.media import Image, Sample
from mmalign.rewards.base import Score, obstacle, scatter
from mmalign.rewards.cards import RewardCard

CARD = RewardCard(
    name="similarity-v1",
    target="",
    modalities=("image",),
    unit="",
    higher_is_better=True,
    differentiable=False,
    needs=("prompt", "source"),
    source="",
)
PICTURE = Image(torch.zeros(3, 2, 2))


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample("a dog", PICTURE, context={"source": PICTURE}), "ok"),
        (Sample("a dog", context={"source": PICTURE}), "no media"),
        (Sample(" \n", PICTURE, context={"source": PICTURE}), "no prompt"),
        (Sample("a dog", PICTURE), "no source"),
    ],
)
def test_an_obstacle_names_what_is_missing(sample: Sample, reason: str) -> None:
    assert obstacle(sample, CARD) == reason


def test_values_return_to_their_rows() -> None:
    score = scatter(
        ["no media", "ok", "no prompt", "ok"], torch.tensor([2.0, 3.0]), {"a": torch.tensor([4.0, 5.0])}
    )
    torch.testing.assert_close(score.value, torch.tensor([math.nan, 2.0, math.nan, 3.0]), equal_nan=True)
    torch.testing.assert_close(
        score.aspects["a"], torch.tensor([math.nan, 4.0, math.nan, 5.0]), equal_nan=True
    )
    assert score.ok.tolist() == [False, True, False, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_no_score(value: float) -> None:
    score = scatter(["ok", "ok"], torch.tensor([value, 1.0]), {"a": torch.tensor([1.0, 1.0])})
    assert score.status == ["the score is not a finite number", "ok"]
    assert torch.isnan(score.value).tolist() == [True, False]
    assert torch.isnan(score.aspects["a"]).tolist() == [True, False]


@pytest.mark.parametrize(
    ("value", "status"),
    [([1.0], ["no media"]), ([math.nan], ["ok"]), ([1.0, 2.0], ["ok"]), ([0.0], ["failed"])],
)
def test_a_score_and_its_status_must_agree(value: list[float], status: list[str]) -> None:
    with pytest.raises(ShapeError, match="value: "):
        Score(torch.tensor(value), status)
