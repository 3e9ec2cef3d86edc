"""What heads learn by: the mean loss of a batch of examples over all members, by the name of the loss."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmalign.errors import ConfigError
from mmalign.losses.bradley_terry import bradley_terry_loss, gaussian_bradley_terry_loss
from mmalign.losses.odin import odin_loss
from mmalign.losses.plackett_luce import plackett_luce_loss
from mmalign.losses.rating import beta_rating_loss, gaussian_rating_loss, rating_loss
from mmalign.losses.ties import davidson_log_probs, rao_kupper_log_probs, tied_preference_loss
from mmalign.rewards.learned_heads import Heads, joint_features
from mmalign.training.reward_data import Examples, Kind

LOSSES: dict[Kind, tuple[str, ...]] = {
    "pairs": ("bradley-terry", "gaussian", "davidson", "rao-kupper", "plackett-luce", "odin"),
    "ratings": ("squared", "gaussian", "beta"),
    "binary": ("logistic",),
}
"""By the kind of data, the default first."""
TIED = ("davidson", "rao-kupper")
"""Losses that learn from ties."""


@dataclass(frozen=True, eq=False)
class Vectors:
    """Of all media [M, D] and prompts [P, D] that examples name, and for ``odin`` what should not count, [M]."""

    media: Tensor
    prompts: Tensor
    nuisance: Tensor | None = None

    def features(self, media: Tensor, prompt: Tensor) -> Tensor:
        """[..., 3 D] of indices [...]."""
        return joint_features(self.media[media], self.prompts[prompt])


class People(nn.Module):
    """How much each annotator cares for each of A common features of a reward, by member: w[k, h, a].

    A person's reward is features . w, and its scale is free between the two, so that all begin alike, at 1 / sqrt(A).

    Args:
        members: K.
        annotators: R.
        features: A.
        generator: of what tells people apart at first.
    """

    def __init__(self, members: int, annotators: int, features: int, *, generator: torch.Generator) -> None:
        super().__init__()
        noise = 0.1 * torch.randn(members, annotators, features, generator=generator)
        self.weights = nn.Parameter(features**-0.5 + noise)

    def forward(self, said: Tensor, annotator: Tensor) -> Tensor:
        """Of features [K, B, A] what each example's annotator [B] or [K, B] makes of them, [K, B]."""
        index = annotator.expand(said.shape[:2])[..., None].expand(-1, -1, said.shape[-1])
        return (said * self.weights.gather(1, index)).sum(-1)


@dataclass(frozen=True, eq=False)
class Lists:
    """R rankings as rows of media, filled up on the right.

    Args:
        media: [R, n].
        ranks: [R, n], from 0, the best; equal ones are ties.
        mask: [R, n], False on what fills up.
        prompt: [R].
    """

    media: Tensor
    ranks: Tensor
    mask: Tensor
    prompt: Tensor

    def __len__(self) -> int:
        return len(self.prompt)


