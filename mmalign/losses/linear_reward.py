"""Linear rewards on frozen features: their maximum likelihood, and a value that doubts what was never compared."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def comparison_covariance(features: Tensor) -> Tensor:
    """In which directions of the features people have compared.

        2 / (n * K * (K - 1)) * sum_i sum_{j < l} (f[i, j] - f[i, l]) (f[i, j] - f[i, l])^T

    Args:
        features: [n, K, d], of the K samples of each comparison; pairs have K = 2.

    Returns:
        [d, d]; doubling the data does not change it.

    Raises:
        ShapeError: not [n, K, d] with K >= 2.

    Source: Zhu et al. 2023, Principled RLHF from Pairwise or K-wise Comparisons, sections 3 and 4 (arXiv:2301.11270).

    >>> comparison_covariance(torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.5000]])
    """
    if features.ndim != 3 or features.shape[1] < 2:
        raise ShapeError(f"features: expected [n, K, d] with K >= 2, got {list(features.shape)}")
    n, K, d = features.shape
    first, second = torch.triu_indices(K, K, 1, device=features.device)
    apart = (features[:, first] - features[:, second]).reshape(-1, d)
    return apart.mT @ apart * (2 / (n * K * (K - 1)))


def bradley_terry_fit(
    difference: Tensor,
    *,
    weight: Tensor | None = None,
    ridge: float = 1e-6,
    centre: Tensor | None = None,
    iterations: int = 100,
) -> Tensor:
    """Maximum likelihood of a linear reward, by Newton's method with halved steps.

        argmin over theta of mean_b weight[b] * -log sigmoid(difference[b] . theta) + ridge / 2 * |theta - centre|^2

    Args:
        difference: [B, d], features of the chosen less those of the rejected sample; detached.
        weight: [B], at least 0; all 1 if not given.
        ridge: above 0, without which separable data have no finite answer.
        centre: [d], what the ridge pulls to; 0 if not given.
        iterations: at most so many; it stops when the gradient is rounding.

    Returns:
        [d], detached.

    Raises:
        ShapeError: not [B, d], [B] and [d].
        ConfigError: ``ridge`` is not positive, or a weight is negative.

    Source: Zhu et al. 2023, section 3.1 (arXiv:2301.11270), with a ridge in place of its bound on theta.
    """
    if difference.ndim != 2:
        raise ShapeError(f"difference: expected [B, d], got {list(difference.shape)}")
    if ridge <= 0:
        raise ConfigError(f"ridge = {ridge}, but it is above 0; separable data have no finite answer")
    x = difference.detach().double()
    w = x.new_ones(len(x)) if weight is None else weight.detach().to(x)
    check_shape(w, x.shape[:1], name="weight", letters="[B]")
    if not bool((w >= 0).all()):
        raise ConfigError(f"weight: expected at least 0, got {w.min():g}")
    w = w / len(x)
    middle = x.new_zeros(x.shape[1]) if centre is None else centre.detach().to(x)
    check_shape(middle, x.shape[1:], name="centre", letters="[d]")
    theta, eye = middle, torch.eye(x.shape[1], dtype=x.dtype, device=x.device)

    def loss(at: Tensor) -> Tensor:
        return torch.dot(w, F.softplus(-(x @ at))) + ridge / 2 * (at - middle).square().sum()

    for _ in range(iterations):
        wrong = torch.sigmoid(-(x @ theta))
        gradient = ridge * (theta - middle) - x.mT @ (w * wrong)
        if float(gradient.abs().max()) < 1e-12:
            break
        curvature = x.mT @ (x * (w * wrong * (1 - wrong))[:, None]) + ridge * eye
        step = torch.cholesky_solve(gradient[:, None], torch.linalg.cholesky(curvature))[:, 0]
        size, now, slope = 1.0, loss(theta), gradient @ step
        while size > 1e-10 and loss(theta - size * step) > now - 1e-4 * size * slope:
            size /= 2
        theta = theta - size * step
    return theta.to(difference)


def pessimistic_value(
    features: Tensor,
    theta: Tensor,
    covariance: Tensor,
    *,
    centre: Tensor | None = None,
    pessimism: float = 1.0,
    ridge: float | None = None,
) -> Tensor:
    """The least reward that the comparisons allow, up to a confidence.

        x = features[m] - centre
        x . theta - pessimism * sqrt( x^T (covariance + ridge * I)^-1 x )

    Args:
        features: [M, d], of candidates, or the mean feature of a policy's samples as one row.
        theta: [d], of ``bradley_terry_fit``.
        covariance: [d, d], of ``comparison_covariance``.
        centre: [d], such as the mean feature of the data; the origin if not given. It matters, since comparisons say
            nothing of a reward's zero.
        pessimism: c, at least 0; ``pessimism_bound`` is the theorem's, in practice it is chosen.
        ridge: lambda, at least 0; a hundredth of the mean eigenvalue if not given.

    Returns:
        [M], in the unit of the reward.

    Raises:
        ShapeError: not [M, d], [d], [d, d] and [d].
        ConfigError: ``pessimism`` or ``ridge`` is negative, or the covariance with its ridge is singular.

    Source: Zhu et al. 2023, section 3.2, algorithm 1 (arXiv:2301.11270); the defaults are ours.

    >>> compared = torch.diag(torch.tensor([2 / 3, 1 / 3]))  # (1, 0) twice and (0, 1) once
    >>> pessimistic_value(torch.eye(2), torch.zeros(2), compared, ridge=0.0)
    tensor([-1.2247, -1.7321])
    """
    if features.ndim != 2:
        raise ShapeError(f"features: expected [M, d], got {list(features.shape)}")
    d = features.shape[1]
    check_shape(theta, [d], name="theta", letters="[d]")
    check_shape(covariance, [d, d], name="covariance", letters="[d, d]")
    if ridge is None:
        ridge = 0.01 * float(covariance.trace()) / d
    if pessimism < 0 or ridge < 0:
        raise ConfigError(f"pessimism = {pessimism} and ridge = {ridge}, but both are at least 0")
    x = features
    if centre is not None:
        check_shape(centre, [d], name="centre", letters="[d]")
        x = x - centre
    factor, fault = torch.linalg.cholesky_ex(covariance + ridge * torch.eye(d).to(covariance))
    if bool(fault):
        raise ConfigError(
            f"covariance: singular with ridge = {ridge:g}, some direction was never compared; raise it"
        )
    whitened = torch.linalg.solve_triangular(factor, x.mT, upper=False)
    doubt: Tensor = whitened.norm(dim=0)
    return x @ theta - pessimism * doubt


def pessimism_bound(
    *,
    dimension: int,
    comparisons: int,
    ridge: float,
    theta_bound: float = 1.0,
    feature_bound: float = 1.0,
    failure: float = 0.05,
    constant: float = 1.0,
) -> float:
    """The c of the theorem, with which ``pessimistic_value`` is a lower bound of the true one.

        gamma = 1 / (2 + exp(-L B) + exp(L B))
        C * sqrt( (d + log(1 / failure)) / (gamma^2 * n) + ridge * B^2 )

    Args:
        dimension: d.
        comparisons: n.
        ridge: lambda of ``pessimistic_value``.
        theta_bound: B, |theta| is at most.
        feature_bound: L, |features| are at most.
        failure: probability that the bound does not hold.
        constant: C, which the theorem leaves open.

    Returns:
        In the unit of the reward.

    Raises:
        ConfigError: an argument is not positive (``ridge`` may be 0), or ``failure`` is not inside (0, 1).

    Source: Zhu et al. 2023, lemma 3.1 (arXiv:2301.11270).

    >>> round(pessimism_bound(dimension=4, comparisons=1000, ridge=0.0), 3)
    0.425
    """
    if min(dimension, comparisons, theta_bound, feature_bound, constant) <= 0 or ridge < 0:
        raise ConfigError("dimension, comparisons, bounds and constant are above 0, ridge is at least 0")
    if not 0 < failure < 1:
        raise ConfigError(f"failure = {failure}, but it is inside (0, 1)")
    reach = feature_bound * theta_bound
    gamma = 1 / (2 + math.exp(-reach) + math.exp(reach))
    return constant * math.sqrt(
        (dimension - math.log(failure)) / (gamma**2 * comparisons) + ridge * theta_bound**2
    )
