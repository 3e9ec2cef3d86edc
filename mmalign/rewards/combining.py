"""The numbers of several rewards as one: pure functions of tensors, for the wrappers in ``compose`` and for loops.

Every reward here is turned so that higher is better. A score that is missing (NaN) takes no part: it is never a 0.
"""

import math
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


def standardised(scores: Tensor, *, mean: float, std: float, most: float | None = None) -> Tensor:
    """Scores of one reward in a scale that others share, from statistics that were measured once.

        clip((scores - mean) / std, -most, most)

    Args:
        scores: any shape.
        mean: of the scores of reference samples.
        std: of the same.
        most: None for no clip; 5 is usual.

    Raises:
        ConfigError: ``std`` or ``most`` is not positive.

    >>> standardised(torch.tensor([20.0, 22.0]), mean=21.0, std=0.5)
    tensor([-2.,  2.])
    """
    if not std > 0 or (most is not None and not most > 0):
        raise ConfigError(f"std = {std} and most = {most}, but both are positive")
    scaled = (scores - mean) / std
    return scaled if most is None else scaled.clamp(-most, most)


def within_groups(
    scores: Tensor, groups: Sequence[Hashable], *, how: str = "z", least: float = 1e-6
) -> Tensor:
    """Each score beside those of its group, over the group's scores that are there.

        z:              (r - mean) / std, by the population std; 0 where std < least
        rank:           (number below + number equal / 2) / (n - 1), itself not counted: 0 the worst, 1 the best
        leave-one-out:  r - mean of the others

    Args:
        scores: [B], NaN where there is none.
        groups: B names; a group is what has one name.
        how: "z", "rank" or "leave-one-out".
        least: the std below which a group counts as equal, in the unit of the scores.

    Returns:
        [B], NaN where there is no score, or no other of its group has one.

    Raises:
        ShapeError: ``scores`` is not [B] with B groups.
        ConfigError: ``how`` is another word.

    >>> within_groups(torch.tensor([1.0, 3.0, 5.0]), ["a", "a", "b"])
    tensor([-1.,  1., nan])
    """
    if scores.ndim != 1 or len(groups) != len(scores):
        raise ShapeError(f"scores: expected [B] with B = {len(groups)} groups, got {list(scores.shape)}")
    if how not in ("z", "rank", "leave-one-out"):
        raise ConfigError(f"how = '{how}', expected z, rank or leave-one-out")
    found = torch.full_like(scores, math.nan)
    members: dict[Hashable, list[int]] = {}
    for i, name in enumerate(groups):
        if not math.isnan(scores[i]):
            members.setdefault(name, []).append(i)
    for rows in members.values():
        if len(rows) > 1:
            found[rows] = _beside(scores[rows], how, least)
    return found


def _beside(r: Tensor, how: str, least: float) -> Tensor:
    n = len(r)
    if how == "leave-one-out":
        return r - (r.sum() - r) / (n - 1)
    if how == "rank":
        below = (r[None] < r[:, None]).sum(1) + ((r[None] == r[:, None]).sum(1) - 1) / 2
        return below.to(r.dtype) / (n - 1)
    std = r.std(correction=0)
    return torch.zeros_like(r) if std < least else (r - r.mean()) / std


def contrastive(scores: Tensor, baseline: Tensor, *, reduce: str = "mean") -> Tensor:
    """How much better than the untrained policy on the same prompt.

        score[b] - mean_k baseline[b, k]

    Args:
        scores: [B].
        baseline: [B, K], of the policy before training; with K = 0 the scores stay as they are. NaN takes no part.
        reduce: "mean", "min" or "max" over K.

    Returns:
        [B], in the unit of the scores; NaN where no baseline of a prompt has a score.

    Raises:
        ShapeError: not [B] and [B, K].
        ConfigError: ``reduce`` is another word.

    >>> contrastive(torch.tensor([3.0, 3.0]), torch.tensor([[1.0, 2.0], [3.0, float("nan")]]))
    tensor([1.5000, 0.0000])
    """
    if baseline.ndim != 2 or scores.shape != baseline.shape[:1]:
        raise ShapeError(
            f"expected scores [B] and baseline [B, K], got {list(scores.shape)} and {list(baseline.shape)}"
        )
    if reduce not in ("mean", "min", "max"):
        raise ConfigError(f"reduce = '{reduce}', expected mean, min or max")
    if baseline.shape[1] == 0:
        return scores
    if reduce == "mean":
        return scores - baseline.nanmean(1)
    gone = math.inf if reduce == "min" else -math.inf
    filled = baseline.where(~baseline.isnan(), gone)
    best = filled.amin(1) if reduce == "min" else filled.amax(1)
    return scores - best.where(best.isfinite(), math.nan)


