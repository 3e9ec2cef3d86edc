import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import hypothesis.strategies as st
import numpy
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.sampling import FlowStep, Kind, Prediction, Transition, alpha_sigma, ddim_step, flow_sde_step

B = 3
EXACT: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-12}
KINDS: tuple[FlowStep, ...] = get_args(FlowStep)
SDES: tuple[FlowStep, ...] = ("flow-sde", "dance-sde")
NOISE_LEVEL: dict[FlowStep, float] = {"flow-sde": 0.7, "dance-sde": 0.3, "cps": 0.8}
# sigma and sigma_next of B steps, downwards.
steps = st.lists(st.tuples(st.floats(0.05, 1.0), st.floats(0.1, 0.95)), min_size=B, max_size=B)
Step = Callable[..., Transition]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def flow(noisy: Tensor, velocity: Tensor, sigma: Tensor) -> Prediction:
    return Prediction(noisy, velocity, 1 - sigma, sigma, "flow_prediction")


def flow_at(*sigma: float, shape: tuple[int, ...] = (4, 5)) -> Prediction:
    B = len(sigma)
    return flow(gaussian(B, *shape), gaussian(B, *shape, seed=1), torch.tensor(sigma, dtype=torch.float64))


def diffusion_at(*abar: float, kind: Kind = "epsilon", shape: tuple[int, ...] = (4, 5)) -> Prediction:
    B = len(abar)
    alpha, sigma = alpha_sigma(torch.tensor(abar, dtype=torch.float64))
    return Prediction(gaussian(B, *shape), gaussian(B, *shape, seed=1), alpha, sigma, kind)


def levels(pairs: list[tuple[float, float]]) -> tuple[Tensor, Tensor]:
    sigma, share = torch.tensor(pairs, dtype=torch.float64).unbind(1)
    return sigma, sigma * share


def ddim(prediction: Prediction, **options: Any) -> Transition:
    abar = torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64)
    return ddim_step(prediction, *alpha_sigma(abar), **{"eta": 1.0, **options})


def sde(kind: FlowStep) -> Step:
    def step(prediction: Prediction, **options: Any) -> Transition:
        sigma_next = torch.tensor([0.9, 0.6, 0.2], dtype=torch.float64)
        return flow_sde_step(
            prediction, sigma_next, **{"kind": kind, "noise_level": NOISE_LEVEL[kind], **options}
        )

    return step


# Every step with three samples at three noise levels, the first of the flow's at pure noise.
STEPS: dict[str, tuple[Step, Prediction]] = {
    "ddim": (ddim, diffusion_at(0.25, 0.4, 0.8)),
    **{kind: (sde(kind), flow_at(1.0, 0.7, 0.5)) for kind in KINDS},
}
# Shares of data and noise after each of those steps.
NEXT: dict[Step, Tensor] = {
    **{
        step: torch.tensor([[0.1, 0.4, 0.8], [0.9, 0.6, 0.2]], dtype=torch.float64)
        for step, _ in STEPS.values()
    },
    ddim: torch.stack(alpha_sigma(torch.tensor([0.5, 0.7, 0.9], dtype=torch.float64))),
}
every_step = pytest.mark.parametrize(("step", "prediction"), STEPS.values(), ids=STEPS.keys())
every_gaussian_step = pytest.mark.parametrize(
    ("step", "prediction"), [STEPS[name] for name in ("ddim", *SDES)], ids=("ddim", *SDES)
)


# DDIM


