"""A goal against a baseline: the published cases, its two ends, and the score against open_clip."""

from pathlib import Path

import open_clip
import pytest
import torch
from torch.nn.functional import normalize

from mmalign.errors import ConfigError
from mmalign.rewards.clip_projection import GoalBaselineReward, goal_baseline_projection
from tests.rewards.factories import FACTORIES
from tests.rewards.photographs import crops, samples

G, B, OTHER = torch.eye(3, dtype=torch.float64).split(1)


@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.5, 1.0])
def test_the_goal_has_reward_1_and_the_baseline_0(alpha: float) -> None:
    assert goal_baseline_projection(G, G, B, alpha).item() == pytest.approx(1)
    assert goal_baseline_projection(B, G, B, alpha).item() == pytest.approx(0)


def test_it_is_the_published_matrix() -> None:
    random = torch.Generator().manual_seed(0)
    x, g, b = normalize(torch.randn(3, 4, 6, dtype=torch.float64, generator=random), dim=-1)
    for alpha in (0.0, 0.3, 1.0):
        d = (g[:1] - b[:1]).T
        projection = alpha * d @ d.T / d.square().sum() + (1 - alpha) * torch.eye(6, dtype=torch.float64)
        expected = 1 - ((x - g[:1]) @ projection).square().sum(1) / 2
        torch.testing.assert_close(goal_baseline_projection(x, g[:1], b[:1], alpha), expected)


def test_at_0_it_is_the_cosine_and_at_1_only_the_direction_counts() -> None:
    random = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(5, 3, dtype=torch.float64, generator=random), dim=-1)
    torch.testing.assert_close(goal_baseline_projection(x, G, B, 0.0), (x @ G.T)[:, 0])
    # Along OTHER, and along goal and baseline together, goal and baseline are the same.
    moved = x + 0.7 * OTHER + 0.4 * (G + B)
    torch.testing.assert_close(
        goal_baseline_projection(moved, G, B, 1.0), goal_baseline_projection(x, G, B, 1.0)
    )


def test_the_gradient_is_autograds_on_double_numbers() -> None:
    x = torch.tensor([[0.6, 0.0, 0.8]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: goal_baseline_projection(x, G, B, 0.5), (x,))


def test_a_goal_that_is_the_baseline_is_no_number(tmp_path: Path) -> None:
    reward = FACTORIES["vlm-rm-vit-h-14-laion2b"](tmp_path)
    score = reward.score(samples(["a photo", "a cat"], crops((40, 40), (40, 40))))
    assert score.status == ["the score is not a finite number", "ok"]


def test_several_texts_count_as_the_mean_of_their_unit_vectors(tmp_path: Path) -> None:
    card = FACTORIES["vlm-rm-vit-h-14-laion2b"](tmp_path).card
    goal, baseline = ["a cat", "a kitten on a mat"], ["a photo", "nothing"]
    from dataclasses import replace

    fixed = GoalBaselineReward(replace(card, needs=()), goal=goal, baseline=baseline, alpha=0.4)
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenize = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    pictures = crops((32, 32), (32, 32))
    with torch.no_grad():
        g, b = (
            normalize(model.eval().encode_text(tokenize(t)), dim=-1).mean(0)[None] for t in (goal, baseline)
        )
        x = normalize(model.encode_image(torch.stack([preprocess(p) for p in pictures])), dim=-1)
    expected = goal_baseline_projection(x, g, b, 0.4)
    torch.testing.assert_close(fixed.score(samples(["", ""], pictures)).value, expected, atol=1e-5, rtol=0)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    card = FACTORIES["vlm-rm-vit-h-14-laion2b"](tmp_path).card
    with pytest.raises(ConfigError, match=r"alpha = 1\.5, expected a number in \[0, 1\]"):
        GoalBaselineReward(card, baseline=["a photo"], alpha=1.5)
    with pytest.raises(ConfigError, match="needs either a prompt or texts of a goal"):
        GoalBaselineReward(card, baseline=["a photo"], goal=["a cat"])
