"""The true reward of the shapes world, as a reward that recipes name."""

import math

import pytest
import torch
from torch.nn.functional import interpolate

from mmalign.media import Image, Sample
from mmalign.rewards.cards import load_reward
from mmalign.worlds import shapes
from mmalign.worlds.rewards import ASPECTS

SCENE = (shapes.Shape("star", "red", "large", "on the left"),)
CAPTION = shapes.caption(SCENE)
PICTURE = shapes.render([SCENE], torch.Generator().manual_seed(0))[0]


def test_value_and_aspects_are_the_worlds_own_measure() -> None:
    score = load_reward("shapes-truth").score([Sample(CAPTION, Image(PICTURE))])
    measured = shapes.measure(PICTURE[None], [SCENE])
    torch.testing.assert_close(score.value, measured["overall"])
    assert tuple(score.aspects) == ASPECTS
    for name in ASPECTS:
        torch.testing.assert_close(score.aspects[name], measured[name])


def test_one_wrong_word_costs_that_aspect_only() -> None:
    right = load_reward("shapes-truth").score([Sample(CAPTION, Image(PICTURE))])
    wrong = load_reward("shapes-truth").score([Sample(CAPTION.replace("red", "blue"), Image(PICTURE))])
    assert wrong.aspects["colour"] < 0.1
    assert wrong.value < right.value - 0.2
    for name in ("kind", "size", "place"):
        torch.testing.assert_close(wrong.aspects[name], right.aspects[name])


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (Sample("a horse on the moon", Image(PICTURE)), "the prompt names no shape of this world"),
        (Sample(CAPTION, Image(PICTURE[:, :48])), "the picture is 64x48, not square"),
        (Sample("", Image(PICTURE)), "no prompt"),
        (Sample(CAPTION), "no media"),
    ],
)
def test_what_cannot_be_measured_has_a_reason_and_no_number(sample: Sample, reason: str) -> None:
    score = load_reward("shapes-truth").score([sample, Sample(CAPTION, Image(PICTURE))])
    assert score.status == [reason, "ok"]
    assert math.isnan(score.value[0])
    assert score.value[1] > 0.9
    assert all(math.isnan(values[0]) for values in score.aspects.values())


@pytest.mark.parametrize("side", [128, 200])
def test_a_larger_picture_of_the_same_scene_scores_the_same(side: int) -> None:
    large = interpolate(PICTURE[None], size=side, mode="bilinear")[0]
    score = load_reward("shapes-truth").score(
        [Sample(CAPTION, Image(PICTURE)), Sample(CAPTION, Image(large))]
    )
    assert score.value[1] == pytest.approx(float(score.value[0]), abs=0.05)
