"""Split conformal prediction: an interval around a score that holds as often as promised, whatever the scorer."""

import math

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


def conformal_radius(residual: Tensor, *, miss: float = 0.1) -> float:
    """The half width with which new true scores are missed no more often than promised.

        the ceil((n + 1) * (1 - miss))-th smallest |residual|;   infinite where that is beyond n

    Args:
        residual: [n], truth less prediction on held-out samples; or divided by the predicted std, for a radius in stds.
        miss: share of new samples that may lie outside, inside (0, 1).

    Returns:
        At least 0. It holds on average over samples like the held-out ones, not for each, and not elsewhere.

    Raises:
        ShapeError: not [n].
        ConfigError: ``miss`` is not inside (0, 1), or a residual is NaN.

    Source: Vovk et al. 2005; Angelopoulos and Bates 2021, A Gentle Introduction to Conformal Prediction, section 1
    (arXiv:2107.07511).

    >>> import torch
    >>> conformal_radius(torch.arange(-9.0, 0.0)), conformal_radius(torch.arange(8.0))
    (9.0, inf)
    """
    if residual.ndim != 1:
        raise ShapeError(f"residual: expected [n], got {list(residual.shape)}")
    if not 0 < miss < 1:
        raise ConfigError(f"miss = {miss}, but it is inside (0, 1)")
    if residual.isnan().any():
        raise ConfigError("residual: some are NaN; leave out what has no score")
    # Rounding must not push (n + 1) * (1 - miss) = 9.000000000000002 to 10.
    rank = math.ceil(round((len(residual) + 1) * (1 - miss), 9))
    return float(residual.abs().sort().values[rank - 1]) if rank <= len(residual) else math.inf


def conformal_interval(prediction: Tensor, radius: float, std: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The interval's ends; the lower one is a pessimistic reward.

        prediction -+ radius,   or prediction -+ radius * std

    Args:
        prediction: [B], NaN where there is none.
        radius: of ``conformal_radius``.
        std: [B], where the residuals were divided by it.

    Returns:
        Low and high end, [B] each.

    Raises:
        ShapeError: ``std`` is not as ``prediction``.
        ConfigError: ``radius`` is negative.

    Source: as ``conformal_radius``.

    >>> import torch
    >>> conformal_interval(torch.tensor([1.0]), 2.0, torch.tensor([0.25]))
    (tensor([0.5000]), tensor([1.5000]))
    """
    if not radius >= 0:
        raise ConfigError(f"radius = {radius}, but it is at least 0")
    if std is not None and std.shape != prediction.shape:
        raise ShapeError(f"std: expected {list(prediction.shape)} as prediction, got {list(std.shape)}")
    width = radius if std is None else radius * std
    return prediction - width, prediction + width
