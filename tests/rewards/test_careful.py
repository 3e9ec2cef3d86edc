"""Pessimism by name: what it takes from a score, that doubt never helps, and where it stands in for a reward."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, UnknownNameError
from mmalign.inference.best_of_n import best_of_n
from mmalign.media import Image, Sample
from mmalign.rewards.base import Score
from mmalign.rewards.cards import find_card, has_weight, load_reward, parse_weighted
from mmalign.rewards.careful import Careful, careful_value
from mmalign.rewards.compose import load_weighted
from mmalign.rewards.learned_heads import HeadOptions
from tests.rewards.test_learned import pictures, samples, write

SAID = torch.tensor([[1.0, 5.0], [3.0, 4.0], [2.0, math.nan]])


class Committee:
    """Three members of which the last cannot score the second sample."""

    def __init__(self, *, higher_is_better: bool = True) -> None:
        self.card = replace(find_card("placebo"), name="three", higher_is_better=higher_is_better)

    def score_members(self, samples: Sequence[Sample]) -> tuple[torch.Tensor, Score]:
        return SAID, Score(SAID.mean(0), ["ok", "refused"], std=SAID.std(0))

    def score(self, samples: Sequence[Sample]) -> Score:
        return self.score_members(samples)[1]

    def members_with_grad(
        self, media: torch.Tensor, samples: Sequence[Sample]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        said = torch.tensor([1.0, 3.0, 2.0])[:, None] * media[None]
        return said, said.std(0)


def careful(reward: Committee, how: str, strength: float | None = None) -> Careful:
    return Careful(replace(reward.card, name=f"three@{how}"), reward, how=how, strength=strength)


@pytest.mark.parametrize(
    ("how", "strength", "value"),
    [
        ("worst-case", None, 1.0),
        ("mean-less-std", None, 1.0),
        ("mean-less-std", 2.0, 0.0),
        ("uncertainty-weighted", None, 1.5),
    ],
)
def test_one_two_three_worked_by_hand(how: str, strength: float | None, value: float) -> None:
    score = careful(Committee(), how, strength).score(samples()[:2])
    assert score.value[0].item() == pytest.approx(value)
    assert score.status == ["ok", "three: refused"]
    assert score.aspects["three"][0].item() == 2.0
    media = torch.ones(1, requires_grad=True)
    found = careful(Committee(), how, strength).score_with_grad(media, samples()[:1])
    assert found.item() == pytest.approx(value)
    found.sum().backward()
    if how != "uncertainty-weighted":  # all but the variance are homogeneous
        assert_close(media.grad, torch.tensor([value]))


@pytest.mark.parametrize("how", ["worst-case", "mean-less-std", "uncertainty-weighted"])
def test_where_lower_is_better_doubt_makes_it_higher(how: str) -> None:
    cost = Committee(higher_is_better=False)
    assert float(careful(cost, how).score(samples()[:2]).value[0]) > 2.0
    assert float(careful(cost, how).score_with_grad(torch.ones(1), samples()[:1])[0]) > 2.0


def test_a_folder_by_name_is_careful_everywhere(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "r", HeadOptions(members=3, hidden=(6,))))
    plain = load_reward(folder)
    members, score = plain.score_members([*samples(), Sample("a red circle")])  # type: ignore[attr-defined]
    assert score.std is not None
    worst = load_reward(f"{folder}@worst-case")
    assert_close(worst.score(samples()).value, members.amin(0)[:3])
    assert bool(members[:, 3].isnan().all())
    less = load_reward(f"{folder}@mean-less-std=2").score(samples())
    assert_close(less.value, (score.value - 2 * score.std)[:3])
    assert_close(worst.score_with_grad(pictures(), samples()), members.amin(0)[:3], atol=1e-5, rtol=1e-4)  # type: ignore[attr-defined]
    assert parse_weighted(f"{folder}@uncertainty-weighted=0.1:3") == (
        f"{folder}@uncertainty-weighted=0.1",
        3.0,
    )
    assert not has_weight(f"{folder}@worst-case")
    total = load_weighted([f"{folder}@worst-case:2", folder]).score(samples())
    assert_close(total.value, 2 * members.amin(0)[:3] + score.value[:3])
    assert find_card(f"{folder}@worst-case").made_of == (folder,)


def test_best_of_n_picks_what_the_worst_member_likes_best(tmp_path: Path) -> None:
    class Drawer:
        def generate(self, prompts: Sequence[str], *, seeds: Sequence[int]) -> list[Image]:
            return [Image(pictures()[seed]) for seed in seeds]

    folder = str(write(tmp_path / "r", HeadOptions(members=3, hidden=(6,))))
    worst = load_reward(f"{folder}@worst-case")
    found = best_of_n(Drawer(), worst, ["a small red circle on the left"], seeds=[0], n=3)
    assert found.seeds == [int(worst.score(samples()).value.argmax())]


def test_what_cannot_be_careful_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no members"):
        load_reward("placebo@worst-case")
    with pytest.raises(UnknownNameError, match="Did you mean 'worst-case'"):
        load_reward("placebo@worst-cast")
    with pytest.raises(ConfigError, match="NUMBER, got 'x'"):
        load_reward("placebo@mean-less-std=x")
    with pytest.raises(ConfigError, match="has no strength"):
        load_reward("placebo@worst-case=1")
    with pytest.raises(ConfigError, match="strength = -1"):
        load_reward("placebo@mean-less-std=-1")
    with pytest.raises(ConfigError, match="nothing of how sure"):
        load_reward("placebo@mean-less-std").score(samples())
    with pytest.raises(UnknownNameError, match="no reward is called 'nobody'"):
        load_reward("nobody@worst-case")
    with pytest.raises(UnknownNameError, match="lower bound"):
        careful_value(torch.ones(1), torch.ones(1), how="mean", strength=1.0)
