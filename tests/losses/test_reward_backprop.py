import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    alignprop_loss,
    draft_k_start,
    draft_loss,
    draft_lv_noisy,
    draw_step,
    gaussian_truncation,
    refl_loss,
    truncate_gradient,
)
from mmalign.sampling import Prediction, alpha_sigma, ddim_step, scaled_linear_abar
from tests.losses.drawing import EXACT, gaussian

B, D, T = 3, 4, 6


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# What is minimised


def test_the_losses_worked_by_hand() -> None:
    reward = torch.tensor([1.0, 5.0, -1.0])
    assert_close(refl_loss(reward).item(), 1e-3 * (1 + 0 + 3) / 3)
    assert_close(refl_loss(reward, target=6.0, scale=0.5).item(), 0.5 * (5 + 1 + 7) / 3)
    assert_close(draft_loss(reward).item(), -5 / 3)
    assert_close(draft_loss(reward[None]).item(), -5 / 3)
    assert_close(alignprop_loss(reward).item(), 0.01 * (9 + 5 + 11) / 3)
    assert_close(alignprop_loss(reward, target=2.0, scale=1.0).item(), (1 + 3 + 3) / 3)


def test_a_reward_that_is_good_enough_teaches_nothing_more() -> None:
    for value, slope in ((1.99, -1e-3), (2.0, 0.0), (2.01, 0.0)):
        reward = torch.tensor([value], requires_grad=True)
        refl_loss(reward).backward()
        assert reward.grad is not None
        assert_close(reward.grad.item(), slope)
    for scale in (1e-3, 2e-3):
        reward = torch.tensor([0.0], requires_grad=True)
        refl_loss(reward, scale=scale).backward()
        assert reward.grad is not None
        assert_close(reward.grad.item(), -scale)


def test_pretraining_is_added_as_it_is() -> None:
    reward, error = torch.tensor([1.0, 1.5]), torch.tensor([2.0, 4.0, 6.0])
    assert_close(refl_loss(reward, pretraining_error=error).item(), 1e-3 * 0.75 + 4.0)


def test_a_target_is_approached_from_either_side() -> None:
    for value, slope in ((9.0, -0.01), (11.0, 0.01)):
        reward = torch.tensor([value], requires_grad=True)
        alignprop_loss(reward).backward()
        assert reward.grad is not None
        assert_close(reward.grad.item(), slope)


# Which steps keep their graph


def test_the_last_k_steps_are_kept() -> None:
    assert [draft_k_start(50, k=k) for k in (1, 7, 50)] == [49, 43, 0]
    for k in (0, 51):
        with pytest.raises(ConfigError, match=f"k = {k}, but it is from 1 to the 50 steps"):
            draft_k_start(50, k=k)


def test_every_step_of_the_range_is_drawn_as_often() -> None:
    generator = seeded()
    counts = torch.tensor([draw_step(30, 39, generator=generator) for _ in range(5000)]).bincount()
    assert len(counts) == 40
    assert counts[:30].sum() == 0
    # 500 each; five standard deviations of a binomial count are 106.
    assert (counts[30:] - 500).abs().max() < 106


def test_a_range_that_goes_down_is_refused() -> None:
    assert draw_step(0, 0, generator=seeded()) == 0
    for first, last in ((5, 4), (-1, 4)):
        with pytest.raises(ConfigError, match=f"first = {first} and last = {last}"):
            draw_step(first, last, generator=seeded())


def test_a_gaussian_truncation_leaves_a_gradient_always() -> None:
    generator = seeded()
    starts = torch.tensor([gaussian_truncation(50, generator=generator) for _ in range(5000)]).double()
    assert starts.max() == 49
    assert starts.min() > 10
    # The mean of floor(N(42, 5^2)) is 41.5, less what the end at 49 cuts off (0.4); five standard errors are 0.35.
    assert abs(starts.mean().item() - 41.1) < 0.4
    assert abs(starts.std().item() - 4.7) < 0.3
    z = torch.randn((), generator=seeded(3)).item()
    assert gaussian_truncation(999, mean=500.0, std=99.0, generator=seeded(3)) == int(500 + 99 * z)
    assert gaussian_truncation(50, mean=3.9, std=0.0, generator=seeded()) == 3
    assert min(gaussian_truncation(50, mean=0.0, std=5.0, generator=generator) for _ in range(99)) == 0


