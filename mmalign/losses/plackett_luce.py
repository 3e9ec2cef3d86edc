"""Plackett–Luce: the likelihood of a ranking of K samples, ties and unranked places included."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape

MOST_TIED = 4
"""Samples that may share a rank: all their orders are tried, 4! of them."""


def plackett_luce_log_prob(
    reward: Tensor, ranks: Tensor, *, mask: Tensor | None = None, top: int | None = None
) -> Tensor:
    """Log-probability that samples, drawn one by one in proportion to exp(reward), come in this order.

        sum_{i = 1..K-1} [ reward[(i)] - log sum_{j >= i} exp(reward[(j)]) ],   (1), (2), ... from best to worst

    Of samples that share a rank any order will do, and its probability is the mean over all of them.

    Args:
        reward: [B, K], log odds. Where ``mask`` is False it may be NaN.
        ranks: [B, K], any integers, the smaller the better.
        mask: [B, K], booleans, False on padding; all count if not given.
        top: how many places are ranked; the order of the rest is not known, only that they come after. None for all.

    Returns:
        [B], nats; with K = 2 the log sigmoid of Bradley–Terry, at equal rewards -log K!; 0 for a single sample.

    Raises:
        ShapeError: not [B, K], or the shapes differ.
        ConfigError: more than ``MOST_TIED`` share a rank (split such a row into pairs), a tie stretches over the last
            ranked place, ``top`` is below 1, or ``mask`` is not of booleans.

    Source: Plackett 1975, Luce 1959; Zhu et al. 2023, Principled RLHF from Pairwise or K-wise Comparisons, section 4
    (arXiv:2301.11270), who find the K-wise likelihood more efficient than its split into pairs. Ties are ours.

    >>> plackett_luce_log_prob(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0, 1, 2]]))
    tensor([-0.7209])
    """
    reward, ranks, mask = _lists(reward, ranks, mask)
    if top is not None and top < 1:
        raise ConfigError(f"top = {top}, but at least the best is ranked")
    last = torch.iinfo(torch.int64).max
    places, order = ranks.long().masked_fill(~mask, last).sort(dim=1, stable=True)
    ordered, counts = reward.gather(1, order), mask.gather(1, order)
    left = _log_sum_of_rest(ordered, counts)
    K = reward.shape[1]
    if top is not None:
        counts = counts & (torch.arange(K, device=reward.device) < top)
    log_prob = (ordered - left).masked_fill(~counts, 0).sum(1)
    tied = (places[:, 1:] == places[:, :-1]) & (places[:, 1:] != last)
    rows = tied.any(1).nonzero()[:, 0].tolist()
    if not rows:
        return log_prob
    parts = list(log_prob.unbind())
    for row in rows:
        length = int(mask[row].sum())
        parts[row] = _with_ties(ordered[row, :length], places[row, :length].tolist(), top or length)
    return torch.stack(parts)


def plackett_luce_loss(
    reward: Tensor, ranks: Tensor, *, mask: Tensor | None = None, top: int | None = None
) -> Tensor:
    """Fit rewards to rankings: minus the mean of ``plackett_luce_log_prob``.

    Args:
        reward: [B, K], log odds.
        ranks: [B, K], integers, the smaller the better; equal ones are ties.
        mask: [B, K], booleans, False on padding.
        top: how many places are ranked.

    Returns:
        Scalar, nats per ranking.

    Raises:
        ShapeError: as ``plackett_luce_log_prob``.
        ConfigError: as ``plackett_luce_log_prob``.

    Source: as ``plackett_luce_log_prob``.

    >>> plackett_luce_loss(torch.zeros(1, 3), torch.tensor([[0, 1, 2]]))  # log 3!
    tensor(1.7918)
    """
    return -plackett_luce_log_prob(reward, ranks, mask=mask, top=top).mean()


def pairwise_ranking_loss(reward: Tensor, ranks: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """A ranking as all its pairs, each by Bradley–Terry; a ranking counts once, however many pairs it has.

        mean_b mean_{i, j: ranks[b, i] < ranks[b, j]} -log sigmoid(reward[b, i] - reward[b, j])

    Args:
        reward: [B, K], log odds.
        ranks: [B, K], integers, the smaller the better; equal ones make no pair.
        mask: [B, K], booleans, False on padding.

    Returns:
        Scalar, nats per pair; all pairs of a row are in one batch, without which the model overfits.

    Raises:
        ShapeError: not [B, K], or the shapes differ.
        ConfigError: a row has no pair, or ``mask`` is not of booleans.

    Source: Ouyang et al. 2022, InstructGPT, section 3.5 (arXiv:2203.02155); MLE_2 of Zhu et al. 2023
    (arXiv:2301.11270).

    >>> pairwise_ranking_loss(torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0, 1, 2]]))  # (2 * 0.3133 + 0.1269) / 3
    tensor(0.2512)
    """
    reward, ranks, mask = _lists(reward, ranks, mask)
    pair = (ranks[:, :, None] < ranks[:, None, :]) & mask[:, :, None] & mask[:, None, :]
    count = pair.sum((1, 2))
    if (count == 0).any():
        raise ConfigError(f"ranks: row {int((count == 0).nonzero()[0])} ranks nothing; leave it out")
    loss = -F.logsigmoid(reward[:, :, None] - reward[:, None, :])
    return (loss.masked_fill(~pair, 0).sum((1, 2)) / count).mean()


def _log_sum_of_rest(ordered: Tensor, counts: Tensor) -> Tensor:
    """Log of the sum of exp(reward) from each place to the last that counts."""
    # A finite floor and not -inf, whose differences have no gradient.
    low = ordered.masked_fill(~counts, torch.finfo(ordered.dtype).min / 2)
    return low.flip(1).logcumsumexp(1).flip(1)


def _with_ties(reward: Tensor, places: list[int], top: int) -> Tensor:
    """The same of one row without padding; what is left after a block does not depend on the order inside it."""
    total, start, K = reward.new_zeros(()), 0, len(places)
    while start < min(top, K):
        stop = start + places.count(places[start])
        if stop > top:
            raise ConfigError(
                f"ranks: places {start + 1} to {stop} are tied, across the last ranked place, {top}"
            )
        if stop - start > MOST_TIED:
            raise ConfigError(
                f"ranks: {stop - start} samples share a rank; with more than {MOST_TIED}, use pairs"
            )
        orders = [
            _first_places(reward[[*order, *range(stop, K)]], stop - start)
            for order in itertools.permutations(range(start, stop))
        ]
        total = total + torch.stack(orders).logsumexp(0) - math.log(len(orders))
        start = stop
    return total


def _first_places(reward: Tensor, count: int) -> Tensor:
    left = reward.flip(0).logcumsumexp(0).flip(0)
    return (reward - left)[:count].sum()


def _lists(reward: Tensor, ranks: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    if reward.ndim != 2:
        raise ShapeError(f"reward: expected [B, K], got {list(reward.shape)}")
    check_shape(ranks, reward.shape, name="ranks", letters="[B, K]")
    if ranks.is_floating_point() or ranks.dtype == torch.bool:
        raise ConfigError(f"ranks: expected integers, the smaller the better, got {ranks.dtype}")
    if mask is None:
        return reward, ranks, torch.ones_like(reward, dtype=torch.bool)
    check_shape(mask, reward.shape, name="mask", letters="[B, K]")
    if mask.dtype != torch.bool:
        raise ConfigError(f"mask: expected booleans, got {mask.dtype}; give mask.bool()")
    return reward.masked_fill(~mask, 0), ranks, mask
