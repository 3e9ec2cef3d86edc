"""From scores to preferences: the samples of each prompt against each other, as pairs or as rankings."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mmalign.data.cells import plain_name, score_of, text_of
from mmalign.data.pairs import Pair, best_against_worst
from mmalign.data.rankings import Ranking
from mmalign.data.tables import is_file, listing, read_records
from mmalign.errors import ConfigError, DataError, ShapeError

Indices = list[tuple[int, int, int]]
"""(prompt, chosen, rejected)."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The scored samples of P prompts, each with at most G.

    Args:
        prompts: P, in the order of their first sample.
        media: P lists of files.
        scores: [P, G], higher is better, NaN where there is no sample or no score.
        reward: whose scores these are.
        unscored: samples without a score, or whose status says that it failed; they take no part.
    """

    prompts: tuple[str, ...]
    media: tuple[tuple[Path, ...], ...]
    scores: Tensor
    reward: str
    unscored: int


def read_scores(
    path: Path, *, reward: str | None = None, higher_is_better: bool = True, root: Path | None = None
) -> Groups:
    """The samples of a file that ``mmalign score`` wrote, by prompt.

    Args:
        path: jsonl, csv or parquet with the columns ``media, prompt, reward, score``.
        reward: whose scores; None where the file has those of one only.
        higher_is_better: whether a higher score is the better one; if not, ``scores`` are the negated ones.
        root: the folder that relative paths start from; by default the current one, as ``mmalign score`` had it.

    Raises:
        DataError: no rows, a missing column or value, or a medium that does not exist, with row and column.
        ConfigError: the file has other rewards than this, or several and none was named.
    """
    rows = [(number, row) for number, row in enumerate(read_records(path), 1)]
    if not rows:
        raise DataError("no scores in it", file=path)
    names = list(dict.fromkeys(text_of(row, "reward", path, number) for number, row in rows))
    if reward is None and len(names) > 1:
        raise ConfigError(f"{path} has scores of {listing(names)}; add --reward NAME")
    if reward is not None and reward not in names:
        raise ConfigError(f"{path} has no scores of '{reward}'; there are: {listing(names)}")
    wanted = reward or names[0]
    groups: dict[str, list[tuple[Path, float]]] = {}
    unscored = 0
    for number, row in rows:
        if row["reward"] != wanted:
            continue
        score = score_of(row, path, number)
        if score is None:
            unscored += 1
            continue
        medium = (root or Path()) / text_of(row, "media", path, number)
        if not is_file(medium):
            raise DataError(
                f"no such file: {plain_name(medium)}; is it --root?", file=path, row=number, column="media"
            )
        prompt = text_of(row, "prompt", path, number)
        groups.setdefault(prompt, []).append((medium, score if higher_is_better else -score))
    most = max((len(group) for group in groups.values()), default=0)
    scores = torch.full((len(groups), max(most, 2)), math.nan, dtype=torch.float64)
    for i, group in enumerate(groups.values()):
        scores[i, : len(group)] = torch.tensor([score for _, score in group], dtype=torch.float64)
    media = tuple(tuple(medium for medium, _ in group) for group in groups.values())
    return Groups(tuple(groups), media, scores, wanted, unscored)


def all_above_margin(scores: Tensor, *, margin: float = 0.0) -> Indices:
    """Every two samples of a prompt whose scores differ by more than a margin.

    Args:
        scores: [P, G], NaN where there is none.
        margin: in the unit of the scores; at 0, all pairs but those of equal scores.

    Returns:
        (prompt, chosen, rejected) as indices into P, G, G.

    Raises:
        ShapeError: ``scores`` is not [P, G].
        ConfigError: ``margin`` is negative.

    >>> all_above_margin(torch.tensor([[0.0, 2.0, 3.0]]), margin=1.0)
    [(0, 1, 0), (0, 2, 0)]
    """
    if scores.ndim != 2:
        raise ShapeError(f"scores: expected [P, G], got {list(scores.shape)}")
    if not margin >= 0:
        raise ConfigError(f"margin = {margin}, but it is at least 0")
    better = scores[:, :, None] - scores[:, None, :] > margin  # never where one is NaN
    return [(p, chosen, rejected) for p, chosen, rejected in better.nonzero().tolist()]


def west_of_n(scores: Tensor, *, keep: float = 0.25, log_likelihood: Tensor | None = None) -> Indices:
    """The best against the worst of N samples, for the prompts where the reward is surest.

        P(best over worst) = sigmoid(score of the best - score of the worst)

    kept where it is among the highest share ``keep`` of all prompts; sigmoid rises, so the difference itself is ranked.

    Args:
        scores: [P, N], NaN where there is none.
        keep: share of the prompts with a pair, in (0, 1]; at least one is kept.
        log_likelihood: [P, N], of the samples under the policy; if given, the mean over both sides has to be among
            the highest share ``keep`` too, so that rare samples are left out.

    Returns:
        (prompt, chosen, rejected) as indices into P, N, N, in the order of the prompts.

    Raises:
        ShapeError: ``scores`` is not [P, N] with N >= 2, or ``log_likelihood`` has another shape.
        ConfigError: ``keep`` is outside (0, 1].

    Source: Pace et al. 2024, West-of-N (arXiv:2401.12086).

    >>> west_of_n(torch.tensor([[0.0, 1.0], [5.0, 2.0], [4.0, 4.0]]), keep=0.5)
    [(1, 0, 1)]
    """
    if not 0 < keep <= 1:
        raise ConfigError(f"keep = {keep}, but it is a share in (0, 1]")
    if log_likelihood is not None and log_likelihood.shape != scores.shape:
        raise ShapeError(
            f"log_likelihood: expected [P, N] = {list(scores.shape)}, got {list(log_likelihood.shape)}"
        )
    pairs = best_against_worst(scores)
    kept = _surest(pairs, [float(scores[p, a] - scores[p, b]) for p, a, b in pairs], keep)
    if log_likelihood is not None:
        means = [float(log_likelihood[p, a] + log_likelihood[p, b]) / 2 for p, a, b in pairs]
        kept &= _surest(pairs, means, keep)
    return [pair for pair in pairs if pair in kept]


def _surest(pairs: Indices, values: Sequence[float], keep: float) -> set[tuple[int, int, int]]:
    order = sorted(range(len(pairs)), key=lambda i: -values[i])
    return {pairs[i] for i in order[: math.ceil(keep * len(pairs))]}


def ranks_of(scores: Tensor) -> Tensor:
    """The place of each sample in its prompt's order, 1 for the best; equal scores share the better place.

        rank[p, i] = 1 + number of j with score[p, j] > score[p, i]

    Args:
        scores: [P, G], NaN where there is none.

    Returns:
        [P, G], NaN where there is no score.

    >>> ranks_of(torch.tensor([[3.0, 5.0, 3.0, float("nan")]]))
    tensor([[2., 1., 2., nan]])
    """
    ranks = 1 + (scores[:, None, :] > scores[:, :, None]).sum(-1).to(scores.dtype)
    return ranks.where(~scores.isnan(), math.nan)


def as_pairs(groups: Groups, indices: Indices) -> list[Pair]:
    """Pairs with their margin, in the unit of the scores, and the reward as their source."""
    return [
        Pair(
            groups.prompts[p],
            groups.media[p][chosen],
            groups.media[p][rejected],
            float(groups.scores[p, chosen] - groups.scores[p, rejected]),
            source=groups.reward,
        )
        for p, chosen, rejected in indices
    ]


def as_rankings(groups: Groups) -> list[Ranking]:
    """The ranking of each prompt that has two samples or more which are not all equal."""
    found = []
    for prompt, media, ranks in zip(
        groups.prompts, groups.media, ranks_of(groups.scores).tolist(), strict=True
    ):
        places = tuple(ranks[: len(media)])
        if len(set(places)) > 1:
            found.append(Ranking(prompt, media, places, groups.reward))
    return found


BUILDERS: dict[str, Callable[..., Indices]] = {
    "all": all_above_margin,
    "best-worst": best_against_worst,
    "west-of-n": west_of_n,
}
"""By the name that ``mmalign pairs --by`` knows."""
