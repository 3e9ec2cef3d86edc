"""A goal against a baseline: how far a picture has come in the direction between two texts (VLM-RM)."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.clip_encoder import ClipEncoder, load_encoder
from mmalign.rewards.pictures import PictureReward


def goal_baseline_projection(x: Tensor, g: Tensor, b: Tensor, alpha: float) -> Tensor:
    """The reward [B] of states x for goals g, projected towards the line from the baseline b.

        r = 1 - 1/2 |(x - g) P|^2,   P = alpha * d^T d / |d|^2 + (1 - alpha) * I,   d = g - b

    At alpha 0 and unit vectors this is cos(x, g); at alpha 1 only the coordinate of x along d counts, so what goal and
    baseline have in common does not. P is no projection in between: the square of the formula stays outside of it.

    Args:
        x: [B, D], each of length 1.
        g: [B, D] or [1, D].
        b: [D] or [1, D].
        alpha: in [0, 1].

    Returns:
        [B], at most 1, and at least -1 if no vector is longer than 1; NaN where goal and baseline are the same, so that
        there is no direction.

    Source: Rocamonde et al. 2023, Vision-Language Models are Zero-Shot Reward Models, definition 1 (arXiv:2310.12921).

    >>> g, b, x = torch.eye(3).split(1)
    >>> [goal_baseline_projection(x, g, b, alpha).item() for alpha in (0.0, 0.5, 1.0)]
    [0.0, 0.5625, 0.75]
    """
    direction = g - b
    direction = direction / direction.norm(dim=-1, keepdim=True)
    gap = x - g
    along = (gap * direction).sum(-1, keepdim=True) * direction
    return 1 - (alpha * along + (1 - alpha) * gap).square().sum(-1) / 2


class GoalBaselineReward(PictureReward):
    """How far a picture is from a baseline towards a goal, by any CLIP.

    ``goal_baseline_projection`` of the picture's unit vector; the goal is the sample's prompt, or fixed texts; several
    texts count as the mean of their unit vectors, which is not made one again. Range: [-1, 1], higher is better.

    Source: Rocamonde et al. 2023 (arXiv:2310.12921), whose larger CLIPs were the better rewards.

    Args:
        card: whose weights are a CLIP's.
        device: where the model runs.
        encoder: a CLIP, or what ``load_encoder`` makes one from.
        baseline: texts of how things are without the goal, such as "a photo".
        goal: texts in the place of the sample's prompt; a card with them does not need one.
        alpha: in [0, 1], how much of what lies across the direction is ignored.
        batch_size: pictures in one forward pass.

    Raises:
        ConfigError: ``alpha`` outside [0, 1], or the weights are not there or not a CLIP's.
    """

    def __init__(
        self,
        card: RewardCard,
        *,
        device: str = "cpu",
        encoder: ClipEncoder | Mapping[str, Any] | None = None,
        baseline: Sequence[str],
        goal: Sequence[str] = (),
        alpha: float = 0.0,
        batch_size: int = 64,
    ) -> None:
        if not 0 <= alpha <= 1:
            raise ConfigError(f"reward '{card.name}': alpha = {alpha}, expected a number in [0, 1]")
        if bool(goal) == ("prompt" in card.needs):
            raise ConfigError(f"reward '{card.name}': needs either a prompt or texts of a goal")
        self.encoder = load_encoder(card, encoder, device=device)
        super().__init__(card, device=device, preprocessing=self.encoder.preprocessing, batch_size=batch_size)
        self.alpha = alpha
        self.baseline, self.goal = list(baseline), list(goal)

    def values(self, pixels: Tensor, samples: Sequence[Sample]) -> Tensor:
        """[B], unitless."""
        with torch.no_grad():
            baseline = self.encoder.text(self.baseline).mean(0)
            if self.goal:
                goal = self.encoder.text(self.goal).mean(0, keepdim=True)
            else:
                goal = self.encoder.text([sample.prompt for sample in samples])
        return goal_baseline_projection(
            normalize(self.encoder.image(pixels), dim=-1), goal, baseline, self.alpha
        )