@given(abar=st.tuples(st.floats(0.01, 0.98), st.floats(0.05, 0.95)))
def test_ddim_with_eta_one_has_the_mean_of_ddpms_posterior(abar: tuple[float, float]) -> None:
    now, after = abar[0], abar[0] + (1 - abar[0]) * abar[1]
    prediction = diffusion_at(now)
    alpha_next, sigma_next = alpha_sigma(torch.tensor([after], dtype=torch.float64))
    step = ddim_step(prediction, alpha_next, sigma_next, eta=1.0, noise=gaussian(1, 4, 5, seed=2))
    kept = now / after
    of_clean = math.sqrt(after) * (1 - kept) / (1 - now)
    of_noisy = math.sqrt(kept) * (1 - after) / (1 - now)
    assert_close(step.mean, of_clean * prediction.clean + of_noisy * prediction.noisy, rtol=1e-9, atol=1e-9)
    assert_close(step.std**2, torch.tensor([(1 - after) / (1 - now) * (1 - kept)], dtype=torch.float64))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_ddim_golden_value(kind: Kind) -> None:
    # From abar 0.25 to 0.5: var = 0.5 / 0.75 * (1 - 0.5) = 1/3, mean = sqrt(0.5) clean + sqrt(0.5 - 1/3) noise
    prediction = diffusion_at(0.25, kind=kind)
    half = torch.tensor([0.5], dtype=torch.float64).sqrt()
    step = ddim_step(prediction, half, half, eta=1.0, noise=gaussian(1, 4, 5, seed=2))
    assert_close(step.mean, 0.70710678 * prediction.clean + 0.40824829 * prediction.noise, rtol=0, atol=1e-7)
    assert_close(step.std, torch.tensor([1 / 3], dtype=torch.float64).sqrt())


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_ddim_is_the_step_of_diffusers(kind: Kind, eta: float) -> None:
    scheduler = DDIMScheduler(
        prediction_type=kind, clip_sample=False, timestep_spacing="leading", steps_offset=1
    )
    scheduler.set_timesteps(20)
    now, after = 501, 451
    noise = gaussian(1, 4, 5, seed=2).float()
    alpha, sigma = alpha_sigma(scheduler.alphas_cumprod[[now]])
    prediction = Prediction(gaussian(1, 4, 5).float(), gaussian(1, 4, 5, seed=1).float(), alpha, sigma, kind)
    theirs = scheduler.step(
        prediction.output, now, prediction.noisy, eta=eta, variance_noise=noise
    ).prev_sample
    ours = ddim_step(prediction, *alpha_sigma(scheduler.alphas_cumprod[[after]]), eta=eta, noise=noise)
    assert_close(ours.sample, theirs, rtol=1e-4, atol=1e-4)


def test_ddim_from_pure_noise_is_finite_in_float32() -> None:
    # Here sigma_next^2 - variance is 0 and rounds to either side of it.
    abar, after = torch.tensor([6e-8, 1e-7, 0.0]), torch.tensor([0.013, 0.31, 0.77])
    prediction = Prediction(torch.ones(B, 4), torch.ones(B, 4), *alpha_sigma(abar), "v_prediction")
    step = ddim_step(prediction, *alpha_sigma(after), eta=1.0, noise=torch.ones(B, 4))
    assert step.sample.isfinite().all()
    assert step.log_prob.isfinite().all()


@pytest.mark.parametrize("eta", [-0.1, 1.1])
def test_ddim_refuses_an_eta_outside_its_range(eta: float) -> None:
    with pytest.raises(ConfigError, match="eta = "):
        ddim(diffusion_at(0.25, 0.4, 0.8), eta=eta, noise=gaussian(B, 4, 5))


@pytest.mark.parametrize("abar", [(0.25, 0.71, 0.8), (0.25, 0.4, 1.0)], ids=["backwards", "from data"])
def test_ddim_refuses_a_step_that_does_not_denoise(abar: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="from noise towards data"):
        ddim(diffusion_at(*abar), noise=gaussian(B, 4, 5))


def test_ddim_refuses_a_flow_and_a_flow_step_a_diffusion() -> None:
    with pytest.raises(ConfigError, match="use flow_sde_step"):
        ddim(flow_at(1.0, 0.7, 0.5), noise=gaussian(B, 4, 5))
    with pytest.raises(ConfigError, match="use ddim_step"):
        sde("flow-sde")(diffusion_at(0.25, 0.4, 0.8), noise=gaussian(B, 4, 5))


