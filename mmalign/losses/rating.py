"""Fit a reward to ratings: a number, a normal or a beta distribution per sample."""

import math

import torch
from torch import Tensor

from mmalign.errors import ConfigError
from mmalign.losses.bradley_terry import only_valid
from mmalign.losses.selection import kept_mean
from mmalign.losses.shapes import check_shape


def rating_loss(prediction: Tensor, rating: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Squared error of a rating.

        mean_{i: valid[i]} (prediction[i] - rating[i])^2

    Args:
        prediction: [B] or [B, D] for D aspects, in the unit of the ratings.
        rating: as it; detached.
        valid: as it, booleans, False where nobody rated, where anything may stand; all are if not given.

    Returns:
        Scalar, squared unit of the ratings.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: ``valid`` is not of booleans.

    >>> rating_loss(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 4.0]))
    tensor(2.)
    """
    prediction, rating = _pair(prediction, rating, valid)
    return _mean((prediction - rating) ** 2, valid)


def gaussian_rating_loss(
    mean: Tensor, log_variance: Tensor, rating: Tensor, *, valid: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of a rating under a normal distribution: the model says how sure it is.

        mean_{i: valid[i]} 1/2 * [ log(2 pi) + log_variance[i] + (rating[i] - mean[i])^2 * exp(-log_variance[i]) ]

    Args:
        mean: [B] or [B, D], in the unit of the ratings.
        log_variance: as it, of the squared unit; the spread of people, not the model's ignorance.
        rating: as it; detached.
        valid: as it, booleans; all are if not given.

    Returns:
        Scalar, nats; at a given error least where the variance is the squared error.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: ``valid`` is not of booleans.

    Source: Nix and Weigend 1994; Kendall and Gal 2017, section 2.2 (arXiv:1703.04977).

    >>> gaussian_rating_loss(torch.tensor([1.0]), torch.tensor([0.0]), torch.tensor([3.0]))  # log(2 pi) / 2 + 2
    tensor(2.9189)
    """
    mean, rating = _pair(mean, rating, valid)
    check_shape(log_variance, mean.shape, name="log_variance", letters="that of mean")
    log_variance = only_valid(log_variance, valid, name="log_variance")
    error = (rating - mean) ** 2 * torch.exp(-log_variance)
    return _mean((math.log(2 * math.pi) + log_variance + error) / 2, valid)


def beta_rating_loss(
    mean_logit: Tensor, log_concentration: Tensor, share: Tensor, *, valid: Tensor | None = None
) -> Tensor:
    """Negative log-likelihood of a bounded rating under a beta distribution.

        m = sigmoid(mean_logit),  c = exp(log_concentration),  a = m * c,  b = (1 - m) * c
        mean_{i: valid[i]} [ log B(a, b) - (a - 1) * log share - (b - 1) * log(1 - share) ]

    Args:
        mean_logit: [B] or [B, D].
        log_concentration: as it; at 2 with a mean of 1/2 all shares are as likely.
        share: as it, inside (0, 1), such as ``inner_share`` of ratings; detached.
        valid: as it, booleans; all are if not given.

    Returns:
        Scalar, nats; may be negative, as a density's logarithm.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a share is not inside (0, 1), where it would be infinitely likely; or ``valid`` is not of booleans.

    Source: Ferrari and Cribari-Neto 2004, Beta Regression for Modelling Rates and Proportions.

    >>> beta_rating_loss(torch.tensor([0.0]), torch.tensor([4.0]).log(), torch.tensor([0.5]))  # -log(6 / 4)
    tensor(-0.4055)
    """
    check_shape(share, mean_logit.shape, name="share", letters="that of mean_logit")
    check_shape(log_concentration, mean_logit.shape, name="log_concentration", letters="that of mean_logit")
    logit = only_valid(mean_logit, valid, name="mean_logit")
    c = only_valid(log_concentration, valid, name="log_concentration").exp()
    y = share.detach() if valid is None else share.detach().masked_fill(~valid, 0.5)
    if not bool(((y > 0) & (y < 1)).all()):
        raise ConfigError("share: expected numbers inside (0, 1); give inner_share of the ratings")
    a, b = logit.sigmoid() * c, (-logit).sigmoid() * c
    log_beta = a.lgamma() + b.lgamma() - c.lgamma()
    return _mean(log_beta - (a - 1) * y.log() - (b - 1) * (-y).log1p(), valid)


def inner_share(rating: Tensor, *, low: float, high: float, count: int) -> Tensor:
    """A rating as a share of its scale, drawn a little inwards so that the ends have a finite likelihood.

        ((rating - low) / (high - low) * (count - 1) + 1/2) / count

    Args:
        rating: any shape, from ``low`` to ``high``.
        low: the scale's worst.
        high: its best.
        count: of ratings in the data set; the more there are, the less is drawn in.

    Returns:
        As ``rating``, inside (0, 1).

    Raises:
        ConfigError: a rating is outside the scale, or the scale or ``count`` is empty.

    Source: Smithson and Verkuilen 2006, A Better Lemon Squeezer, equation 4.

    >>> inner_share(torch.tensor([1.0, 3.0, 5.0]), low=1, high=5, count=10)
    tensor([0.0500, 0.5000, 0.9500])
    """
    if not low < high or count < 1:
        raise ConfigError(
            f"low = {low}, high = {high}, count = {count}, but low < high and count is at least 1"
        )
    if not bool(((rating >= low) & (rating <= high)).all()):
        raise ConfigError(f"rating: expected {low} to {high}, got {rating.min():g} to {rating.max():g}")
    return ((rating - low) / (high - low) * (count - 1) + 0.5) / count


def _pair(prediction: Tensor, rating: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    check_shape(rating, prediction.shape, name="rating", letters="that of the prediction")
    return only_valid(prediction, valid, name="prediction"), only_valid(rating.detach(), valid, name="rating")


def _mean(loss: Tensor, valid: Tensor | None) -> Tensor:
    return loss.mean() if valid is None else kept_mean(loss.flatten(), valid.flatten())
