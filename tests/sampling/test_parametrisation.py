import math
from typing import Any, get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.sampling import Kind, Prediction, add_noise, target, velocity_target, with_noise

B = 3
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
KINDS: tuple[Kind, ...] = get_args(Kind)
VARIANCE_PRESERVING: tuple[Kind, ...] = ("epsilon", "v_prediction", "sample")
# One level per sample, away from both ends, and every rank from [B, D] to a video's.
levels = st.lists(st.floats(0.02, 0.98), min_size=B, max_size=B)
shapes = st.sampled_from([(B, 4), (B, 4, 5), (B, 2, 4, 5), (B, 2, 6, 4, 5)])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shares(kind: Kind, level: list[float]) -> tuple[Tensor, Tensor]:
    sigma = torch.tensor(level, dtype=torch.float64)
    return (1 - sigma if kind == "flow_prediction" else (1 - sigma**2).sqrt()), sigma


def squared(error: Tensor) -> Tensor:
    return (error**2).flatten(1).sum(1)


@pytest.mark.parametrize("kind", KINDS)
@given(level=levels, shape=shapes)
def test_a_perfect_network_gives_back_data_noise_and_velocity(
    kind: Kind, level: list[float], shape: tuple[int, ...]
) -> None:
    clean, noise, (alpha, sigma) = gaussian(*shape), gaussian(*shape, seed=1), shares(kind, level)
    noisy = add_noise(clean, noise, alpha, sigma)
    output = target(clean, noise, alpha, sigma, kind)
    prediction = Prediction(noisy, output, alpha, sigma, kind)
    assert_close(prediction.clean, clean, **EXACT)
    assert_close(prediction.noise, noise, **EXACT)
    assert_close(prediction.velocity, velocity_target(clean, noise, alpha, sigma, kind), **EXACT)


@given(level=levels, shape=shapes)
def test_any_output_survives_the_round_trip(level: list[float], shape: tuple[int, ...]) -> None:
    (alpha, sigma), noisy, epsilon = shares("epsilon", level), gaussian(*shape), gaussian(*shape, seed=1)
    velocity = Prediction(noisy, epsilon, alpha, sigma, "epsilon").velocity
    clean = Prediction(noisy, velocity, alpha, sigma, "v_prediction").clean
    assert_close(Prediction(noisy, clean, alpha, sigma, "sample").noise, epsilon, **EXACT)


