"""A judge of several principles, each a yes-or-no question that whoever runs it chooses."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmalign.errors import ConfigError
from mmalign.media import Sample
from mmalign.rewards.base import OK, Score, scatter
from mmalign.rewards.cards import RewardCard
from mmalign.rewards.vlm import JUDGE_OPTIONS, LEAST_MASS, YES_NO, _media, faults, fill, judge_of, objections
from mmalign.rewards.vlm_judge import Question
from mmalign.rewards.vlm_scores import yes_probability


class PrincipleJudge:
    """How far a medium keeps to principles, by a judge's yes or no to each; the medium is read once for all of them.

        score = sum_j w_j P_j(yes) / sum_j w_j,   P_j = sigmoid(log P(yes) - log P(no)) for question j

    Range: [0, 1], higher is better. Each P_j is an aspect. A sample that the judge does not answer with yes or no on
    one principle has a status that names it, and no score.

    Args:
        card: its weights are the judge's, unless ``endpoint`` is among its options.
        principles: name to question, which may hold ``{prompt}`` and ``{medium}``; yes is what is wanted.
        weights: name to weight, positive; 1 where none is given.
        least_mass: what yes and no have to hold together of all probability.
        device: where the judge runs.
        options: of :func:`mmalign.rewards.vlm.judge_of`.

    Raises:
        ConfigError: no principle, or a weight that is not positive or of no principle.
    """

    takes_options_of = JUDGE_OPTIONS

    def __init__(
        self,
        card: RewardCard,
        *,
        principles: Mapping[str, str],
        weights: Mapping[str, float] | None = None,
        least_mass: float = LEAST_MASS,
        device: str = "cpu",
        **options: Any,
    ) -> None:
        weights = weights or {}
        unknown = weights.keys() - principles.keys()
        if not principles or unknown:
            raise ConfigError(
                f"reward '{card.name}': expected principles with their weights, got principles {list(principles)} and "
                f"weights of {sorted(unknown)}"
            )
        if any(not weight > 0 for weight in weights.values()):
            raise ConfigError(
                f"reward '{card.name}': expected positive weights, got {dict(weights)}; ask the opposite"
            )
        self.card, self.principles, self.least_mass = card, dict(principles), least_mass
        self.weights = torch.tensor([float(weights.get(name, 1.0)) for name in principles])
        self.judge = judge_of(card, device=device, **options)

    @torch.no_grad()
    def score(self, samples: Sequence[Sample]) -> Score:
        """One score per sample, with each principle's as an aspect."""
        status = objections(samples, self.card, self.judge)
        rows = [i for i, entry in enumerate(status) if entry == OK]
        asked = [
            Question(_media(samples[i]), fill(template, samples[i]))
            for i in rows
            for template in self.principles.values()
        ]
        choices = self.judge.choices(asked, YES_NO)
        log_prob = choices.log_prob.reshape(len(rows), len(self.principles), 2)
        found, good = iter(faults(choices, YES_NO, self.least_mass)), []
        for n, i in enumerate(rows):
            for name in self.principles:
                fault = next(found)
                if fault != OK and status[i] == OK:
                    status[i] = f"{name}: {fault}"
            if status[i] == OK:
                good.append(n)
        kept = yes_probability(log_prob[good])
        value = (kept * self.weights.to(kept)).sum(-1) / self.weights.sum()
        return scatter(status, value, {name: kept[:, j] for j, name in enumerate(self.principles)})