def test_steps_are_drawn_on_the_generators_device_whatever_the_default_is() -> None:
    with torch.device("meta"):
        drawn = draw_step(0, T, generator=seeded()), gaussian_truncation(50, generator=seeded())
    assert drawn == (draw_step(0, T, generator=seeded()), gaussian_truncation(50, generator=seeded()))


def test_the_same_generator_draws_the_same_steps() -> None:
    for draw in (
        lambda generator: [draw_step(0, 999, generator=generator) for _ in range(9)],
        lambda generator: [
            gaussian_truncation(999, mean=500.0, std=99.0, generator=generator) for _ in range(9)
        ],
    ):
        assert draw(seeded()) == draw(seeded())
        assert draw(seeded()) != draw(seeded(1))


def test_a_truncation_at_no_step_is_refused() -> None:
    for mean, std in ((50.0, 5.0), (-1.0, 5.0), (42.0, -1.0)):
        with pytest.raises(ConfigError, match=f"mean = {mean} and std = {std}"):
            gaussian_truncation(50, mean=mean, std=std, generator=seeded())


# On a chain of steps


def chain(start: int, theta: Tensor, *, eta: float = 1.0) -> tuple[Tensor, int]:
    """DDIM with the linear denoiser W x + u, and how many steps kept their graph."""
    abar = torch.cat([scaled_linear_abar(T).flip(0), torch.ones(1, dtype=torch.float64)])
    alpha, sigma = alpha_sigma(abar[:, None].expand(T + 1, B))
    W, u = theta[:D], theta[D]
    x, kept = gaussian(B, D, seed=1), 0
    for step in range(T):
        output = truncate_gradient(0.3 * x @ W + u, step=step, start=start)
        kept += output.requires_grad
        prediction = Prediction(x, output, alpha[step], sigma[step], "epsilon")
        noise = gaussian(B, D, seed=10 + step)
        x = ddim_step(prediction, alpha[step + 1], sigma[step + 1], eta=eta, noise=noise).sample
    return x, kept


def reward_of(x: Tensor) -> Tensor:
    return -((x - 1) ** 2).sum(1)


def test_truncation_never_changes_the_sample_and_keeps_the_last_steps() -> None:
    theta = gaussian(D + 1, D, seed=2).requires_grad_()
    whole, _ = chain(0, theta)
    for start in range(T):
        sample, kept = chain(start, theta)
        assert torch.equal(sample, whole)
        assert kept == T - start
    assert not chain(T, theta)[0].requires_grad


def test_the_whole_chain_has_the_gradient_of_finite_differences() -> None:
    theta = gaussian(D + 1, D, seed=2).requires_grad_()
    (gradient,) = torch.autograd.grad(draft_loss(reward_of(chain(0, theta)[0])), theta)
    step = 1e-6
    for i, j in ((0, 1), (3, 2), (D, 0)):
        off = torch.zeros_like(theta)
        off[i, j] = step
        values = [draft_loss(reward_of(chain(0, theta.detach() + s * off)[0])) for s in (1, -1)]
        assert_close(
            gradient[i, j].item(), ((values[0] - values[1]) / (2 * step)).item(), rtol=1e-6, atol=1e-8
        )


