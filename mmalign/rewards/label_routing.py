"""Which labels of a machine to give to people: where the gain is predicted to be largest, or the label looks wrong."""

import itertools

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


def mixture_design(counts: Tensor, *, quadratic: bool = False) -> Tensor:
    """Regressors of a mixture: how many human labels it has of each kind.

        1, counts[f] for each feature f;   quadratic: and counts[f] * counts[g] for each f <= g

    Args:
        counts: [n, F], of n mixtures, or the features of n single instances.
        quadratic: with the products.

    Returns:
        [n, 1 + F], or [n, 1 + F + F (F + 1) / 2].

    Raises:
        ShapeError: not [n, F].

    Source: Miranda et al. 2024, Hybrid Preferences, section 3 (arXiv:2410.19133).

    >>> mixture_design(torch.tensor([[2.0, 3.0]]), quadratic=True)
    tensor([[1., 2., 3., 4., 6., 9.]])
    """
    if counts.ndim != 2:
        raise ShapeError(f"counts: expected [n, F], got {list(counts.shape)}")
    columns = [torch.ones_like(counts[:, 0]), *counts.unbind(1)]
    if quadratic:
        pairs = itertools.combinations_with_replacement(range(counts.shape[1]), 2)
        columns += [counts[:, f] * counts[:, g] for f, g in pairs]
    return torch.stack(columns, 1)


def fit_gain(counts: Tensor, score: Tensor, *, quadratic: bool = False, ridge: float = 0.0) -> Tensor:
    """Least squares of what reward models are worth on how many human labels of each kind they learned from.

        argmin over w of |design w - score|^2 + ridge * |w without the intercept|^2

    Args:
        counts: [n, F], of the human-labelled part of each of n mixtures.
        score: [n], of the reward model trained on it, on a benchmark.
        quadratic: with products of counts.
        ridge: at least 0.

    Returns:
        [columns of ``mixture_design``], in float64; the least of equally good ones.

    Raises:
        ShapeError: not [n, F] and [n].
        ConfigError: ``ridge`` is negative, or a number is NaN.

    Source: Miranda et al. 2024, section 3 (arXiv:2410.19133).
    """
    design = mixture_design(counts.double(), quadratic=quadratic)
    if score.shape != counts.shape[:1]:
        raise ShapeError(f"score: expected [n] = [{len(counts)}], got {list(score.shape)}")
    if ridge < 0 or design.isnan().any() or score.isnan().any():
        raise ConfigError(f"ridge = {ridge} is at least 0, and neither counts nor scores are NaN")
    penalty = torch.eye(design.shape[1], dtype=design.dtype, device=design.device) * ridge**0.5
    penalty[0] = 0
    rows = torch.cat([design, penalty]) if ridge else design
    wanted = torch.cat([score.double(), penalty.new_zeros(len(penalty))]) if ridge else score.double()
    # gelsd cuts off what rounding makes of dependent columns, such as one-hot features that add up.
    return (
        torch.linalg.lstsq(rows.cpu(), wanted[:, None].cpu(), driver="gelsd").solution[:, 0].to(counts.device)
    )


def predicted_gain(weights: Tensor, features: Tensor, *, quadratic: bool = False) -> Tensor:
    """What a human label of one instance adds to an all-machine data set, by the fit.

        f(features[i]) - f(0),   so that the intercept cancels

    Args:
        weights: of ``fit_gain``.
        features: [n, F], one-hot of each instance.
        quadratic: as in the fit.

    Returns:
        [n], in the unit of the score.

    Raises:
        ShapeError: not [n, F], or the weights are of another design.

    Source: Miranda et al. 2024, section 3 (arXiv:2410.19133).

    >>> predicted_gain(torch.tensor([9.0, 1.0, -2.0]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    tensor([ 1., -1.])
    """
    design = mixture_design(features.to(weights), quadratic=quadratic)
    if weights.shape != design.shape[1:]:
        raise ShapeError(
            f"weights: expected [{design.shape[1]}] for these features, got {list(weights.shape)}"
        )
    return design[:, 1:] @ weights[1:]


