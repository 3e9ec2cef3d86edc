import math

import hypothesis.strategies as st
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from hypothesis import given
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.sampling import alpha_sigma, logit_normal, scaled_linear_abar, shift_sigma, uniform

SIGMA = torch.linspace(0, 1, 101, dtype=torch.float64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_signal_only_falls_and_the_shares_keep_unit_power() -> None:
    abar = scaled_linear_abar()
    assert (abar.diff() < 0).all()
    assert 0 < abar[-1] < abar[0] < 1
    alpha, sigma = alpha_sigma(abar)
    assert_close(alpha**2 + sigma**2, torch.ones_like(abar), rtol=0, atol=1e-15)
    assert_close(alpha**2, abar)


def test_the_schedule_is_the_one_of_diffusers() -> None:
    scheduler = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    assert_close(scaled_linear_abar().float(), scheduler.alphas_cumprod, rtol=1e-4, atol=0)


@given(shift=st.floats(0.1, 10))
def test_a_shift_keeps_ends_and_order_and_has_an_inverse(shift: float) -> None:
    shifted = shift_sigma(SIGMA, shift)
    assert shifted[0] == 0
    assert_close(shifted[-1].item(), 1.0)
    assert (shifted.diff() > 0).all()
    assert_close(shift_sigma(shifted, 1 / shift), SIGMA, rtol=1e-12, atol=1e-12)


def test_a_shift_of_one_is_none_and_a_larger_one_adds_noise() -> None:
    assert torch.equal(shift_sigma(SIGMA, 1.0), SIGMA)
    assert (shift_sigma(SIGMA, 3.0) >= SIGMA).all()


@given(mu=st.floats(-2, 2))
def test_the_dynamic_form_is_a_shift_of_e_to_the_mu(mu: float) -> None:
    sigma = SIGMA[1:]
    assert_close(shift_sigma(sigma, math.exp(mu)), math.exp(mu) / (math.exp(mu) + 1 / sigma - 1))


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_a_shift_that_is_not_positive_is_refused(shift: float) -> None:
    with pytest.raises(ConfigError, match=r"shift = .* must be positive"):
        shift_sigma(SIGMA, shift)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (1.5, 0.5)])
def test_the_logit_of_a_logit_normal_is_normal(mean: float, std: float) -> None:
    logit = logit_normal(20_000, mean, std, generator=seeded()).logit()
    # Five standard errors of 20 000 draws.
    assert abs(logit.mean().item() - mean) < 5 * std / math.sqrt(20_000)
    assert abs(logit.std().item() - std) < 5 * std / math.sqrt(2 * 20_000)


def test_a_logit_normal_is_the_formula_on_the_generators_own_numbers() -> None:
    z = torch.randn(7, generator=seeded())
    assert_close(logit_normal(7, 1.5, 0.5, generator=seeded()), torch.sigmoid(1.5 + 0.5 * z))
    assert_close(logit_normal(7, generator=seeded()), torch.sigmoid(z))


def test_a_positive_mean_favours_noise() -> None:
    assert logit_normal(1000, 2.0, 1.0, generator=seeded()).mean() > 0.8


def test_uniform_times_fill_the_unit_interval_evenly() -> None:
    sigma = uniform(20_000, generator=seeded()).sort().values
    assert sigma[0] >= 0
    assert sigma[-1] < 1
    # Kolmogorov's distance of 20 000 even draws stays below 1.95 / sqrt(n) in 999 of 1000 cases.
    assert (sigma - torch.linspace(0, 1, 20_000)).abs().max() < 1.95 / math.sqrt(20_000)


def test_times_are_drawn_on_the_generators_device_whatever_the_default_is() -> None:
    with torch.device("meta"):
        even, middle = uniform(5, generator=seeded()), logit_normal(5, generator=seeded())
    assert torch.equal(even, uniform(5, generator=seeded()))
    assert torch.equal(middle, logit_normal(5, generator=seeded()))


def test_the_same_generator_gives_the_same_times() -> None:
    assert torch.equal(uniform(7, generator=seeded()), uniform(7, generator=seeded()))
    assert torch.equal(logit_normal(7, generator=seeded()), logit_normal(7, generator=seeded()))
