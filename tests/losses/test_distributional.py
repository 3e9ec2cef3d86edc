import math

import pytest
import torch
from scipy.stats import beta as beta_distribution  # type: ignore[import-untyped]
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.losses import beta_bins, expected_share, sinkhorn_loss, vote_update, wasserstein_loss
from tests.losses.drawing import EXACT, gaussian

B, K = 3, 5


def logs(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_bins_worked_by_hand() -> None:
    bins = beta_bins(
        torch.tensor([1.0, 3.0], dtype=torch.float64), torch.ones(2, dtype=torch.float64), bins=5
    )
    assert bins[0].tolist() == pytest.approx([0.2] * 5)
    assert bins[1].tolist() == pytest.approx([0.008, 0.056, 0.152, 0.296, 0.488])  # of x^3


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.7), (2.5, 9.0), (400.0, 390.0), (1e4, 3.0), (0.01, 50.0)])
def test_bins_are_scipys(a: float, b: float) -> None:
    ends = beta_distribution(a, b).cdf(torch.linspace(0, 1, 11, dtype=torch.float64).numpy())
    found = beta_bins(torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64), bins=10)
    assert_close(found[0], torch.from_numpy(ends).diff(), rtol=1e-9, atol=1e-12)


def test_bins_mirror_with_the_votes() -> None:
    a, b = gaussian(B).exp(), gaussian(B, seed=1).exp()
    assert_close(beta_bins(a, b, bins=K), beta_bins(b, a, bins=K).flip(1), **EXACT)


def test_votes_fade() -> None:
    four, two, one = (torch.tensor([float(n)]) for n in (4, 2, 1))
    alpha, beta = vote_update(four, two, one, two, decay=0.5)
    assert (alpha.item(), beta.item()) == (3.0, 3.0)


def test_a_distance_counts_bins() -> None:
    far = wasserstein_loss(logs([0.0, 0.0, 0.0, 1.0]), torch.tensor([[1.0, 0, 0, 0]]))
    near = wasserstein_loss(logs([0.0, 1.0, 0.0, 0.0]), torch.tensor([[1.0, 0, 0, 0]]))
    assert (far.item(), near.item()) == (3.0, 1.0)
    p = gaussian(B, K).softmax(1)
    assert wasserstein_loss(p.log(), p) < 1e-15
    q = gaussian(B, K, seed=1).softmax(1)
    assert_close(wasserstein_loss(p.log(), q), wasserstein_loss(q.log(), p), **EXACT)
    assert_close(wasserstein_loss(p.flip(1).log(), q.flip(1)), wasserstein_loss(p.log(), q), **EXACT)


def test_sinkhorn_tends_to_the_distance() -> None:
    p, q = gaussian(B, K).softmax(1), gaussian(B, K, seed=1).softmax(1)
    cold = sinkhorn_loss(p.log(), q, temperature=0.02, iterations=3000)
    assert_close(cold, wasserstein_loss(p.log(), q), rtol=0, atol=1e-3)
    # Hot, the plan is the independent one.
    place = torch.arange(K, dtype=torch.float64)
    apart = (place[:, None] - place).abs()
    assert_close(
        sinkhorn_loss(p.log(), q, temperature=1e9), ((p @ apart) * q).sum(1).mean(), rtol=1e-6, atol=0
    )


def test_gradients_agree_with_finite_differences() -> None:
    x, q = gaussian(B, K).requires_grad_(), gaussian(B, K, seed=1).softmax(1)
    assert torch.autograd.gradcheck(lambda z: wasserstein_loss(z.log_softmax(1), q), [x])
    assert torch.autograd.gradcheck(
        lambda z: sinkhorn_loss(z.log_softmax(1), q, temperature=0.5, iterations=20), [x]
    )
    crossing = torch.zeros(1, K, dtype=torch.float64, requires_grad=True)
    wasserstein_loss(crossing.log_softmax(1), torch.full((1, K), 1 / K, dtype=torch.float64)).backward()
    assert crossing.grad is not None
    assert crossing.grad.isfinite().all()
    empty = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(sinkhorn_loss(x[:1].log_softmax(1), empty), x)
    assert gradient.isfinite().all()


def test_the_mean_of_uniform_bins_is_one_half() -> None:
    assert_close(expected_share(torch.full((1, 7), -math.log(7), dtype=torch.float64)).item(), 0.5)
    p = gaussian(B, K).softmax(1)
    assert_close(expected_share(p.flip(1).log()), 1 - expected_share(p.log()), **EXACT)


def test_what_cannot_be_meant_is_refused() -> None:
    p = gaussian(B, K).softmax(1)
    with pytest.raises(ConfigError, match="sum is 1"):
        wasserstein_loss(p, p)  # not logarithms
    with pytest.raises(ConfigError, match="above 0"):
        beta_bins(torch.zeros(1), torch.ones(1), bins=3)
    with pytest.raises(ConfigError, match="at least 2"):
        beta_bins(torch.ones(1), torch.ones(1), bins=1)
    with pytest.raises(ConfigError, match="decay"):
        vote_update(p, p, p, p, decay=0.0)
