"""Which samples of a group are worth training on, and what choosing the best of n does."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.losses.shapes import check_shape

FilterRule = Literal["solved", "strict"]
"""Drop a group whose rewards hardly differ *and* are high already, or one for which either holds."""


def best_and_worst(scores: Tensor, *, keep: int) -> Tensor:
    """The top and the bottom half of what is kept of each group; the middle teaches least.

    Args:
        scores: [P, G].
        keep: how many of the G samples, an even number.

    Returns:
        [P, keep], indices into G: the keep / 2 best, best first, then the keep / 2 worst, worst last. A sample comes
        once; of equal scores the earlier counts as the better.

    Raises:
        ShapeError: ``scores`` is not [P, G].
        ConfigError: ``keep`` is odd, or not from 2 to G.

    Source: the code of Xue et al. 2025, DanceGRPO (arXiv:2505.07818), whose groups here stay with their prompt.

    >>> best_and_worst(torch.tensor([[3.0, 9.0, 1.0, 5.0]]), keep=2)
    tensor([[1, 2]])
    """
    if scores.ndim != 2:
        raise ShapeError(f"scores: expected [P, G], got {list(scores.shape)}")
    G = scores.shape[1]
    if keep % 2 or not 2 <= keep <= G:
        raise ConfigError(f"keep = {keep}, but it is an even number from 2 to the {G} samples of a group")
    order = scores.argsort(dim=1, descending=True, stable=True)
    return torch.cat([order[:, : keep // 2], order[:, G - keep // 2 :]], 1)


def filter_groups(
    rewards: Tensor, *, rule: FilterRule = "solved", std_min: float = 0.05, mean_max: float = 0.9
) -> Tensor:
    """Which prompts still teach something.

        drop[p] = std_g r[p] < std_min and mean_g r[p] > mean_max      "solved"
        drop[p] = std_g r[p] <= std_min or mean_g r[p] >= mean_max     "strict"

    "solved" keeps the hard prompts whose rewards are equally low; "strict" drops them too.

    Args:
        rewards: [P, G], G samples for each of P prompts, in [0, 1] for the defaults to make sense.
        rule: which of the two.
        std_min: population std, below which rewards hardly differ.
        mean_max: mean, above which the prompt is solved.

    Returns:
        [P], booleans, True where the group is kept.

    Raises:
        ShapeError: ``rewards`` is not [P, G].
        UnknownNameError: ``rule`` is neither.

    Source: the code of Li et al. 2025, UniWorld-V2 (arXiv:2510.16888), which has both: "solved" in its statistics, as
    its text says, "strict" in its training mask.

    >>> filter_groups(torch.tensor([[0.95, 0.95], [0.1, 0.1], [0.0, 1.0]]))
    tensor([False,  True,  True])
    """
    if rewards.ndim != 2:
        raise ShapeError(f"rewards: expected [P, G], got {list(rewards.shape)}")
    std, mean = rewards.std(1, correction=0), rewards.mean(1)
    match rule:
        case "solved":
            return ~((std < std_min) & (mean > mean_max))
        case "strict":
            return (std > std_min) & (mean < mean_max)
    raise UnknownNameError("filter rule", rule, get_args(FilterRule))


def kept_mean(values: Tensor, keep: Tensor, *, total: int | None = None) -> Tensor:
    """The mean of the samples that were kept; 0, with a gradient of 0, if none was.

        sum_{b: keep[b]} values[b] / max(total, 1)

    Args:
        values: [B], a loss per sample.
        keep: [B], booleans.
        total: samples kept in the whole batch, over all micro-batches and devices, whose losses are then added up;
            those of ``keep`` if not given.

    Returns:
        Scalar, in the unit of ``values``.

    Raises:
        ShapeError: ``keep`` is not as ``values``, or that is not [B].
        ConfigError: ``keep`` is not of booleans, or ``total`` is smaller than its own count.

    Source: the code of Li et al. 2025, UniWorld-V2 (arXiv:2510.16888).

    >>> kept_mean(torch.tensor([1.0, 3.0, 8.0]), torch.tensor([True, True, False]))
    tensor(2.)
    """
    check_shape(values, values.shape[:1], name="values", letters="[B]")
    check_shape(keep, values.shape, name="keep", letters="[B]")
    if keep.dtype != torch.bool:
        raise ConfigError(
            f"keep: expected booleans, True on what is kept, got {keep.dtype}; give keep.bool()"
        )
    own = int(keep.sum())
    if total is not None and total < own:
        raise ConfigError(
            f"total = {total}, but here alone {own} are kept; give the count of the whole batch"
        )
    return values.masked_fill(~keep, 0).sum() / max(own if total is None else total, 1)


def best_of_n_kl(n: int) -> float:
    """How far the best of n samples lies from the generator that drew them.

        KL = log n - (n - 1) / n

    Exact where no two samples have one reward; with ties an upper bound. It is of whole samples, not of tokens.

    Args:
        n: samples to choose from.

    Returns:
        Nats; 0 for n = 1.

    Raises:
        ConfigError: ``n`` is below 1.

    Source: Beirami et al. 2024, Theoretical guarantees on the best-of-n alignment policy, section 3
    (arXiv:2401.01879), who show that it is a bound.

    >>> round(best_of_n_kl(16), 6)
    1.835089
    """
    if n < 1:
        raise ConfigError(f"n = {n}, but the best is of at least 1 sample")
    return math.log(n) - (n - 1) / n


def best_of_n_mean(rewards: Tensor, *, n: int) -> Tensor:
    """What the best of n samples would score on average, from M >= n samples and without bias.

        sum_{i = n..M} C(i - 1, n - 1) / C(M, n) * r_(i),  r_(1) <= ... <= r_(M)

    It is the mean over all subsets of n, so it uses every sample where one draw of n would throw M - n away.

    Args:
        rewards: [P, M], M samples for each of P prompts.
        n: samples to choose from.

    Returns:
        [P], in the unit of ``rewards``, detached.

    Raises:
        ShapeError: ``rewards`` is not [P, M].
        ConfigError: ``n`` is not from 1 to M.

    Source: the order statistics of a sample without replacement; Nakano et al. 2021, WebGPT, appendix I
    (arXiv:2112.09332).

    >>> best_of_n_mean(torch.tensor([[1.0, 2.0, 4.0]]), n=2)  # (max(1, 2) + max(1, 4) + max(2, 4)) / 3
    tensor([3.3333])
    """
    if rewards.ndim != 2:
        raise ShapeError(f"rewards: expected [P, M], got {list(rewards.shape)}")
    return rewards.detach().sort(1).values @ rewards.new_tensor(best_of_n_weights(rewards.shape[1], n=n))


def best_of_n_weights(samples: int, *, n: int) -> list[float]:
    """How often each of M samples is the best of n, over all subsets of n.

        C(i - 1, n - 1) / C(M, n),   i from 1, the worst, to M

    Args:
        samples: M.
        n: samples to choose from.

    Returns:
        M shares, their sum 1.

    Raises:
        ConfigError: ``n`` is not from 1 to M.

    Source: as ``best_of_n_mean``.

    >>> best_of_n_weights(3, n=2)
    [0.0, 0.3333333333333333, 0.6666666666666666]
    """
    if not 1 <= n <= samples:
        raise ConfigError(f"n = {n}, but it is from 1 to the {samples} samples that there are")
    return [math.comb(rank - 1, n - 1) / math.comb(samples, n) for rank in range(1, samples + 1)]
