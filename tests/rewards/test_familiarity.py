"""Doubt by distance: none for what was seen, the prior's far away, and a gradient that points back to what is known."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.rewards.familiarity import Familiarity, unfamiliar_share

N, P, D = 6, 4, 3


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(most: int = 100) -> Familiarity:
    seen, other = (gaussian(N, D), gaussian(P, D, seed=1)), (gaussian(9, D, seed=2), gaussian(5, D, seed=3))
    return Familiarity.fit(seen, other, prior_std=2.0, generator=torch.Generator().manual_seed(0), most=most)


def test_the_share_is_what_a_gaussian_process_keeps_after_one_observation() -> None:
    far, length = torch.tensor([0.0, 0.4, 3.0]), 0.7
    kernel = torch.exp(-(far**2) / (2 * length**2))
    both = torch.stack(
        [torch.stack([torch.ones(3), kernel], -1), torch.stack([kernel, torch.ones(3)], -1)], -2
    )
    kept = torch.linalg.det(both)  # over that of the observation, which is 1: the Schur complement
    found = unfamiliar_share(far, torch.zeros(3), media_length=length, prompt_length=9.0)
    assert_close(found, kept)
    assert_close(found, unfamiliar_share(torch.zeros(3), far, media_length=9.0, prompt_length=length))


def test_nothing_seen_is_doubted_and_far_away_the_prior_is_left() -> None:
    known = fitted()
    media, prompts = gaussian(N, D), gaussian(P, D, seed=1)
    assert float(known.variance(media[:P], prompts).max()) < 1e-3  # the vectors are kept in 16 bits
    assert_close(known.variance(media[:P] + 100, prompts), torch.full((P,), 4.0))
    assert_close(known.variance(media[:P], prompts - 100), torch.full((P,), 4.0))


def test_half_of_the_variance_is_left_where_nine_in_ten_of_the_others_are_nearer() -> None:
    known, other = fitted(), gaussian(9, D, seed=2)
    far = torch.cdist(other, gaussian(N, D)).amin(1).quantile(0.9)
    assert_close(float(known.lengths[0]), float(far) / math.sqrt(math.log(2)), rtol=2e-3, atol=0)
    assert len(fitted(most=2).media) == 2


def test_the_gradient_is_that_of_the_distance_and_finite_at_a_known_sample() -> None:
    known, prompts = fitted(), gaussian(1, D, seed=1)[:1]
    media = (gaussian(1, D) + 0.1).double().requires_grad_()
    known = known.double()
    assert torch.autograd.gradcheck(lambda m: known.variance(m, prompts.double()), media, atol=1e-4)
    same = known.media[:1].clone().requires_grad_()
    known.variance(same, known.prompts[:1]).sqrt().sum().backward()
    assert same.grad is not None
    assert bool(same.grad.isfinite().all())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ShapeError, match="two distances"):
        unfamiliar_share(torch.zeros(2), torch.zeros(3), media_length=1.0, prompt_length=1.0)
    with pytest.raises(ConfigError, match="lengths = 0"):
        unfamiliar_share(torch.zeros(2), torch.zeros(2), media_length=0.0, prompt_length=1.0)