def route_to_people(gain: Tensor, *, budget: int, least: float | None = None) -> Tensor:
    """The instances whose human labels are worth most.

    Args:
        gain: [n], of ``predicted_gain``.
        budget: labels that people can give, from 0.
        least: only where the gain is above it; 0 leaves out what people would make worse.

    Returns:
        Indices, best first, at most ``budget``; of equals the earlier.

    Raises:
        ShapeError: not [n].
        ConfigError: ``budget`` is negative, or a gain is NaN.

    Source: Miranda et al. 2024, section 3 (arXiv:2410.19133).

    >>> route_to_people(torch.tensor([0.1, 0.5, -0.2]), budget=3, least=0.0)
    tensor([1, 0])
    """
    if gain.ndim != 1:
        raise ShapeError(f"gain: expected [n], got {list(gain.shape)}")
    if budget < 0 or gain.isnan().any():
        raise ConfigError(f"budget = {budget} is at least 0, and no gain is NaN")
    order = gain.argsort(descending=True, stable=True)[:budget]
    return order if least is None else order[gain[order] > least]


def knee(values: Tensor) -> int:
    """Where a curve turns: the point furthest from the chord between its ends.

        argmax_i | y[i] - (y[0] + (y[n - 1] - y[0]) * i / (n - 1)) |

    Args:
        values: [n], sorted, such as the margins r(chosen) - r(rejected) of machine labels.

    Returns:
        Its index, the first of equals; for RLTHF's two knees, call it on either side of the middle.

    Raises:
        ShapeError: not [n] with n >= 3.
        ConfigError: a value is NaN.

    Source: the idea is of Xu et al. 2025, RLTHF (arXiv:2502.13417); distance to the chord is Satopää et al. 2011.

    >>> knee(torch.tensor([0.0, 3.0, 3.2, 3.4, 3.6]))
    1
    """
    if values.ndim != 1 or len(values) < 3:
        raise ShapeError(f"values: expected [n] with n >= 3, got {list(values.shape)}")
    if values.isnan().any():
        raise ConfigError("values: some are NaN; leave out what has no score")
    y = values.double()
    share = torch.linspace(0, 1, len(y), dtype=y.dtype, device=y.device)
    return int((y - (y[0] + (y[-1] - y[0]) * share)).abs().argmax())


def doubtful_labels(margins: Tensor, *, budget: int) -> tuple[Tensor, float]:
    """The machine's labels that a reward trained on them believes least, and where belief begins.

    Sorted, margins rise steeply where labels are wrong, flatten, and rise again where they are trusted; the knee of
    the lower half is the first turn. Asked are the lowest margins, whatever side of the knee they lie on.

    Args:
        margins: [n], r(chosen) - r(rejected) of each label.
        budget: labels that people can give, from 0.

    Returns:
        Indices, lowest margin first, at most ``budget``, of equals the earlier; and the margin at the knee, NaN for
        n < 6.

    Raises:
        ShapeError: not [n].
        ConfigError: ``budget`` is negative, or a margin is NaN.

    Source: Xu et al. 2025, RLTHF (arXiv:2502.13417), whose share near the knee and whose factors are its own.

    >>> doubtful_labels(torch.tensor([2.0, -1.0, 0.5]), budget=2)[0]
    tensor([1, 2])
    """
    if margins.ndim != 1:
        raise ShapeError(f"margins: expected [n], got {list(margins.shape)}")
    if budget < 0 or margins.isnan().any():
        raise ConfigError(f"budget = {budget} is at least 0, and no margin is NaN")
    order = margins.argsort(stable=True)
    lower = margins[order[: (len(order) + 1) // 2]]
    turn = float(lower[knee(lower)]) if len(lower) >= 3 else float("nan")
    return order[:budget], turn
