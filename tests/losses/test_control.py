import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import class_disagreement, control_consistency_loss, ctrl_u_loss, ramp
from mmalign.sampling import Prediction, add_noise, alpha_sigma
from tests.losses.drawing import EXACT, gaussian

B, K = 4, 5
REWARDED = torch.tensor([True, False, True, False])


# ControlNet++


def test_only_rewarded_samples_are_averaged() -> None:
    error, consistency = torch.tensor([1.0, 2.0, 3.0, 6.0]), torch.tensor([4.0, 99.0, 2.0, 99.0])
    assert_close(control_consistency_loss(error, consistency, REWARDED).item(), 3 + 0.5 * 3)
    assert_close(control_consistency_loss(error, consistency, REWARDED, weight=2.0).item(), 3 + 2 * 3.0)
    # A fifth, unrewarded sample with the mean training error changes nothing.
    more = control_consistency_loss(
        torch.cat([error, torch.tensor([3.0])]),
        torch.cat([consistency, torch.tensor([-7.0])]),
        torch.cat([REWARDED, torch.tensor([False])]),
    )
    assert_close(more.item(), 4.5)


def test_where_all_is_noise_the_training_loss_is_left() -> None:
    error, consistency = gaussian(B).requires_grad_(), gaussian(B, seed=1).requires_grad_()
    loss = control_consistency_loss(error, consistency, torch.zeros(B, dtype=torch.bool))
    loss.backward()
    assert_close(loss, error.mean(), **EXACT)
    assert consistency.grad is not None
    assert (consistency.grad == 0).all()
    assert_close(error.grad, torch.full((B,), 1 / B, dtype=torch.float64))


def test_a_perfect_denoiser_leaves_the_extractors_own_error_at_any_time() -> None:
    alpha, sigma = alpha_sigma(torch.tensor([0.99, 0.6, 0.2, 0.01], dtype=torch.float64))
    clean, noise = gaussian(B, 6), gaussian(B, 6, seed=1)
    noisy = add_noise(clean, noise, alpha, sigma)
    estimate = Prediction(noisy, noise, alpha, sigma, "epsilon").clean
    extractor, condition = gaussian(6, 6, seed=2), gaussian(B, 6, seed=3)
    own = ((clean @ extractor - condition) ** 2).mean(1)
    assert_close(((estimate @ extractor - condition) ** 2).mean(1), own, rtol=1e-9, atol=0)


# Ctrl-U


def test_without_doubt_it_is_the_consistency_loss() -> None:
    error, consistency = gaussian(2 * B), gaussian(B, 3, 4, seed=1).abs()
    loss = ctrl_u_loss(error, consistency, torch.zeros(B, 3, 4), REWARDED, weight=0.7)
    expected = error.mean() + 0.7 * consistency[REWARDED].mean()
    assert_close(loss, expected, **EXACT)


def test_doubt_discounts_and_is_called_back() -> None:
    error, consistency = gaussian(2 * B), gaussian(B, 3, 4, seed=1).abs()
    doubt = gaussian(B, 3, 4, seed=2).abs()
    loss = ctrl_u_loss(error, consistency, doubt, REWARDED, weight=0.7, uncertainty_weight=0.1)
    trusted = (consistency * torch.exp(-doubt))[REWARDED].mean()
    assert_close(loss, error.mean() + 0.7 * trusted + 0.1 * doubt[REWARDED].mean(), **EXACT)
    whole = ctrl_u_loss(error, consistency, doubt, REWARDED, weight=0.7)
    assert_close(whole, error.mean() + 0.7 * trusted + doubt[REWARDED].mean(), **EXACT)


@given(error=st.floats(1.1, 20))
def test_the_best_doubt_is_the_logarithm_of_the_error(error: float) -> None:
    zero, yes = torch.zeros(1, dtype=torch.float64), torch.tensor([True])
    doubt = torch.tensor([[math.log(error)]], dtype=torch.float64).requires_grad_()
    ctrl_u_loss(zero, torch.tensor([[error]], dtype=torch.float64), doubt, yes, weight=1.0).backward()
    assert doubt.grad is not None
    assert abs(doubt.grad.item()) < 1e-9
    for off in (-0.1, 0.1):
        moved = (doubt.detach() + off).requires_grad_()
        ctrl_u_loss(zero, torch.tensor([[error]], dtype=torch.float64), moved, yes, weight=1.0).backward()
        assert moved.grad is not None
        assert moved.grad.sign().item() == math.copysign(1, off)


def test_disagreement_is_the_kl_from_the_noisier_reading() -> None:
    logits, noisier = gaussian(B, K, 3), gaussian(B, K, 3, seed=1)
    p, q = (torch.distributions.Categorical(logits=t.movedim(1, -1)) for t in (logits, noisier))
    disagreement = class_disagreement(logits, noisier)
    assert_close(disagreement, torch.distributions.kl_divergence(q, p), **EXACT)
    assert (disagreement - torch.distributions.kl_divergence(p, q)).abs().max() > 0.01
    assert torch.equal(class_disagreement(logits, logits), torch.zeros(B, 3, dtype=torch.float64))


def test_a_ramp_starts_at_nothing() -> None:
    assert [ramp(k) for k in (0, 2500, 5000, 9999)] == [0.0, 0.5, 1.0, 1.0]
    assert ramp(1, steps=4) == 0.25
    assert ramp(1, steps=1) == 1.0
    for step, steps in ((-1, 5), (1, 0), (1, -1)):
        with pytest.raises(ConfigError, match=f"step = {step} and steps = {steps}"):
            ramp(step, steps=steps)


def test_mistakes_are_refused() -> None:
    one, wide = torch.ones(B), torch.ones(B, 1)
    with pytest.raises(ShapeError, match=r"training_error: expected \[B\] = \[4\], got \[4, 1\]"):
        control_consistency_loss(wide, one, REWARDED)
    with pytest.raises(ShapeError, match=r"consistency_error: expected \[B\] = \[4\], got \[4, 1\]"):
        control_consistency_loss(one, wide, REWARDED)
    with pytest.raises(ConfigError, match="keep: expected booleans"):
        control_consistency_loss(one, one, REWARDED.long())
    with pytest.raises(ShapeError, match=r"training_error: expected \[N\] = \[4\], got \[4, 1\]"):
        ctrl_u_loss(wide, wide, wide, REWARDED, weight=1.0)
    with pytest.raises(ShapeError, match=r"consistency_error: expected \[B, ...\], got \[4\]"):
        ctrl_u_loss(one, one, one, REWARDED, weight=1.0)
    with pytest.raises(ShapeError, match=r"uncertainty: expected \[B, ...\] = \[4, 2\], got \[4, 1\]"):
        ctrl_u_loss(one, torch.ones(B, 2), wide, REWARDED, weight=1.0)
    with pytest.raises(ShapeError, match=r"logits: expected \[B, K, ...\], got \[4\]"):
        class_disagreement(one, one)
    with pytest.raises(ShapeError, match=r"noisier_logits: expected \[B, K, ...\] = \[4, 2\], got \[4, 1\]"):
        class_disagreement(torch.ones(B, 2), wide)
