import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    denoising_error,
    nft_loss,
    nft_old_decay,
    nft_velocity_loss,
    optimality_probability,
)
from mmalign.sampling import Prediction
from tests.losses.drawing import EXACT, gaussian

B, D = 3, 4
R = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)


def three() -> tuple[Tensor, Tensor, Tensor]:
    return gaussian(B, D), gaussian(B, D, seed=1), gaussian(B, D, seed=2)


# The map from advantages


def test_advantages_become_probabilities() -> None:
    advantage = torch.tensor([-9.0, -5.0, -2.5, 0.0, 2.5, 5.0, 9.0])
    expected = torch.tensor([0.0, 0.0, 0.25, 0.5, 0.75, 1.0, 1.0])
    assert_close(optimality_probability(advantage), expected)
    assert_close(optimality_probability(advantage, advantage_max=2.5), (advantage / 5 + 0.5).clamp(0, 1))
    assert not optimality_probability(advantage.requires_grad_()).requires_grad
    for most in (0.0, -1.0):
        with pytest.raises(ConfigError, match=r"advantage_max = .* must be positive"):
            optimality_probability(advantage, advantage_max=most)


# The self-normalised form


def test_it_is_the_published_formula_on_velocities() -> None:
    # x_t = (1 - t) x_0 + t eps, v+ = b v + (1 - b) v_old, v- = (1 + b) v_old - b v, x_0 = x_t - t v.
    t, b, most = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)[:, None], 0.3, 5.0
    clean, noise = gaussian(B, D), gaussian(B, D, seed=1)
    noisy = (1 - t) * clean + t * noise
    v, v_old = gaussian(B, D, seed=2), gaussian(B, D, seed=3)
    rows = torch.zeros(B, dtype=torch.float64)
    for share, side in ((R, b * v + (1 - b) * v_old), (1 - R, (1 + b) * v_old - b * v)):
        error = noisy - t * side - clean
        rows += share * (error**2).mean(1) / error.abs().mean(1)
    policy, old = (
        Prediction(noisy, output, 1 - t[:, 0], t[:, 0], "flow_prediction").clean for output in (v, v_old)
    )
    assert_close(nft_loss(policy, old, clean, R, beta=b), (most * rows / b).mean(), **EXACT)


def test_on_the_first_pass_its_value_does_not_know_the_reward() -> None:
    policy, _, clean = three()
    values = [nft_loss(policy, policy.detach(), clean, r) for r in (R, 1 - R, torch.zeros_like(R))]
    error = policy - clean
    expected = 5 * ((error**2).mean(1) / error.abs().mean(1)).mean()
    for value in values:
        assert_close(value, expected, **EXACT)


@given(beta=st.floats(0.05, 3), most=st.floats(0.5, 10))
def test_there_its_gradient_is_the_advantage_times_that_of_the_normalised_error(
    beta: float, most: float
) -> None:
    advantage = torch.tensor([0.4, 0.0, -0.3], dtype=torch.float64)
    policy, _, clean = three()
    policy.requires_grad_()
    r = optimality_probability(advantage, advantage_max=most)
    nft_loss(policy, policy.detach(), clean, r, beta=beta, advantage_max=most).backward()
    size = (policy - clean).abs().mean(1).detach()
    (plain,) = torch.autograd.grad((advantage * denoising_error(policy, clean) / size).mean(), policy)
    assert_close(policy.grad, plain, rtol=1e-9, atol=1e-12)
    assert policy.grad is not None
    assert_close(policy.grad[1], torch.zeros(D, dtype=torch.float64), rtol=0, atol=1e-15)


def test_there_the_opposite_advantage_has_the_opposite_gradient() -> None:
    gradients = []
    for r in (R, 1 - R):
        policy, _, clean = three()
        policy.requires_grad_()
        nft_loss(policy, policy.detach(), clean, r, beta=0.5).backward()
        assert policy.grad is not None
        gradients.append(policy.grad)
    assert_close(gradients[0], -gradients[1], **EXACT)


def test_an_estimate_that_is_right_is_divided_by_the_floor() -> None:
    # Everywhere off by 1e-7: the square over 1e-5, not over 1e-7.
    clean = gaussian(B, D)
    policy = clean + 1e-7
    loss = nft_loss(policy, policy, clean, R, advantage_max=1.0)
    assert_close(loss.item(), 1e-14 / 1e-5, rtol=1e-5, atol=0)
    assert nft_loss(clean, clean, clean, R) == 0