def test_one_step_has_the_gradient_of_a_one_step_estimate_of_the_clean_sample() -> None:
    # The last step goes to data without noise: its sample is the clean estimate, which ReFL differentiates.
    theta = gaussian(D + 1, D, seed=2).requires_grad_()
    sample, _ = chain(draft_k_start(T, k=1), theta, eta=0.0)
    (gradient,) = torch.autograd.grad(draft_loss(reward_of(sample)), theta)

    abar = scaled_linear_abar(T).flip(0)
    alpha, sigma = alpha_sigma(abar[:, None].expand(T, B))
    with torch.no_grad():
        x = gaussian(B, D, seed=1)
        for step in range(T - 1):
            prediction = Prediction(x, 0.3 * x @ theta[:D] + theta[D], alpha[step], sigma[step], "epsilon")
            x = ddim_step(prediction, alpha[step + 1], sigma[step + 1], eta=0.0).sample
    clean = Prediction(x, 0.3 * x @ theta[:D] + theta[D], alpha[-1], sigma[-1], "epsilon").clean
    assert_close(gradient, torch.autograd.grad(draft_loss(reward_of(clean)), theta)[0], **EXACT)


def test_earlier_steps_add_to_the_gradient() -> None:
    theta = gaussian(D + 1, D, seed=2).requires_grad_()
    gradients = [
        torch.autograd.grad(draft_loss(reward_of(chain(s, theta)[0])), theta)[0] for s in (0, 3, T - 1)
    ]
    assert (gradients[0] - gradients[1]).abs().max() > 0.01
    assert (gradients[1] - gradients[2]).abs().max() > 0.01


# The low-variance estimate


def test_copies_are_noised_from_a_sample_without_its_graph() -> None:
    clean = gaussian(B, D).requires_grad_()
    alpha, sigma = alpha_sigma(torch.tensor([0.5, 0.8, 0.99], dtype=torch.float64))
    noise = gaussian(5, B, D, seed=1)
    noisy = draft_lv_noisy(clean, noise, alpha, sigma)
    assert not noisy.requires_grad
    for n in range(5):
        for b in range(B):
            assert_close(noisy[n, b], (alpha[b] * clean[b] + sigma[b] * noise[n, b]).detach(), **EXACT)


def last_step_gradient(theta: Tensor, noise: Tensor) -> Tensor:
    """Of the reward after the last step from each copy, averaged."""
    alpha, sigma = alpha_sigma(torch.full((B,), 0.9, dtype=torch.float64))
    noisy = draft_lv_noisy(gaussian(B, D), noise, alpha, sigma)
    rewards = [reward_of(Prediction(x, 0.3 * x @ theta, alpha, sigma, "epsilon").clean) for x in noisy]
    return torch.autograd.grad(draft_loss(torch.stack(rewards)), theta)[0]


def test_copies_average_the_gradient_of_one_and_lower_its_variance() -> None:
    theta, noise = gaussian(D, D, seed=2).requires_grad_(), gaussian(400, B, D, seed=3)
    one = torch.stack([last_step_gradient(theta, n[None]) for n in noise])
    eight = torch.stack([last_step_gradient(theta, n) for n in noise.split(8)])
    assert_close(eight.mean(0), one.mean(0), **EXACT)
    ratio = (one.var(0) / eight.var(0)).mean()
    assert 5 < ratio < 12  # 8 on average


def test_mistakes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"noise: expected \[N, B, ...\] = \[2, 3, 4\], got \[2, 3, 1\]"):
        draft_lv_noisy(torch.ones(B, D), torch.ones(2, B, 1), torch.ones(B), torch.ones(B))
    for place, name in ((0, "alpha"), (1, "sigma")):
        shares = [torch.ones(B), torch.ones(B)]
        shares[place] = torch.ones(B, 1)
        with pytest.raises(ShapeError, match=rf"{name}: expected \[B\] = \[3\], got \[3, 1\]"):
            draft_lv_noisy(torch.ones(B, D), torch.ones(2, B, D), *shares)
    for loss in (refl_loss, alignprop_loss):
        with pytest.raises(ShapeError, match=r"reward: expected \[B\] = \[3\], got \[3, 1\]"):
            loss(torch.ones(B, 1))
    with pytest.raises(ShapeError, match=r"reward: expected \[B\] or \[N, B\], got"):
        draft_loss(torch.ones(B, 1, 1))
    with pytest.raises(ShapeError, match=r"pretraining_error: expected \[N\] = \[3\], got \[3, 1\]"):
        refl_loss(torch.ones(B), pretraining_error=torch.ones(B, 1))
