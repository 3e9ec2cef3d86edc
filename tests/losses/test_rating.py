import pytest
import torch
from torch.distributions import Beta, Normal
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import beta_rating_loss, gaussian_rating_loss, inner_share, rating_loss
from tests.losses.drawing import EXACT, gaussian

B, D = 4, 3


def test_against_torchs_own_distributions() -> None:
    mean, spread, rating = gaussian(B, D), gaussian(B, D, seed=1), gaussian(B, D, seed=2)
    normal = -Normal(mean, (spread / 2).exp()).log_prob(rating).mean()
    assert_close(gaussian_rating_loss(mean, spread, rating), normal, **EXACT)
    share, m, c = rating.sigmoid(), mean.sigmoid(), spread.exp()
    beta = -Beta(m * c, (1 - m) * c).log_prob(share).mean()
    assert_close(beta_rating_loss(mean, spread, share), beta, **EXACT)


def test_a_fixed_variance_of_one_is_regression() -> None:
    mean, rating = gaussian(B).requires_grad_(), gaussian(B, seed=1)
    (of_normal,) = torch.autograd.grad(gaussian_rating_loss(mean, torch.zeros_like(mean), rating), mean)
    (of_square,) = torch.autograd.grad(rating_loss(mean, rating), mean)
    assert_close(2 * of_normal, of_square, **EXACT)


def test_the_best_variance_is_the_squared_error() -> None:
    mean, rating = gaussian(B), gaussian(B, seed=1)
    best = ((rating - mean) ** 2).log().requires_grad_()
    (gradient,) = torch.autograd.grad(gaussian_rating_loss(mean, best, rating), best)
    assert_close(gradient, torch.zeros_like(gradient), **EXACT)


def test_gradients_agree_with_finite_differences_and_skip_what_is_missing() -> None:
    valid = torch.tensor([[True, False, True], [True, True, True], [False, False, True], [True, True, False]])
    mean, spread = gaussian(B, D).requires_grad_(), gaussian(B, D, seed=1).requires_grad_()
    share = gaussian(B, D, seed=2).sigmoid().masked_fill(~valid, float("nan"))
    for loss in (gaussian_rating_loss, beta_rating_loss):
        assert torch.autograd.gradcheck(lambda m, s, of=loss: of(m, s, share, valid=valid), [mean, spread])
    assert torch.autograd.gradcheck(lambda m: rating_loss(m, share, valid=valid), [mean])
    known = (mean.detach() - share)[valid]
    assert_close(rating_loss(mean, share, valid=valid), (known**2).mean(), **EXACT)


def test_ends_of_the_scale_come_inside_and_more_so_with_few_ratings() -> None:
    ends = torch.tensor([1.0, 5.0], dtype=torch.float64)
    assert inner_share(ends, low=1, high=5, count=4).tolist() == [0.125, 0.875]
    assert inner_share(ends, low=1, high=5, count=1).tolist() == [0.5, 0.5]
    # one beta draw of such a share has a finite loss
    logit = torch.zeros(2, dtype=torch.float64)
    assert beta_rating_loss(logit, logit, inner_share(ends, low=1, high=5, count=4)).isfinite()


def test_what_cannot_be_meant_is_refused() -> None:
    x = gaussian(B)
    with pytest.raises(ConfigError, match="inner_share"):
        beta_rating_loss(x, x, torch.tensor([0.0, 0.5, 0.5, 0.5]))
    with pytest.raises(ConfigError, match="1 to 5"):
        inner_share(x, low=1, high=5, count=3)
    with pytest.raises(ConfigError, match="low < high"):
        inner_share(x, low=1, high=1, count=3)
    with pytest.raises(ShapeError, match="rating"):
        rating_loss(x, x[:, None])
    with pytest.raises(ShapeError, match="log_variance"):
        gaussian_rating_loss(x, x[:, None], x)