def multipliers(u: Tensor, *, kind: str) -> Tensor:
    """Lagrange multipliers from their free parameters.

        equality:    tanh(u), in (-1, 1): a reward above its threshold is pushed down
        inequality:  sigmoid(u), in (0, 1): it may be above

    Raises:
        ConfigError: ``kind`` is another word.

    >>> multipliers(torch.tensor([0.5]), kind="equality")
    tensor([0.4621])
    """
    if kind == "equality":
        return u.tanh()
    if kind == "inequality":
        return u.sigmoid()
    raise ConfigError(f"kind = '{kind}', expected equality or inequality")


def lagrange_mix(main: Tensor, others: Tensor, u: Tensor, *, kind: str) -> Tensor:
    """Advantages of a main reward and of n constrained ones as one.

        (n - sum_i m[i]) * main[b] + sum_i m[i] * others[b, i],   m = multipliers(u)

    Args:
        main: [B], standardised.
        others: [B, n], each standardised for itself.
        u: [n], learned by ``lagrange_loss``.
        kind: "equality" or "inequality".

    Returns:
        [B]; the multipliers are detached.

    Raises:
        ShapeError: not [B], [B, n] and [n].

    Source: Moskovitz et al. 2023, Confronting Reward Model Overoptimization with Constrained RLHF (arXiv:2310.04373).

    >>> lagrange_mix(torch.tensor([2.0]), torch.tensor([[5.0]]), torch.zeros(1), kind="equality")
    tensor([2.])
    """
    if main.ndim != 1 or others.shape != (len(main), len(u)):
        raise ShapeError(
            f"expected main [B], others [B, n] and u [n], got {list(main.shape)}, {list(others.shape)}, {list(u.shape)}"
        )
    m = multipliers(u.detach(), kind=kind).to(main)
    return (len(u) - m.sum()) * main + others @ m


def lagrange_loss(u: Tensor, mean_score: Tensor, thresholds: Tensor, *, kind: str) -> Tensor:
    """What the multipliers minimise: it raises the one of a reward that is below its threshold.

        sum_i m[i] * (mean_score[i] - threshold[i]),   m = multipliers(u)

    Args:
        u: [n], with gradient.
        mean_score: [n], of the current samples; detached.
        thresholds: [n], in the same units.
        kind: "equality" or "inequality".

    Returns:
        Scalar.

    Raises:
        ShapeError: not three times [n].

    Source: as ``lagrange_mix``.
    """
    if u.ndim != 1 or not u.shape == mean_score.shape == thresholds.shape:
        raise ShapeError(
            f"expected three times [n], got {list(u.shape)}, {list(mean_score.shape)}, {list(thresholds.shape)}"
        )
    return (multipliers(u, kind=kind) * (mean_score.detach() - thresholds.detach())).sum()


def maxmin_weights(weights: Tensor, mean_score: Tensor, *, rate: float = 0.1) -> Tensor:
    """Weights of groups of people, one step on: who is worst off counts more.

        w[u] * exp(-rate * mean_score[u]) / sum over all u

    Args:
        weights: [U], positive, their sum 1.
        mean_score: [U], of the current samples by each group's reward, in one scale.
        rate: of the step.

    Returns:
        [U], positive, their sum 1.

    Raises:
        ShapeError: not twice [U].

    Source: multiplicative weights; for the objective of Chakraborty et al. 2024, MaxMin-RLHF (arXiv:2402.08925), whose
    algorithm takes the worst group alone: the limit of a large ``rate``.

    >>> maxmin_weights(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 10.0]))
    tensor([0.7311, 0.2689])
    """
    if weights.ndim != 1 or weights.shape != mean_score.shape:
        raise ShapeError(f"expected twice [U], got {list(weights.shape)} and {list(mean_score.shape)}")
    return (weights.log() - rate * mean_score).softmax(0)


def hybrid(rule: Tensor, confidence: Tensor, model: Tensor) -> Tensor:
    """A rule where it can be trusted, and a model elsewhere.

        confidence * rule + (1 - confidence) * model;   model where the rule has no score

    Args:
        rule: [B], NaN where it does not apply.
        confidence: [B] in [0, 1]; 1 for exact checks.
        model: [B].

    Raises:
        ShapeError: not three times [B].
        ConfigError: a confidence is outside [0, 1].

    >>> hybrid(torch.tensor([1.0, float("nan")]), torch.tensor([0.75, 1.0]), torch.tensor([0.0, 0.5]))
    tensor([0.7500, 0.5000])
    """
    if rule.ndim != 1 or not rule.shape == confidence.shape == model.shape:
        raise ShapeError(
            f"expected three times [B], got {list(rule.shape)}, {list(confidence.shape)}, {list(model.shape)}"
        )
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ConfigError("confidence: expected numbers in [0, 1]")
    mixed = torch.where(confidence == 1, rule, confidence * rule + (1 - confidence) * model)
    return torch.where(rule.isnan() | (confidence == 0), model, mixed)
