"""What the losses of rewards say of a wrong shape, and where exactly their settings stop being allowed."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign import losses
from mmalign.errors import ConfigError, ShapeError
from tests.losses.drawing import EXACT, gaussian

B, K, D, U = 4, 3, 2, 5
V = torch.zeros(B)
SHARES = torch.full((B,), 0.5)
YES = torch.ones(B, dtype=torch.bool)
WHO = torch.zeros(B, dtype=torch.int64)
SQUARE = torch.zeros(B, B)
"""Wrong where [B] is wanted, and right in its first axis."""

SHAPES: list[tuple[Callable[..., Any], dict[str, Any], str, Tensor, str]] = [
    # function, arguments that are right, the one that is not, its wrong value, what the error says
    (losses.bradley_terry_loss, {"gap": V}, "margin", torch.zeros(3), "margin: expected [B] = [4], got [3]"),
    (losses.bradley_terry_loss, {"gap": V}, "weight", SQUARE, "weight: expected [B] = [4], got [4, 4]"),
    (
        losses.soft_bradley_terry_loss,
        {"gap": V},
        "probability",
        V[:1],
        "probability: expected [B] = [4], got [1]",
    ),
    (losses.strength_weights, {}, "strength", SQUARE, "strength: expected [B] = [4], got [4, 4]"),
    (
        losses.gaussian_bradley_terry_loss,
        {"variance": V},
        "gap",
        SQUARE,
        "gap: expected [B] = [4], got [4, 4]",
    ),
    (
        losses.gaussian_bradley_terry_loss,
        {"gap": V},
        "variance",
        V[:1],
        "variance: expected [B] = [4], got [1]",
    ),
    (losses.squared_tie_loss, {}, "gap", SQUARE, "gap: expected [B] = [4], got [4, 4]"),
    (
        losses.tied_preference_loss,
        {"label": WHO},
        "log_probs",
        SQUARE,
        "log_probs: expected label's axes and [3] = [4, 3], got [4, 4]",
    ),
    (
        losses.rating_loss,
        {"prediction": V},
        "rating",
        V[:1],
        "rating: expected that of the prediction = [4], got [1]",
    ),
    (
        losses.gaussian_rating_loss,
        {"mean": V, "rating": V},
        "log_variance",
        V[:1],
        "log_variance: expected that of mean = [4], got [1]",
    ),
    (
        losses.beta_rating_loss,
        {"mean_logit": V, "log_concentration": V},
        "share",
        V[:1],
        "share: expected that of mean_logit = [4], got [1]",
    ),
    (
        losses.beta_rating_loss,
        {"mean_logit": V, "share": SHARES},
        "log_concentration",
        V[:1],
        "log_concentration: expected that of mean_logit = [4], got [1]",
    ),
    (losses.binary_feedback_loss, {"label": V}, "logit", SQUARE, "logit: expected [B] = [4], got [4, 4]"),
    (losses.binary_feedback_loss, {"logit": V}, "label", V[:1], "label: expected [B] = [4], got [1]"),
    (
        losses.binary_feedback_loss,
        {"logit": V, "label": V},
        "weight",
        V[:1],
        "weight: expected [B] = [4], got [1]",
    ),
    (losses.beta_bins, {"beta": V + 1, "bins": 3}, "alpha", SQUARE, "alpha: expected [B] = [4], got [4, 4]"),
    (losses.beta_bins, {"alpha": V + 1, "bins": 3}, "beta", V[:1], "beta: expected [B] = [4], got [1]"),
    (
        losses.wasserstein_loss,
        {"log_probs": torch.zeros(B, K)},
        "target",
        torch.zeros(B, 1),
        "target: expected [B, K] = [4, 3], got [4, 1]",
    ),
    (losses.prior_distance, {}, "cosine", SQUARE, "cosine: expected [B] = [4], got [4, 4]"),
    (
        losses.prior_distance,
        {"cosine": V},
        "length_ratio",
        V[:1],
        "length_ratio: expected [B] = [4], got [1]",
    ),
    (losses.pcrm_similarity, {}, "cosine", SQUARE, "cosine: expected [B] = [4], got [4, 4]"),
    (losses.pcrm_loss, {"similarity": V}, "gap", SQUARE, "gap: expected [B] = [4], got [4, 4]"),
    (losses.pcrm_loss, {"gap": V}, "similarity", V[:1], "similarity: expected [B] = [4], got [1]"),
    (losses.margin_cap_penalty, {"distance": V}, "gap", SQUARE, "gap: expected [B] = [4], got [4, 4]"),
    (losses.margin_cap_penalty, {"gap": V}, "distance", V[:1], "distance: expected [B] = [4], got [1]"),
    (losses.grm_sft_loss, {}, "chosen_log_prob", SQUARE, "chosen_log_prob: expected [B] = [4], got [4, 4]"),
    (
        losses.odin_rewards,
        {"features": torch.zeros(B, D)},
        "heads",
        torch.zeros(2, K),
        "heads: expected [2, H] = [2, 2], got [2, 3]",
    ),
    (losses.head_overlap, {}, "heads", torch.zeros(K, D), "heads: expected [2, H] = [2, 2], got [3, 2]"),
    (losses.pearson, {"second": V}, "first", SQUARE, "first: expected [B] = [4], got [4, 4]"),
    (losses.pearson, {"first": V}, "second", V[:1], "second: expected [B] = [4], got [1]"),
    (
        losses.odin_loss,
        {"features": torch.zeros(B, D), "heads": torch.ones(2, D)},
        "nuisance",
        V[:1],
        "nuisance: expected [2B] = [4], got [1]",
    ),
    (losses.product_of_experts_loss, {"gap": V}, "bias_gap", V[:1], "bias_gap: expected [B] = [4], got [1]"),
    (
        losses.annotator_log_likelihood,
        {"gap": torch.zeros(B, U), "annotators": 1},
        "annotator",
        WHO[:1],
        "annotator: expected [N] = [4], got [1]",
    ),
    (
        losses.responsibilities,
        {"log_likelihood": torch.zeros(K, U)},
        "prior",
        torch.ones(1),
        "prior: expected [U] = [5], got [1]",
    ),
    (
        losses.plackett_luce_loss,
        {"reward": torch.zeros(B, K)},
        "ranks",
        torch.zeros(B, 1, dtype=torch.int64),
        "ranks: expected [B, K] = [4, 3], got [4, 1]",
    ),
    (
        losses.plackett_luce_loss,
        {"reward": torch.zeros(B, K), "ranks": torch.arange(K).expand(B, K)},
        "mask",
        YES[:, None],
        "mask: expected [B, K] = [4, 3], got [4, 1]",
    ),
    (
        losses.bradley_terry_fit,
        {"difference": torch.zeros(B, D)},
        "weight",
        V[:1],
        "weight: expected [B] = [4], got [1]",
    ),
    (
        losses.pessimistic_value,
        {"features": torch.zeros(B, D), "covariance": torch.eye(D)},
        "theta",
        V[:1],
        "theta: expected [d] = [2], got [1]",
    ),
    (
        losses.pessimistic_value,
        {"features": torch.zeros(B, D), "theta": V[:D]},
        "covariance",
        torch.eye(1),
        "covariance: expected [d, d] = [2, 2], got [1, 1]",
    ),
    (
        losses.pessimistic_value,
        {"features": torch.zeros(B, D), "theta": V[:D], "covariance": torch.eye(D)},
        "centre",
        V[:1],
        "centre: expected [d] = [2], got [1]",
    ),
]


@pytest.mark.parametrize(
    ("loss", "right", "name", "wrong", "said"), SHAPES, ids=[f"{row[0].__name__}-{row[2]}" for row in SHAPES]
)
def test_a_wrong_shape_is_told_with_its_name_the_want_and_the_got(
    loss: Callable[..., Any], right: dict[str, Any], name: str, wrong: Tensor, said: str
) -> None:
    with pytest.raises(ShapeError) as caught:
        loss(**right, **{name: wrong})
    assert str(caught.value) == said


def test_other_faults_name_the_argument_too() -> None:
    with pytest.raises(ConfigError, match=r"^chosen_first: expected booleans"):
        losses.smoothed_probability(WHO, smoothing=0.1)
    with pytest.raises(ConfigError, match=r"^valid: expected booleans"):
        losses.bradley_terry_loss(V, valid=WHO)
    with pytest.raises(ShapeError, match=r"^rewards: expected"):
        losses.centring_penalty(V, V[:1])
    with pytest.raises(ShapeError, match=r"annotator"):
        losses.pair_weights(torch.ones(K, U), WHO[0])
    for features in (torch.zeros(3, D), torch.zeros(B)):
        with pytest.raises(ShapeError, match=r"^features: expected \[2B, H\]"):
            losses.odin_loss(features, torch.ones(2, D), torch.zeros(len(features)))


def refused(call: Callable[[], Any]) -> bool:
    try:
        call()
    except ConfigError:
        return True
    return False


def bound(**changed: Any) -> float:
    return losses.pessimism_bound(**{"dimension": 1, "comparisons": 1, "ridge": 0.0, **changed})


def test_the_ends_of_settings() -> None:
    fine: list[Callable[[], Any]] = [
        lambda: losses.smoothed_probability(YES, smoothing=0.0),
        lambda: losses.strength_weights(torch.tensor([0.0, 0.5])),
        lambda: losses.gaussian_bradley_terry_loss(V, V + 1, points=1),
        lambda: losses.binary_feedback_loss(V, V + 1, weight=V + 0.1),
        lambda: losses.prior_distance(V, V + 1, share=0.0),
        lambda: losses.prior_distance(V, V + 1, share=1.0),
        lambda: losses.margin_cap_penalty(V, V, base=0.1, slope=0.0),
        lambda: losses.grm_loss(V[0], V[0], share=1.0),
        lambda: losses.responsibilities(torch.zeros(1, 2), torch.tensor([0.0, 1.0])),
        lambda: losses.vote_update(V + 1, V + 1, V, V, decay=1.0),
        lambda: bound(failure=0.01),
    ]
    wrong: list[Callable[[], Any]] = [
        lambda: losses.smoothed_probability(YES, smoothing=1.0),
        lambda: losses.gaussian_bradley_terry_loss(V, V + 1, points=0),
        lambda: losses.binary_feedback_loss(V, V + 1.5),
        lambda: losses.balance_weights(V, base_rate=1.0),
        lambda: losses.true_rate_logit(V, base_rate=0.0),
        lambda: losses.prior_distance(V, V),
        lambda: losses.prior_distance(V, V + 1, share=1.5),
        lambda: losses.margin_cap_penalty(V, V, base=0.0),
        lambda: losses.margin_cap_penalty(V, V, slope=-1.0),
        lambda: losses.grm_loss(V[0], V[0], share=1.5),
        lambda: losses.grm_sft_loss(V, beta=0.0),
        lambda: losses.responsibilities(torch.zeros(1, 2), torch.tensor([0.5, 0.6])),
        lambda: losses.vote_update(V + 1, V + 1, V, V, decay=1.5),
        lambda: losses.pessimistic_value(torch.zeros(1, 1), V[:1], torch.eye(1), pessimism=-1.0),
        lambda: losses.pessimistic_value(torch.zeros(1, 1), V[:1], torch.eye(1), ridge=-1e-3),
        lambda: bound(dimension=0),
        lambda: bound(comparisons=0),
        lambda: bound(theta_bound=0.0),
        lambda: bound(feature_bound=0.0),
        lambda: bound(constant=0.0),
        lambda: bound(ridge=-1.0),
        lambda: bound(failure=0.0),
        lambda: bound(failure=1.0),
    ]
    assert [i for i, call in enumerate(fine) if refused(call)] == []
    assert [i for i, call in enumerate(wrong) if not refused(call)] == []


# What was found to be untested: values


def test_a_cosine_beyond_1_from_rounding_is_no_distance_below_0() -> None:
    assert losses.prior_distance(torch.tensor([1.5, -1.5])).tolist() == [0.0, 1.0]


def test_the_gaussian_mean_is_the_integral() -> None:
    gap, variance = gaussian(B), gaussian(B, seed=1).square()
    fine = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    density = (-(fine**2) / 2).exp() / math.sqrt(2 * math.pi) * (fine[1] - fine[0])
    drawn = gap[:, None] + variance[:, None].sqrt() * fine
    wanted = (-drawn.sigmoid().log() * density).sum(1).mean()
    assert_close(losses.gaussian_bradley_terry_loss(gap, variance), wanted, rtol=1e-6, atol=0)
    assert_close(
        losses.gaussian_bradley_terry_loss(gap, variance, points=1), losses.bradley_terry_loss(gap), **EXACT
    )


def test_the_classes_of_davidson_are_the_last_axis() -> None:
    gap = gaussian(B, D)
    found = losses.davidson_log_probs(gap)
    assert found.shape == (B, D, 3)
    assert_close(found.exp().sum(-1), torch.ones(B, D, dtype=torch.float64), **EXACT)
    assert_close(losses.davidson_log_probs(gap, tie=1.0), found, **EXACT)
    assert_close(found[0, 0], losses.davidson_log_probs(gap[0, :1])[0], **EXACT)


def test_only_valid_ratings_enter_the_mean() -> None:
    mean, rating, valid = gaussian(B), gaussian(B, seed=1), torch.tensor([True, False, True, True])
    some = losses.gaussian_rating_loss(mean, mean / 2, rating, valid=valid)
    assert_close(some, losses.gaussian_rating_loss(mean[valid], mean[valid] / 2, rating[valid]), **EXACT)


def test_hard_responsibilities_are_of_the_likelihoods_dtype_and_width() -> None:
    found = losses.responsibilities(torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64), hard=True)
    assert found.dtype == torch.float64
    assert found.tolist() == [[1.0, 0.0, 0.0]]  # nobody won in the last column


def test_weights_of_losses_are_1_by_default() -> None:
    gap, bias = gaussian(B), gaussian(B, seed=1)
    assert_close(
        losses.product_of_experts_loss(gap, bias),
        losses.product_of_experts_loss(gap, bias, bias_weight=1.0),
        **EXACT,
    )
    features, heads, known = gaussian(6, D), gaussian(2, D), gaussian(6, seed=1)
    plain = losses.odin_loss(features, heads, known)
    assert_close(
        plain, losses.odin_loss(features, heads, known, overlap_weight=1.0, correlation_weight=1.0), **EXACT
    )


def test_a_nuisance_in_single_precision_leaves_the_loss_in_double() -> None:
    assert losses.odin_loss(gaussian(6, D), gaussian(2, D), torch.arange(6.0)).dtype == torch.float64


def test_newtons_steps_never_raise_the_penalised_loss() -> None:
    """Nearly separable and badly scaled data, where a full step would leap over the minimum."""
    x = torch.cat([gaussian(20, D).abs() * torch.tensor([100.0, 1.0]), -gaussian(2, D, seed=1).abs()])

    def objective(theta: Tensor, ridge: float) -> float:
        data = losses.bradley_terry_loss(x @ theta)
        return float(data + ridge / 2 * theta @ theta)

    for ridge in (1e-6, 1e-2):
        values = [
            objective(losses.bradley_terry_fit(x, ridge=ridge, iterations=n), ridge) for n in range(1, 12)
        ]
        assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
        theta = losses.bradley_terry_fit(x, ridge=ridge).requires_grad_()
        (gradient,) = torch.autograd.grad(
            losses.bradley_terry_loss(x @ theta) + ridge / 2 * theta @ theta, theta
        )
        assert gradient.abs().max() < 1e-9


def test_one_newton_step_is_the_one_by_hand() -> None:
    """At 0 the gradient is -x/2 and the curvature x^2/4, so one datum with x = 2 and a ridge of 1 steps to 1 / 2."""
    found = losses.bradley_terry_fit(torch.tensor([[2.0]]), ridge=1.0, iterations=1)
    assert found.tolist() == [0.5]
    assert found.dtype == torch.float32
    # With weights: gradient -w x / (2 n), curvature w x^2 / (4 n) + ridge.
    pair = losses.bradley_terry_fit(
        torch.tensor([[2.0], [2.0]]), weight=torch.tensor([1.0, 0.0]), ridge=1.0, iterations=1
    )
    assert_close(pair, torch.tensor([0.5 / 1.5]))


def test_the_usual_ridge_of_a_pessimistic_value_is_a_hundredth_of_the_mean_variance() -> None:
    covariance = torch.diag(torch.tensor([1.0, 3.0], dtype=torch.float64))
    x, theta = gaussian(B, D), torch.zeros(D, dtype=torch.float64)
    assert_close(
        losses.pessimistic_value(x, theta, covariance),
        losses.pessimistic_value(x, theta, covariance, ridge=0.02),
        **EXACT,
    )


def test_correlated_doubt_is_the_norm_in_the_inverse_covariance() -> None:
    root = gaussian(D, D)
    covariance = root @ root.mT + torch.eye(D, dtype=torch.float64)
    x = gaussian(B, D, seed=1)
    wanted = -torch.einsum("bi,ij,bj->b", x, covariance.inverse(), x).sqrt()
    found = losses.pessimistic_value(x, torch.zeros(D, dtype=torch.float64), covariance, ridge=0.0)
    assert_close(found, wanted, **EXACT)


def test_the_bound_by_hand_with_a_ridge() -> None:
    """L B = 2, gamma = 1 / (2 + e^-2 + e^2); d = 3, n = 10, ridge 0.5, B = 4: 0.5 * 16 under the root."""
    gamma = 1 / (2 + math.exp(-2) + math.exp(2))
    wanted = 2 * math.sqrt((3 - math.log(0.1)) / (gamma**2 * 10) + 0.5 * 16)
    found = losses.pessimism_bound(
        dimension=3,
        comparisons=10,
        ridge=0.5,
        theta_bound=4.0,
        feature_bound=0.5,
        failure=0.1,
        constant=2.0,
    )
    assert found == pytest.approx(wanted)


def test_two_candidates_are_compared_and_none_with_itself() -> None:
    features = gaussian(1, 2, D)
    x = features[0, 0] - features[0, 1]
    assert_close(losses.comparison_covariance(features), torch.outer(x, x), **EXACT)


@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.0, 5.0), (30.0, 3.0)])
def test_bins_of_a_beta_are_its_integral(a: float, b: float) -> None:
    alpha, beta = (torch.tensor([v], dtype=torch.float64) for v in (a, b))
    found = losses.beta_bins(alpha, beta, bins=4)
    x = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    density = x ** (a - 1) * (1 - x) ** (b - 1)
    wanted = (density / density.sum()).reshape(4, -1).sum(1)
    assert_close(found[0], wanted, rtol=1e-6, atol=1e-9)
