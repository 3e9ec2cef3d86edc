"""Distributional preference: fit what share of people prefers a sample, bin by bin, by optimal transport."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def vote_update(
    alpha: Tensor, beta: Tensor, wins: Tensor, losses: Tensor, *, decay: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Votes so far as a beta distribution, and what new votes make of it.

        decay * alpha + wins,  decay * beta + losses

    Args:
        alpha: [B], above 0; 1 before any vote.
        beta: [B], above 0; 1 before any vote.
        wins: [B], new votes for each sample.
        losses: [B], new votes against it.
        decay: in (0, 1]; below 1 old votes count less as tastes drift.

    Returns:
        The new alpha and beta.

    Raises:
        ConfigError: ``decay`` is outside (0, 1].

    Source: Li et al. 2024, DPRM (arXiv:2402.09764), for the idea of the update; the decay is ours.

    >>> one = torch.ones(1)
    >>> vote_update(one, one, 2 * one, 0 * one)
    (tensor([3.]), tensor([1.]))
    """
    if not 0 < decay <= 1:
        raise ConfigError(f"decay = {decay}, but it is in (0, 1]")
    return decay * alpha + wins, decay * beta + losses


def beta_bins(alpha: Tensor, beta: Tensor, *, bins: int) -> Tensor:
    """A beta distribution in bins of equal width.

        p[b, k] = F_b((k + 1) / bins) - F_b(k / bins),  F the distribution function, k from 0

    Args:
        alpha: [B], above 0.
        beta: [B], above 0.
        bins: at least 2.

    Returns:
        [B, bins], of sum 1, detached.

    Raises:
        ShapeError: not twice the same [B].
        ConfigError: a parameter is not positive, or ``bins`` is below 2.

    Source: Li et al. 2024, DPRM (arXiv:2402.09764); the function by Lentz's continued fraction, Press et al.,
    Numerical Recipes, section 6.4.

    >>> beta_bins(torch.tensor([3.0]), torch.tensor([1.0]), bins=5)  # of x^3
    tensor([[0.0080, 0.0560, 0.1520, 0.2960, 0.4880]])
    """
    check_shape(alpha, alpha.shape[:1], name="alpha", letters="[B]")
    check_shape(beta, alpha.shape, name="beta", letters="[B]")
    a, b = alpha.detach().double()[:, None], beta.detach().double()[:, None]
    if not bool(((a > 0) & (b > 0)).all()):
        raise ConfigError("alpha and beta: expected numbers above 0")
    if bins < 2:
        raise ConfigError(f"bins = {bins}, but at least 2 are needed")
    x = torch.arange(1, bins, device=a.device, dtype=torch.float64)[None] / bins
    inner = _beta_distribution(a, b, x)
    ends = torch.cat([torch.zeros_like(a), inner, torch.ones_like(a)], 1)
    return ends.diff(dim=1).to(alpha)


def wasserstein_loss(log_probs: Tensor, target: Tensor) -> Tensor:
    """First Wasserstein distance of distributions over ordered bins, in bins.

        mean_b sum_{k < K} | sum_{j <= k} (exp(log_probs[b, j]) - target[b, j]) |

    Unlike cross-entropy it knows that the neighbouring bin is a smaller mistake than a far one.

    Args:
        log_probs: [B, K], of the head (``log_softmax``).
        target: [B, K], of sum 1, such as ``beta_bins``; detached.

    Returns:
        Scalar, in bins; divided by K, on a scale of 0 to 1.

    Raises:
        ShapeError: not twice the same [B, K].
        ConfigError: a row of either does not add up to 1.

    Source: Li et al. 2024, DPRM (arXiv:2402.09764), for optimal transport; in one dimension it is this sum.

    >>> wasserstein_loss(torch.tensor([[0.5, 0.5, 0.0]]).log(), torch.tensor([[0.0, 0.5, 0.5]]))
    tensor(1.)
    """
    p, q = _distributions(log_probs, target)
    return (p - q).cumsum(1)[:, :-1].abs().sum(1).mean()