@pytest.mark.parametrize("kind", KINDS)
@given(level=levels)
def test_a_prediction_that_is_told_its_noise_says_it(kind: Kind, level: list[float]) -> None:
    (alpha, sigma), noise = shares(kind, level), gaussian(B, 4, seed=2)
    prediction = Prediction(gaussian(B, 4), gaussian(B, 4, seed=1), alpha, sigma, kind)
    told = with_noise(prediction, noise)
    assert told.kind == kind
    assert_close(told.noise, noise, rtol=1e-9, atol=1e-9)
    assert_close(with_noise(told, prediction.noise).output, prediction.output, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", VARIANCE_PRESERVING)
@given(level=levels)
def test_errors_of_a_diffusion_relate_by_alpha_and_sigma(kind: Kind, level: list[float]) -> None:
    clean, noise, (alpha, sigma) = gaussian(B, 4, 5), gaussian(B, 4, 5, seed=1), shares(kind, level)
    noisy = add_noise(clean, noise, alpha, sigma)
    output = target(clean, noise, alpha, sigma, kind) + gaussian(B, 4, 5, seed=2)
    wrong = Prediction(noisy, output, alpha, sigma, kind)
    of_velocity = squared(wrong.velocity - velocity_target(clean, noise, alpha, sigma, kind))
    assert_close(squared(wrong.noise - noise), alpha**2 * of_velocity)
    assert_close(squared(wrong.clean - clean), sigma**2 * of_velocity)
    assert_close(squared(wrong.clean - clean), (sigma / alpha) ** 2 * squared(wrong.noise - noise))


@given(level=levels)
def test_errors_of_a_flow_relate_by_sigma(level: list[float]) -> None:
    clean, noise, (alpha, sigma) = (
        gaussian(B, 4, 5),
        gaussian(B, 4, 5, seed=1),
        shares("flow_prediction", level),
    )
    velocity = noise - clean + gaussian(B, 4, 5, seed=2)
    wrong = Prediction(add_noise(clean, noise, alpha, sigma), velocity, alpha, sigma, "flow_prediction")
    of_velocity = squared(velocity - (noise - clean))
    assert_close(squared(wrong.noise - noise), (1 - sigma) ** 2 * of_velocity)
    assert_close(squared(wrong.clean - clean), sigma**2 * of_velocity)


def test_without_noise_the_data_stay_to_the_bit() -> None:
    clean, sigma = gaussian(B, 4, 5), torch.zeros(B, dtype=torch.float64)
    assert torch.equal(add_noise(clean, gaussian(B, 4, 5, seed=1), 1 - sigma, sigma), clean)


@given(level=levels)
def test_one_euler_step_along_the_true_velocity_reaches_the_data(level: list[float]) -> None:
    clean, noise, (alpha, sigma) = gaussian(B, 4), gaussian(B, 4, seed=1), shares("flow_prediction", level)
    noisy = add_noise(clean, noise, alpha, sigma)
    velocity = velocity_target(clean, noise, alpha, sigma, "flow_prediction")
    assert_close(noisy + (0 - sigma[:, None]) * velocity, clean, **EXACT)


def test_a_velocity_worked_by_hand() -> None:
    # alpha 0.6, sigma 0.8, clean 1, noise 2: noisy = 0.6 + 1.6, v = 0.6 * 2 - 0.8 * 1
    clean, noise = torch.tensor([[1.0]]), torch.tensor([[2.0]])
    alpha, sigma = torch.tensor([0.6]), torch.tensor([0.8])
    assert_close(add_noise(clean, noise, alpha, sigma), torch.tensor([[2.2]]))
    assert_close(target(clean, noise, alpha, sigma, "v_prediction"), torch.tensor([[0.4]]))
    assert_close(target(clean, noise, alpha, sigma, "flow_prediction"), torch.tensor([[1.0]]))


@pytest.mark.parametrize("wanted", ["clean", "velocity"])
def test_epsilon_says_nothing_of_the_data_in_pure_noise(wanted: str) -> None:
    # The second sample alone sits at alpha = 0, as with a zero terminal signal-to-noise ratio.
    alpha, sigma = torch.tensor([0.6, 0.0, 0.8]), torch.tensor([0.8, 1.0, 0.6])
    with pytest.raises(ConfigError, match=r"alpha = 0.*'epsilon'"):
        getattr(Prediction(torch.ones(B, 4), torch.ones(B, 4), alpha, sigma, "epsilon"), wanted)
    assert (
        getattr(Prediction(torch.ones(B, 4), torch.ones(B, 4), alpha, sigma, "v_prediction"), wanted)
        .isfinite()
        .all()
    )


@pytest.mark.parametrize("wanted", ["noise", "velocity"])
def test_clean_data_say_nothing_of_noise_that_is_not_there(wanted: str) -> None:
    alpha, sigma = torch.tensor([0.6, 1.0, 0.8]), torch.tensor([0.8, 0.0, 0.6])
    with pytest.raises(ConfigError, match=r"sigma = 0.*'sample'"):
        getattr(Prediction(torch.ones(B, 4), torch.ones(B, 4), alpha, sigma, "sample"), wanted)


@pytest.mark.parametrize("sigma", [0.0, 1.0])
def test_a_flow_is_defined_at_both_ends(sigma: float) -> None:
    level = torch.full((B,), sigma, dtype=torch.float64)
    clean, noise = gaussian(B, 4), gaussian(B, 4, seed=1)
    noisy = add_noise(clean, noise, 1 - level, level)
    prediction = Prediction(noisy, noise - clean, 1 - level, level, "flow_prediction")
    assert_close(prediction.clean, clean)
    assert_close(prediction.noise, noise)


@pytest.mark.parametrize("shape", [(), (1,), (B, 1), (B + 1,)])
def test_a_share_is_one_number_per_sample(shape: tuple[int, ...]) -> None:
    good, bad, data = torch.full((B,), 0.5), torch.full(shape, 0.5), torch.ones(B, 4)
    for alpha, sigma, name in ((bad, good, "alpha"), (good, bad, "sigma")):
        with pytest.raises(ShapeError, match=rf"{name}: expected \[B\] = \[3\], got"):
            Prediction(data, data, alpha, sigma, "v_prediction")
        with pytest.raises(ShapeError, match=rf"{name}: expected \[B\] = \[3\], got"):
            add_noise(data, data, alpha, sigma)
        with pytest.raises(ShapeError, match=rf"{name}: expected \[B\] = \[3\], got"):
            target(data, data, alpha, sigma, "epsilon")


def test_data_noise_and_output_have_one_shape() -> None:
    half, data, narrow = torch.full((B,), 0.5), torch.ones(B, 4), torch.ones(B, 1)
    with pytest.raises(ShapeError, match=r"output: expected \[3, 4\], got \[3, 1\]"):
        Prediction(data, narrow, half, half, "epsilon")
    with pytest.raises(ShapeError, match="noise: expected"):
        add_noise(data, narrow, half, half)
    with pytest.raises(ShapeError, match="noise: expected"):
        target(data, narrow, half, half, "epsilon")
    with pytest.raises(ShapeError, match=r"^noise: expected \[3, 4\], got \[3, 1\]"):
        with_noise(Prediction(data, data, half, half, "epsilon"), narrow)


def test_an_unknown_kind_names_the_nearest() -> None:
    half, data = torch.full((B,), 0.5), torch.ones(B, 4)
    unknown: Any = "v-prediction"
    with pytest.raises(UnknownNameError, match="Did you mean 'v_prediction'"):
        Prediction(data, data, half, half, unknown)
    with pytest.raises(UnknownNameError, match="Did you mean 'v_prediction'"):
        target(data, data, half, half, unknown)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_in_another_precision_leaves_the_latents_dtype(kind: Kind) -> None:
    share = torch.full((B,), math.sqrt(0.5), dtype=torch.float64)
    noisy = add_noise(torch.ones(B, 4), torch.ones(B, 4), share, share)
    prediction = Prediction(noisy, torch.ones(B, 4), share, share, kind)
    for form in (noisy, prediction.clean, prediction.noise, prediction.velocity):
        assert form.dtype == torch.float32