def lists_of(examples: Examples) -> Lists:
    """The rankings that comparisons came from: in its ranking, a medium's place is the number of better ones."""
    found = []
    for row in examples.row.unique().tolist():
        of = examples.pick((examples.row == row) & (examples.target > 0))
        media = torch.cat([of.first, of.second]).unique()
        found.append((media, (of.second[None] == media[:, None]).sum(1), of.prompt[:1]))
    n = max(len(media) for media, _, _ in found)

    def filled(values: Tensor) -> Tensor:
        return F.pad(values, (0, n - len(values)))

    return Lists(
        media=torch.stack([filled(media) for media, _, _ in found]),
        ranks=torch.stack([filled(ranks) for _, ranks, _ in found]),
        mask=torch.stack([filled(torch.ones_like(media)) for media, _, _ in found]).bool(),
        prompt=torch.cat([prompt for _, _, prompt in found]),
    )


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The mean loss of examples over all members.

        bradley-terry  ``bradley_terry_loss`` of pairs, with their weights and, scaled, their margins; with people, each
                       of its annotator's reward
        gaussian       ``gaussian_bradley_terry_loss`` of pairs, ``gaussian_rating_loss`` of ratings
        davidson       ``tied_preference_loss`` of pairs of which some are ties
        rao-kupper     the same, with a threshold in place of the odds of a tie
        plackett-luce  ``plackett_luce_loss`` of whole rankings
        odin           ``odin_loss`` of pairs: the first aspect is free of the nuisance, the second takes it
        squared        ``rating_loss``
        beta           ``beta_rating_loss``; targets are shares
        logistic       -log sigmoid(r) of good samples, -log sigmoid(-r) of others

    Args:
        loss: its name.
        tie: of davidson, how many times as probable as a win a tie of equals is.
        threshold: of rao-kupper, the odds by which a side has to lead before it wins half the time.
        margin_scale: of bradley-terry, log odds per unit of the margins.
        people: of pairs, the annotators' own weights.
    """

    loss: str
    tie: float = 1.0
    threshold: float = 5.0
    margin_scale: float = 0.0
    people: People | None = None

    def units(self, examples: Examples) -> Examples | Lists:
        """What is drawn into a batch."""
        return lists_of(examples) if self.loss == "plackett-luce" else examples

    def __call__(
        self,
        heads: Heads,
        vectors: Vectors,
        units: Examples | Lists,
        rows: Tensor,
        *,
        kept: Tensor | None = None,
    ) -> Tensor:
        """Scalar, nats, or the squared unit of ``target``.

        Args:
            heads: K of them.
            vectors: of media and prompts.
            units: all, of ``units``.
            rows: [B], or [K, B] where each member has its own.
            kept: [..., 3 D] as ``rows``, booleans; features that are False stand at their mean, on both sides of a
                pair.
        """

        def features(media: Tensor) -> Tensor:
            found = vectors.features(media[rows], units.prompt[rows])
            return found if kept is None else torch.where(kept, found, heads.feature_mean)

        if isinstance(units, Lists):
            return self._of_lists(heads, vectors, units, rows, kept)
        if self.loss == "odin":
            return _odin(heads, features(units.first), features(units.second), vectors, units, rows)
        aspect = units.aspect[rows]

        def scored(media: Tensor) -> tuple[Tensor, Tensor]:
            means, log_variance = heads(features(media))
            if self.people is not None:
                return self.people(means, units.annotator[rows]).flatten(), means
            index = aspect.expand(means.shape[:-1])[..., None]
            more = means if log_variance is None else log_variance
            return means.gather(-1, index).flatten(), more.gather(-1, index).flatten()

        reward, more = scored(units.first)
        target = units.target[rows].expand(heads.options.members, -1).flatten()
        if units.kind == "pairs":
            other, other_more = scored(units.second)
            terms = {
                name: None if column is None else column[rows].expand(heads.options.members, -1).flatten()
                for name, column in (("margin", units.margin), ("weight", units.weight))
            }
            return self._of_gaps(reward - other, more, other_more, target, **terms)
        losses: dict[str, Callable[[], Tensor]] = {
            "squared": lambda: rating_loss(reward, target),
            "gaussian": lambda: gaussian_rating_loss(reward, more, target),
            "beta": lambda: beta_rating_loss(reward, more, target),
            "logistic": lambda: F.binary_cross_entropy_with_logits(reward, target),
        }
        return losses[self.loss]()

    def _of_gaps(
        self,
        gap: Tensor,
        more: Tensor,
        other: Tensor,
        target: Tensor,
        *,
        margin: Tensor | None,
        weight: Tensor | None,
    ) -> Tensor:
        if self.loss == "gaussian":
            return gaussian_bradley_terry_loss(gap, more.exp() + other.exp())
        if self.loss == "davidson":
            return tied_preference_loss(davidson_log_probs(gap, tie=self.tie), target)
        if self.loss == "rao-kupper":
            return tied_preference_loss(rao_kupper_log_probs(gap, threshold=self.threshold), target)
        lead: Tensor | float = self.margin_scale * margin if self.margin_scale and margin is not None else 0.0
        return bradley_terry_loss(gap, margin=lead, weight=weight)

    def _of_lists(
        self, heads: Heads, vectors: Vectors, lists: Lists, rows: Tensor, kept: Tensor | None
    ) -> Tensor:
        n = lists.media.shape[1]
        media = lists.media[rows]
        found = vectors.features(media, lists.prompt[rows][..., None].expand(media.shape))
        if kept is not None:
            found = torch.where(kept[..., None, :], found, heads.feature_mean)
        means, _ = heads(found.flatten(-3, -2))  # the samples of a list stand one after another
        K = heads.options.members
        ranks, mask = (values[rows].expand(K, -1, n).reshape(-1, n) for values in (lists.ranks, lists.mask))
        return plackett_luce_loss(means[..., 0].reshape(-1, n), ranks, mask=mask)


def _odin(
    heads: Heads, first: Tensor, second: Tensor, vectors: Vectors, units: Examples, rows: Tensor
) -> Tensor:
    assert vectors.nuisance is not None
    K, total = heads.options.members, []
    both = (torch.cat([first, second], -2) - heads.feature_mean) / heads.feature_std
    nuisance = torch.cat([vectors.nuisance[units.first[rows]], vectors.nuisance[units.second[rows]]], -1)
    for k in range(K):
        seen = (both[k] if both.ndim == 3 else both) * heads.kept[k]
        what = nuisance[k] if nuisance.ndim == 2 else nuisance
        # Without the published code's third correlation: it asks the sum of both heads, which explains the labels, to
        # be free of the nuisance that the labels have.
        total.append(odin_loss(seen, heads.weights[0][k].mT, what, sum_term=False))
    return torch.stack(total).mean()


def chosen_loss(loss: str, examples: Examples) -> str:
    """The loss that ``auto`` or a name stands for.

    Raises:
        ConfigError: a loss that is not for these data, or davidson without a tie.
    """
    fitting = LOSSES[examples.kind]
    if loss == "auto":
        return fitting[0]
    if loss not in fitting:
        raise ConfigError(f"--loss {loss} is not for {examples.kind}; take {' or '.join(fitting)}")
    if loss in TIED and bool((examples.target > 0).all()):
        raise ConfigError(
            f"--loss {loss} learns from ties, and there is none; rankings with equal ranks are ties, and pairs "
            "whose column verdict says tie or both_bad"
        )
    return loss


def unread_columns(loss: str, examples: Examples, *, margin_scale: float) -> list[str]:
    """One line for each column that a table of pairs has and the loss does not read.

    Raises:
        ConfigError: margins are asked for where there are none, or of a loss that reads none.
    """
    if margin_scale and (loss != "bradley-terry" or examples.margin is None):
        why = "the table has none" if loss == "bradley-terry" else f"this is {loss}"
        raise ConfigError(f"--margin-scale is for margins of pairs, by --loss bradley-terry, and {why}")
    said = []
    if examples.margin is not None and not margin_scale:
        way = " (--margin-scale reads it)" if loss == "bradley-terry" else ""
        said.append(f"the column margin is not read by --loss {loss}{way}")
    if examples.weight is not None and loss != "bradley-terry":
        said.append(f"the column strength is not read by --loss {loss}; bradley-terry weighs pairs by it")
    return said