def sinkhorn_loss(
    log_probs: Tensor, target: Tensor, *, temperature: float = 0.05, iterations: int = 50
) -> Tensor:
    """Entropic optimal transport between distributions over bins, smooth where ``wasserstein_loss`` has corners.

        mean_b sum_ij plan[b, i, j] * |i - j|,  plan by Sinkhorn's iterations on exp(-|i - j| / temperature)

    Args:
        log_probs: [B, K], of the head (``log_softmax``), finite.
        target: [B, K], of sum 1; detached.
        temperature: in bins; towards 0 it is ``wasserstein_loss``.
        iterations: of both sides; gradient runs through them.

    Returns:
        Scalar, in bins.

    Raises:
        ShapeError: not twice the same [B, K].
        ConfigError: a row of either does not add up to 1, or an option is not positive.

    Source: Cuturi 2013, Sinkhorn Distances (arXiv:1306.0895); for preferences Li et al. 2024 (arXiv:2402.09764).

    >>> sinkhorn_loss(torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.2, 0.7, 0.1]]))
    tensor(0.5000)
    """
    p, q = _distributions(log_probs, target)
    if temperature <= 0 or iterations < 1:
        raise ConfigError(f"temperature = {temperature}, iterations = {iterations}, but both are positive")
    place = torch.arange(p.shape[1], device=p.device, dtype=p.dtype)
    cost = (place[:, None] - place[None]).abs()
    # A bin without target receives nothing; the floor keeps its logarithm finite.
    log_q = q.clamp(min=torch.finfo(q.dtype).tiny).log()
    kernel = -cost / temperature
    v = torch.zeros_like(q)
    u = v
    for _ in range(iterations):
        u = log_probs - (kernel[None] + v[:, None, :]).logsumexp(2)
        v = log_q - (kernel[None] + u[:, :, None]).logsumexp(1)
    return ((kernel[None] + u[:, :, None] + v[:, None, :]).exp() * cost).sum((1, 2)).mean()


def expected_share(log_probs: Tensor) -> Tensor:
    """The reward of a distribution over bins: its mean, by their centres.

        sum_k exp(log_probs[b, k]) * (k + 1/2) / K

    Args:
        log_probs: [B, K].

    Returns:
        [B], in (0, 1).

    Raises:
        ShapeError: not [B, K].

    Source: Li et al. 2024, DPRM (arXiv:2402.09764).

    >>> expected_share(torch.tensor([[0.5, 0.0, 0.0, 0.5], [0.0, 0.0, 0.0, 1.0]]).log())
    tensor([0.5000, 0.8750])
    """
    if log_probs.ndim != 2:
        raise ShapeError(f"log_probs: expected [B, K], got {list(log_probs.shape)}")
    K = log_probs.shape[1]
    place = torch.arange(K, device=log_probs.device, dtype=log_probs.dtype)
    return log_probs.exp() @ ((place + 0.5) / K)


def _distributions(log_probs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if log_probs.ndim != 2:
        raise ShapeError(f"log_probs: expected [B, K], got {list(log_probs.shape)}")
    check_shape(target, log_probs.shape, name="target", letters="[B, K]")
    p, q = log_probs.exp(), target.detach()
    for name, d in (("log_probs", p), ("target", q)):
        if not bool((d >= 0).all()) or not bool(((d.detach().sum(1) - 1).abs() < 1e-3).all()):
            raise ConfigError(f"{name}: expected rows of probabilities whose sum is 1")
    return p, q


def _beta_distribution(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Regularised incomplete beta function in float64, by the side on which the fraction converges fast."""
    whole = torch.zeros_like(a * x)
    a, b, x = a + whole, b + whole, x + whole
    turned = x > (a + 1) / (a + b + 2)
    a, b, x = torch.where(turned, b, a), torch.where(turned, a, b), torch.where(turned, 1 - x, x)
    front = (a + b).lgamma() - a.lgamma() - b.lgamma() + a * x.log() + b * (-x).log1p()
    value = front.exp() * _fraction(a, b, x) / a
    return torch.where(turned, 1 - value, value)


def _fraction(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    tiny = 1e-300
    c, d = torch.ones_like(x), 1 - (a + b) * x / (a + 1)
    d = 1 / torch.where(d.abs() < tiny, torch.full_like(d, tiny), d)
    h = d
    for m in range(1, 2000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            d = 1 / torch.where(d.abs() < tiny, torch.full_like(d, tiny), d)
            c = 1 + term / c
            c = torch.where(c.abs() < tiny, torch.full_like(c, tiny), c)
            h = h * c * d
        if bool(((c * d - 1).abs() < 1e-15).all()):
            break
    return h