# Flow SDE


@pytest.mark.parametrize("kind", SDES)
@given(pairs=steps)
def test_without_noise_a_flow_step_is_eulers_to_the_bit(
    kind: FlowStep, pairs: list[tuple[float, float]]
) -> None:
    sigma, sigma_next = levels(pairs)
    prediction = flow(gaussian(B, 4), gaussian(B, 4, seed=1), sigma)
    step = flow_sde_step(prediction, sigma_next, kind=kind, noise_level=0.0)
    euler = prediction.noisy + prediction.velocity * (sigma_next - sigma)[:, None]
    assert torch.equal(step.mean, euler)
    assert torch.equal(step.sample, euler)
    assert torch.equal(step.std, torch.zeros(B, dtype=torch.float64))


@given(pairs=steps)
def test_without_noise_cps_is_eulers_step(pairs: list[tuple[float, float]]) -> None:
    sigma, sigma_next = levels(pairs)
    prediction = flow(gaussian(B, 4), gaussian(B, 4, seed=1), sigma)
    step = flow_sde_step(prediction, sigma_next, kind="cps", noise_level=0.0)
    assert_close(step.sample, prediction.noisy + prediction.velocity * (sigma_next - sigma)[:, None], **EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_rollout_without_noise_is_the_euler_scheduler(kind: FlowStep) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(5)
    ours = theirs = gaussian(B, 4).float()
    for time, sigma, sigma_next in zip(
        scheduler.timesteps, scheduler.sigmas, scheduler.sigmas[1:], strict=False
    ):
        theirs = scheduler.step(torch.tanh(theirs + sigma), time, theirs, return_dict=False)[0]
        prediction = flow(ours, torch.tanh(ours + sigma), sigma.expand(B))
        ours = flow_sde_step(prediction, sigma_next.expand(B), kind=kind, noise_level=0.0).sample
    assert_close(ours, theirs)


@pytest.mark.parametrize("kind", SDES)
@given(pairs=steps)
def test_three_forms_of_the_sde_agree(kind: FlowStep, pairs: list[tuple[float, float]]) -> None:
    sigma, sigma_next = levels(pairs)
    x, v = gaussian(B, 4), gaussian(B, 4, seed=1)
    step = flow_sde_step(
        flow(x, v, sigma), sigma_next, kind=kind, noise_level=NOISE_LEVEL[kind], noise=gaussian(B, 4, seed=2)
    )
    s, D, g = (t[:, None] for t in (sigma, sigma_next - sigma, step.std / (sigma - sigma_next).sqrt()))
    score = -(x + (1 - s) * v) / s
    assert_close(step.mean, x + v * D - g**2 * score * D / 2, **EXACT)
    assert_close(step.mean, x + (v + g**2 / (2 * s) * (x + (1 - s) * v)) * D, **EXACT)


@pytest.mark.parametrize(
    ("kind", "noise_level", "of_noisy", "of_velocity", "std"),
    [
        ("flow-sde", 0.7, 0.91833333, -0.1245, 0.33813212),
        ("dance-sde", 0.3, 0.99357143, -0.10192857, 0.09486833),
    ],
)
def test_flow_sde_golden_values(
    kind: FlowStep, noise_level: float, of_noisy: float, of_velocity: float, std: float
) -> None:
    # From sigma 0.7 to 0.6, D = -0.1. "dance-sde": 1 - 0.09 * 0.1 / 1.4, -0.1 * (1 + 0.09 * 0.3 / 1.4), 0.3 sqrt(0.1).
    # "flow-sde": g^2 = 0.49 * 0.7 / 0.3, so 1 - 0.49 * 0.1 / 0.6, -0.1 * (1 + 0.49 / 2), sqrt(0.1 g^2).
    x, v = gaussian(1, 4, 5), gaussian(1, 4, 5, seed=1)
    sigma, sigma_next = torch.tensor([[0.7], [0.6]], dtype=torch.float64)
    step = flow_sde_step(flow(x, v, sigma), sigma_next, kind=kind, noise_level=noise_level, noise=x)
    assert_close(step.mean, of_noisy * x + of_velocity * v, rtol=0, atol=1e-7)
    assert_close(step.std, torch.tensor([std], dtype=torch.float64), rtol=0, atol=1e-8)


def test_cps_golden_values() -> None:
    # 0.6 * cos(0.4 pi) and 0.6 * sin(0.4 pi)
    prediction = flow_at(0.7)
    sigma_next = torch.tensor([0.6], dtype=torch.float64)
    step = flow_sde_step(prediction, sigma_next, kind="cps", noise_level=0.8, noise=gaussian(1, 4, 5))
    assert_close(step.mean, 0.4 * prediction.clean + 0.18541020 * prediction.noise, rtol=0, atol=1e-7)
    assert_close(step.std, torch.tensor([0.57063391], dtype=torch.float64), rtol=0, atol=1e-8)


@given(pairs=steps, noise_level=st.floats(0, 1))
def test_cps_keeps_the_budget_of_noise(pairs: list[tuple[float, float]], noise_level: float) -> None:
    sigma, sigma_next = levels(pairs)
    # noisy = sigma and velocity = 1 are clean 0 and noise 1, so the mean is the noise's coefficient.
    pure = flow(sigma[:, None], torch.ones(B, 1, dtype=torch.float64), sigma)
    step = flow_sde_step(pure, sigma_next, kind="cps", noise_level=noise_level, noise=gaussian(B, 1))
    assert_close(step.mean[:, 0] ** 2 + step.std**2, sigma_next**2, **EXACT)


def test_cps_at_its_highest_level_draws_all_its_noise_anew() -> None:
    prediction, sigma_next = flow_at(0.7), torch.tensor([0.6], dtype=torch.float64)
    step = flow_sde_step(prediction, sigma_next, kind="cps", noise_level=1.0, noise=gaussian(1, 4, 5))
    assert_close(step.mean, 0.4 * prediction.clean, **EXACT)
    assert_close(step.std, sigma_next, **EXACT)


# Made by the closed form of the recursion below in float64, for data N(0, 0.5^2) and its exact velocity; the limit of
# all rows is 0.5, and a wrong sign of the score term runs away from it.
MARGINALS = {
    ("flow-sde", 0.0): {10: 0.4308, 50: 0.4854, 200: 0.4963, 2000: 0.4996},
    ("flow-sde", 0.7): {10: 0.4795, 50: 0.4985, 200: 0.5010, 2000: 0.5007},
    ("dance-sde", 0.3): {10: 0.4416, 50: 0.4876, 200: 0.4969, 2000: 0.4997},
}


@pytest.mark.parametrize(("kind", "noise_level"), MARGINALS)
@pytest.mark.parametrize("n", [10, 50, 200, 2000])
def test_the_sde_keeps_the_marginals_of_the_flow(kind: FlowStep, noise_level: float, n: int) -> None:
    grid = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    sigma, sigma_next = grid[:-1], grid[1:]
    power = 0.5**2
    slope = (sigma - (1 - sigma) * power) / ((1 - sigma) ** 2 * power + sigma**2)
    # All steps as one batch at noisy = 1: the mean is then the factor by which a step multiplies what it is given.
    at_one = flow(torch.ones(n, 1, dtype=torch.float64), slope[:, None], sigma)
    step = flow_sde_step(at_one, sigma_next, kind=kind, noise_level=noise_level, noise=at_one.noisy)
    variance = 1.0
    for factor, std in zip(step.mean[:, 0].tolist(), step.std.tolist(), strict=True):
        variance = factor**2 * variance + std**2
    assert round(math.sqrt(variance), 4) == MARGINALS[kind, noise_level][n]


def test_flow_sde_at_pure_noise_takes_its_strength_from_the_next_sigma() -> None:
    # g = 0.7 * sqrt(1 / (1 - 0.9)), std = g * sqrt(0.1) = 0.7
    step = STEPS["flow-sde"][0](flow_at(1.0, 0.7, 0.5), noise=gaussian(B, 4, 5))
    assert_close(step.std[0].item(), 0.7)


def test_flow_sde_still_adds_noise_in_the_step_to_data_and_cps_does_not() -> None:
    prediction, zero = flow_at(0.5), torch.zeros(1, dtype=torch.float64)
    random = flow_sde_step(prediction, zero, kind="flow-sde", noise_level=0.7, noise=gaussian(1, 4, 5))
    assert_close(random.std.item(), 0.7 * math.sqrt(0.5))
    assert flow_sde_step(prediction, zero, kind="cps", noise_level=0.7).std.item() == 0


@pytest.mark.parametrize(
    ("kind", "noise_level"), [("flow-sde", -0.1), ("dance-sde", -0.1), ("cps", -0.1), ("cps", 1.1)]
)
def test_a_noise_level_outside_its_range_is_refused(kind: FlowStep, noise_level: float) -> None:
    with pytest.raises(ConfigError, match="noise_level = "):
        sde(kind)(flow_at(1.0, 0.7, 0.5), noise_level=noise_level, noise=gaussian(B, 4, 5))


@pytest.mark.parametrize("sigma_next", [0.6, 0.5, -0.1])
def test_a_flow_step_that_does_not_denoise_is_refused(sigma_next: float) -> None:
    with pytest.raises(ConfigError, match="0 <= sigma_next < sigma"):
        flow_sde_step(
            flow_at(0.5),
            torch.tensor([sigma_next]),
            kind="dance-sde",
            noise_level=0.3,
            noise=gaussian(1, 4, 5),
        )


def test_an_unknown_flow_step_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'dance-sde'"):
        STEPS["cps"][0](flow_at(1.0, 0.7, 0.5), kind="dance_sde", noise=gaussian(B, 4, 5))


# What every step has in common


@every_gaussian_step
def test_log_prob_is_that_of_a_normal(step: Step, prediction: Prediction) -> None:
    taken = step(prediction, noise=gaussian(B, 4, 5, seed=2))
    normal = torch.distributions.Normal(taken.mean, taken.std[:, None, None].expand_as(taken.mean))
    assert_close(taken.log_prob, normal.log_prob(taken.sample).mean((1, 2)))


def test_log_prob_of_cps_is_the_bare_distance() -> None:
    # The noise is all twos, so every element is 4 std^2 away.
    step, prediction = STEPS["cps"]
    taken = step(prediction, noise=torch.full((B, 4, 5), 2.0, dtype=torch.float64))
    assert_close(taken.log_prob, -4 * taken.std**2)


@every_step
def test_a_recorded_step_scores_the_same_to_the_bit(step: Step, prediction: Prediction) -> None:
    single = replace(prediction, noisy=prediction.noisy.float(), output=prediction.output.float())
    taken = step(single, noise=gaussian(B, 4, 5, seed=2).float())
    assert taken.sample.dtype == torch.float32
    scored = step(single, sample=taken.sample)
    assert scored.sample is taken.sample
    assert torch.equal(scored.log_prob, taken.log_prob)


@every_step
def test_the_noise_lands_in_the_sample(step: Step, prediction: Prediction) -> None:
    noise = gaussian(B, 4, 5, seed=2)
    taken = step(prediction, noise=noise)
    assert_close((taken.sample - taken.mean) / taken.std[:, None, None], noise)


@every_step
def test_gradient_reaches_the_network_only_through_the_mean(step: Step, prediction: Prediction) -> None:
    prediction = replace(prediction, output=prediction.output.clone().requires_grad_())
    taken = step(prediction, noise=gaussian(B, 4, 5, seed=2))
    (gradient,) = torch.autograd.grad(taken.log_prob.sum(), taken.mean, retain_graph=True)
    distance = (taken.sample - taken.mean).detach() / 20  # 20 elements in the mean
    variance = taken.std[:, None, None] ** 2
    assert_close(gradient, 2 * distance if taken.unscaled else distance / variance)
    (gradient,) = torch.autograd.grad(taken.log_prob.sum(), prediction.output)
    assert (gradient != 0).all()


@every_step
def test_a_recorded_sample_receives_no_gradient(step: Step, prediction: Prediction) -> None:
    prediction = replace(prediction, output=prediction.output.clone().requires_grad_())
    sample = gaussian(B, 4, 5, seed=2).requires_grad_()
    step(prediction, sample=sample).log_prob.sum().backward()
    assert sample.grad is None


@every_step
@pytest.mark.parametrize("axis", [1, 2])
def test_a_latent_twice_as_large_keeps_the_mean_and_doubles_the_sum(
    step: Step, prediction: Prediction, axis: int
) -> None:
    noisy, output = (torch.cat([t] * 2, axis) for t in (prediction.noisy, prediction.output))
    doubled = replace(prediction, noisy=noisy, output=output)
    noise = gaussian(B, 4, 5, seed=2)
    for reduction, factor in (("mean", 1), ("sum", 2)):
        once = step(prediction, noise=noise, reduction=reduction).log_prob
        twice = step(doubled, noise=torch.cat([noise] * 2, axis), reduction=reduction).log_prob
        assert_close(twice, factor * once)
    assert_close(
        step(prediction, noise=noise, reduction="sum").log_prob, 20 * step(prediction, noise=noise).log_prob
    )


@every_step
@pytest.mark.parametrize(
    "shape", [(6,), (2, 6), (2, 3, 6), (2, 3, 4, 6)], ids=["1d", "audio", "image", "video"]
)
def test_any_rank_is_a_flat_latent_in_other_clothes(
    step: Step, prediction: Prediction, shape: tuple[int, ...]
) -> None:
    noisy, output, noise = (gaussian(B, *shape, seed=seed) for seed in range(3))
    taken = step(replace(prediction, noisy=noisy, output=output), noise=noise)
    flat = step(replace(prediction, noisy=noisy.flatten(1), output=output.flatten(1)), noise=noise.flatten(1))
    assert_close(taken.sample.flatten(1), flat.sample)
    assert_close(taken.log_prob, flat.log_prob)


@every_step
def test_a_sample_does_not_know_its_neighbours(step: Step, prediction: Prediction) -> None:
    noise = gaussian(B, 4, 5, seed=2)
    once = step(prediction, noise=noise)
    output = prediction.output.clone()
    output[0] += 1
    again = step(replace(prediction, output=output), noise=noise)
    assert torch.equal(once.log_prob[1:], again.log_prob[1:])
    assert torch.equal(once.sample[1:], again.sample[1:])
    assert not torch.equal(once.sample[0], again.sample[0])


@every_step
def test_half_precision_is_computed_in_float32(step: Step, prediction: Prediction) -> None:
    noisy, output = prediction.noisy.bfloat16(), prediction.output.bfloat16()
    noise = gaussian(B, 4, 5, seed=2).float()
    half = step(replace(prediction, noisy=noisy, output=output), noise=noise)
    single = step(replace(prediction, noisy=noisy.float(), output=output.float()), noise=noise)
    assert torch.equal(half.sample, single.sample)
    assert torch.equal(half.log_prob, single.log_prob)


@pytest.mark.parametrize("case", ["eta 0", "same level", "noise_level 0", "cps to data"])
def test_a_deterministic_step_can_be_taken_and_has_no_log_prob(case: str) -> None:
    sigma_next = torch.tensor([0.2, 0.0, 0.1], dtype=torch.float64)
    if case == "eta 0":
        taken = ddim(diffusion_at(0.25, 0.4, 0.8), eta=0.0)
    elif case == "same level":  # the last step of a grid without offset; one such sample is enough
        taken = ddim(diffusion_at(0.25, 0.7, 0.8), noise=gaussian(B, 4, 5))
    elif case == "noise_level 0":
        taken = sde("flow-sde")(flow_at(1.0, 0.7, 0.5), noise_level=0.0)
    else:
        taken = flow_sde_step(
            flow_at(1.0, 0.7, 0.5), sigma_next, kind="cps", noise_level=0.8, noise=gaussian(B, 4, 5)
        )
    still = taken.std == 0
    assert still.any()
    assert torch.equal(taken.sample[still], taken.mean[still])
    with pytest.raises(ConfigError, match="log_prob: a step with std = 0"):
        _ = taken.log_prob


@every_step
def test_a_random_step_needs_its_noise_or_its_outcome(step: Step, prediction: Prediction) -> None:
    both = gaussian(B, 4, 5)
    with pytest.raises(ConfigError, match="noise: a random step needs"):
        step(prediction)
    with pytest.raises(ConfigError, match="not both"):
        step(prediction, noise=both, sample=both)


@every_step
def test_shapes_that_would_broadcast_are_refused(step: Step, prediction: Prediction) -> None:
    for name in ("noise", "sample"):
        with pytest.raises(ShapeError, match=rf"{name}: expected \[3, 4, 5\], got \[3, 1, 5\]"):
            step(prediction, **{name: gaussian(B, 1, 5)})


def test_the_next_level_is_one_number_per_sample() -> None:
    one = torch.tensor([0.1], dtype=torch.float64)
    with pytest.raises(ShapeError, match=r"sigma_next: expected \[B\] = \[3\], got \[1\]"):
        flow_sde_step(flow_at(1.0, 0.7, 0.5), one, kind="cps", noise_level=0.5, noise=gaussian(B, 4, 5))
    with pytest.raises(ShapeError, match=r"alpha_next: expected \[B\] = \[3\], got \[1\]"):
        ddim_step(diffusion_at(0.1, 0.2, 0.3), one, one, eta=1.0, noise=gaussian(B, 4, 5))
    with pytest.raises(ShapeError, match=r"^sigma_next: expected \[B\] = \[3\], got \[1\]"):
        ddim_step(diffusion_at(0.1, 0.2, 0.3), one.expand(B), one, eta=1.0, noise=gaussian(B, 4, 5))


@every_step
def test_the_noisy_samples_dtype_is_that_of_the_arithmetic(step: Step, prediction: Prediction) -> None:
    mixed = replace(prediction, noisy=prediction.noisy.float())  # the output stays in double precision
    taken = step(mixed, noise=gaussian(B, 4, 5).float())
    assert taken.mean.dtype == taken.sample.dtype == torch.float32


@every_step
def test_stored_steps_in_any_order_are_scored_at_their_own_levels(step: Step, prediction: Prediction) -> None:
    # A rollout's steps as one batch, then shuffled together with their levels, as between rollout and update.
    taken, order = step(prediction, noise=gaussian(B, 4, 5, seed=2)), torch.tensor([2, 0, 1])

    def scored(levels: Tensor) -> Tensor:
        shuffled = replace(
            prediction,
            noisy=prediction.noisy[order],
            output=prediction.output[order],
            alpha=prediction.alpha[levels],
            sigma=prediction.sigma[levels],
        )
        sample, next_levels = taken.sample[order], NEXT[step][:, levels]
        if step is ddim:
            return ddim_step(shuffled, *next_levels, eta=1.0, sample=sample).log_prob
        kind = next(kind for kind in KINDS if STEPS[kind][0] is step)
        return flow_sde_step(
            shuffled, next_levels[1], kind=kind, noise_level=NOISE_LEVEL[kind], sample=sample
        ).log_prob

    assert_close(scored(order), taken.log_prob[order], **EXACT)
    assert ((scored(torch.arange(B)) - taken.log_prob[order]).abs() > 1e-3).any()


def quadrature(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights for expectations over a standard normal number."""
    nodes, weights = numpy.polynomial.hermite_e.hermegauss(count)
    return torch.tensor(nodes), torch.tensor(weights) / math.sqrt(2 * math.pi)


@pytest.mark.parametrize("kind", ["ddim", *SDES])
def test_the_score_function_of_two_steps_has_the_gradient_of_the_expected_reward(kind: str) -> None:
    # One number, a linear denoiser, two steps and a quadratic reward, over all pairs of quadrature nodes: exact. With a
    # sample that kept its graph, the score function would have no gradient at all.
    nodes, weights = quadrature(12)
    first_noise, second_noise = (t.reshape(-1, 1) for t in torch.meshgrid(nodes, nodes, indexing="ij"))
    weight = (weights[:, None] * weights).flatten()
    N = len(weight)
    theta = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    levels = [0.8, 0.5, 0.3]

    def take(x: Tensor, at: int, **seen: Any) -> Transition:
        output = theta[0] * x + theta[1]
        now, after = (torch.full((N,), level, dtype=torch.float64) for level in levels[at : at + 2])
        if kind == "ddim":
            prediction = Prediction(x, output, (1 - now**2).sqrt(), now, "epsilon")
            return ddim_step(prediction, (1 - after**2).sqrt(), after, eta=1.0, **seen)
        flow_kind: Any = kind
        return flow_sde_step(flow(x, output, now), after, kind=flow_kind, noise_level=0.7, **seen)

    def reward(x: Tensor) -> Tensor:
        return -((x[:, 0] - 2) ** 2)

    start = torch.full((N, 1), 1.5, dtype=torch.float64)
    middle = take(start, 0, noise=first_noise)
    end = take(middle.sample, 1, noise=second_noise)
    (exact,) = torch.autograd.grad((weight * reward(end.sample)).sum(), theta)

    # What was sampled is a constant, as a log-probability sees it and as the next step starts from it.
    at_middle = take(start, 0, sample=middle.sample)
    at_end = take(middle.sample.detach(), 1, sample=end.sample)
    loss = weight * reward(end.sample).detach() * (at_middle.log_prob + at_end.log_prob)
    (score,) = torch.autograd.grad(loss.sum(), theta)
    assert_close(score, exact, rtol=1e-8, atol=1e-10)
    assert exact.abs().min() > 0.01


# Guidance: the policy is the guided transition


def take_guided(
    step: Step, at: Prediction, conditional: Tensor, unconditional: Tensor, guidance: float, **seen: Tensor
) -> Transition:
    """A linear denoiser W x + u, guided, on the noise levels of ``at``."""
    W = gaussian(5, 5, seed=3)
    of_condition, of_nothing = (at.noisy @ W + u for u in (conditional, unconditional))
    output = of_nothing + guidance * (of_condition - of_nothing)
    return step(replace(at, output=output), **seen)


@every_step
@pytest.mark.parametrize("guidance", [0.0, 4.5, 7.5])
def test_guidance_between_equal_branches_changes_no_likelihood(
    step: Step, prediction: Prediction, guidance: float
) -> None:
    u = gaussian(5, seed=4)
    plain = take_guided(step, prediction, u, u, 1.0, noise=gaussian(B, 4, 5, seed=2))
    guided = take_guided(step, prediction, u, u, guidance, sample=plain.sample)
    assert_close(guided.log_prob, plain.log_prob)


@every_step
def test_a_rollout_scored_without_its_guidance_has_another_likelihood(
    step: Step, prediction: Prediction
) -> None:
    conditional, unconditional = gaussian(5, seed=4), gaussian(5, seed=5)
    guided = take_guided(step, prediction, conditional, unconditional, 4.5, noise=gaussian(B, 4, 5, seed=2))
    plain = take_guided(step, prediction, conditional, unconditional, 1.0, sample=guided.sample)
    assert ((guided.log_prob - plain.log_prob).abs() > 1e-3).all()