def test_the_size_is_taken_in_float64() -> None:
    # In bfloat16 a mean over 4096 elements of 1/256 is off in its third digit.
    clean = torch.zeros(1, 4096, dtype=torch.bfloat16)
    policy = torch.full((1, 4096), 0.00390625, dtype=torch.bfloat16)
    loss = nft_loss(policy, policy, clean, torch.tensor([0.5]), advantage_max=1.0)
    assert loss.dtype == torch.float32
    assert_close(loss.item(), 0.00390625, rtol=1e-6, atol=0)


def test_the_published_settings_are_the_defaults() -> None:
    policy, old, clean = three()
    explicit = nft_loss(policy, old, clean, R, beta=1.0, advantage_max=5.0)
    assert torch.equal(nft_loss(policy, old, clean, R), explicit)


# The plain form


def test_the_plain_form_worked_by_hand() -> None:
    one = torch.ones(1, 2)
    # good = 0.5 * 3 + 0.5 * 2 = 2.5, bad = 1.5 * 2 - 0.5 * 3 = 1.5, target 1
    loss = nft_velocity_loss(3 * one, 2 * one, one, torch.tensor([0.75]), beta=0.5)
    assert_close(loss.item(), 0.75 * 1.5**2 + 0.25 * 0.5**2)
    assert_close(nft_velocity_loss(3 * one, 2 * one, one, torch.tensor([0.75])).item(), 0.75 * 4.0)


def test_a_good_sample_is_imitated_and_a_bad_one_avoided() -> None:
    velocity, old, target = three()
    imitation = nft_velocity_loss(velocity, old, target, torch.ones(B), beta=1.0)
    assert_close(imitation, denoising_error(velocity, target).mean(), **EXACT)
    mirrored = nft_velocity_loss(velocity, old, target, torch.zeros(B), beta=1.0)
    assert_close(mirrored, denoising_error(2 * old - velocity, target).mean(), **EXACT)


# Both


def test_the_order_of_samples_does_not_count() -> None:
    order, tensors = torch.tensor([2, 0, 1]), (*three(), R)
    for loss in (nft_loss, nft_velocity_loss):
        a, b, c, d = (t[order] for t in tensors)
        assert_close(loss(a, b, c, d, beta=0.5), loss(*tensors, beta=0.5), **EXACT)


def test_mistakes_are_refused() -> None:
    policy, old, clean = three()
    narrow = torch.ones(B, 1)
    for loss, names in (
        (nft_loss, ("old_clean_prediction", "clean", "optimality")),
        (nft_velocity_loss, ("old_velocity", "target", "optimality")),
    ):
        for name, arguments in zip(
            names, ((narrow, clean, R), (old, narrow, R), (old, clean, narrow)), strict=True
        ):
            with pytest.raises(ShapeError, match=rf"^{name}: expected \[B(, ...)?\] = "):
                loss(policy, *arguments)
        for beta in (0.0, -0.1):
            with pytest.raises(ConfigError, match=r"beta = .* must be positive"):
                loss(policy, old, clean, R, beta=beta)
        for wrong in (-0.1, 1.1):
            with pytest.raises(ConfigError, match="optimality: expected 0 to 1, got"):
                loss(policy, old, clean, torch.tensor([0.5, wrong, 0.5]))
        loss(policy, old, clean, torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ConfigError, match=r"advantage_max = 0.* must be positive"):
        nft_loss(policy, old, clean, R, advantage_max=0.0)


# The old policy


def test_the_published_decays_of_the_old_policy() -> None:
    assert [nft_old_decay(k) for k in (0, 100, 500, 501, 9999)] == pytest.approx([0, 0.1, 0.5, 0.5, 0.5])
    assert [nft_old_decay(k, slope=0.0) for k in (0, 9999)] == [0, 0]
    slow = [nft_old_decay(k, slope=0.0075, start=75, most=0.999) for k in (0, 75, 76, 175, 9999)]
    assert slow == pytest.approx([0, 0, 0.0075, 0.75, 0.999])


def test_at_decay_zero_the_old_policy_is_the_policy_to_the_bit() -> None:
    policy, old = gaussian(D), gaussian(D, seed=1)
    d = nft_old_decay(0)
    assert torch.equal(d * old + (1 - d) * policy, policy)


@pytest.mark.parametrize(
    "options", [{"step": -1}, {"slope": -0.1}, {"start": -1}, {"most": -0.1}, {"most": 1.1}]
)
def test_a_decay_that_cannot_be_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="none is negative, and most is up to 1"):
        nft_old_decay(**{"step": 1, **options})  # type: ignore[arg-type]
    assert nft_old_decay(1, most=1.0, slope=9.0) == 1.0
    assert nft_old_decay(1, most=0.0) == 0.0
