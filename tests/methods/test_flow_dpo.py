"""Flow-DPO on a small Stable Diffusion 3: its identities hold on the real generator, not on formulas alone."""

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.generators import lora
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.timesteps import read_timesteps
from mmalign.methods import METHODS, load_method
from mmalign.methods.base import Task
from mmalign.methods.configs import FlowDPOConfig, OwnPairs
from mmalign.methods.denoising_dpo import PairBatch
from mmalign.methods.flow_dpo import FlowDPO
from mmalign.methods.latents import LatentPairs
from mmalign.sampling import add_noise
from tests.generators.small_pipelines import stable_diffusion_3

N, B = 6, 5  # pairs at hand, and in a batch
SIZE = {"height": 16, "width": 16}
PROMPTS = ["a red circle", "one blue star on the left", "two"]
SCHEDULES = ("constant", "one_minus_sigma_sq")
# Larger than any rounding of float32 that a network of two layers adds up.
CLOSE: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5}


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def with_lora() -> DenoisingGenerator:
    generator = DenoisingGenerator(stable_diffusion_3(), **SIZE)
    generator.attach_lora(rank=2)
    return generator


@pytest.fixture(scope="module")
def pairs(with_lora: DenoisingGenerator) -> LatentPairs:
    conditioning = with_lora.condition(PROMPTS, **SIZE)
    chosen, rejected = (gaussian(N, *conditioning.latent_shape, seed=seed) for seed in (0, 1))
    return LatentPairs(chosen, rejected, conditioning, torch.tensor([0, 1, 2, 2, 1, 0]), PROMPTS)


@pytest.fixture
def fresh(with_lora: DenoisingGenerator) -> Iterator[DenoisingGenerator]:
    """The policy still is the reference."""
    before = {name: tensor.clone() for name, tensor in lora.lora_state(with_lora.policy).items()}
    yield with_lora
    for name, tensor in lora.lora_state(with_lora.policy).items():
        tensor.data.copy_(before[name])
    with_lora.policy.zero_grad()


@pytest.fixture
def trained(fresh: DenoisingGenerator) -> DenoisingGenerator:
    """The policy is another network than the reference."""
    for seed, parameter in enumerate(lora.trainable(fresh.policy)):
        parameter.data.copy_(0.5 * gaussian(*parameter.shape, seed=seed))
    return fresh


def flow_dpo(generator: DenoisingGenerator, pairs: LatentPairs, **options: Any) -> FlowDPO:
    return FlowDPO(FlowDPOConfig(**options), Task(SimpleNamespace(generator=generator), data=pairs))


def gradients(method: FlowDPO, *batches: PairBatch) -> dict[str, Tensor]:
    """Of the loss over batches weighted by their rows, by parameter."""
    method.generator.policy.zero_grad()
    total = sum(len(batch) for batch in batches)
    for batch in batches:
        (method.loss(batch)[0] * len(batch) / total).backward()
    named = method.generator.policy.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.requires_grad and p.grad is not None}


@torch.no_grad()
def predictions(method: FlowDPO, batch: PairBatch, which: Any) -> Iterator[tuple[Tensor, Tensor, Any]]:
    """Of the chosen and then the rejected side: clean latents, noise and what the network says of their mix."""
    pairs = method.pairs
    conditioning = pairs.conditioning.rows(pairs.prompt[batch.rows])
    for side in (pairs.chosen, pairs.rejected):
        clean = side[batch.rows]
        noisy = add_noise(clean, batch.noise, batch.level.alpha, batch.level.sigma)
        with method.generator.weights(which):
            yield clean, batch.noise, method.generator.predict(noisy, batch.level, conditioning)


def mean_square(error: Tensor) -> Tensor:
    return error.square().mean((1, 2, 3))


# The start


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_the_start_the_loss_is_log_two_and_nothing_has_moved(
    fresh: DenoisingGenerator, pairs: LatentPairs, schedule: Any
) -> None:
    method = flow_dpo(fresh, pairs, beta_schedule=schedule, beta=5000.0)
    loss, metrics = method.loss(method.batch(0, size=B, seed=0))
    assert loss.item() == torch.tensor(2.0).log().item()
    assert {name: value.item() for name, value in metrics.items()} == {
        "accuracy": 0.5,
        "margin": 0.0,
        "chosen_gain": 0.0,
        "rejected_gain": 0.0,
    }


def test_at_the_start_swapping_the_sides_negates_the_gradient(
    fresh: DenoisingGenerator, pairs: LatentPairs
) -> None:
    swapped = replace(pairs, chosen=pairs.rejected, rejected=pairs.chosen)
    one, other = (flow_dpo(fresh, p) for p in (pairs, swapped))
    forth, back = (gradients(m, m.batch(0, size=B, seed=0)) for m in (one, other))
    for name, gradient in forth.items():
        assert_close(back[name], -gradient, **CLOSE)
    assert max(float(g.abs().max()) for g in forth.values()) > 1e-2


def test_a_small_step_down_the_gradient_prefers_the_chosen_side(
    fresh: DenoisingGenerator, pairs: LatentPairs
) -> None:
    method = flow_dpo(fresh, pairs)
    batch = method.batch(0, size=B, seed=0)
    slope = gradients(method, batch)
    # To first order the loss falls by the step times the squared slope: here by 1e-4, over a thousand roundings.
    step = 1e-4 / sum(float(g.square().sum()) for g in slope.values())
    for name, parameter in fresh.policy.named_parameters():
        if name in slope:
            parameter.data -= step * slope[name]
    loss, metrics = method.loss(batch)
    assert metrics["margin"].item() > 0
    assert math.log(2) - loss.item() == pytest.approx(1e-4, rel=0.1)


# Any policy


@torch.no_grad()
def test_swapping_the_sides_negates_the_margin(trained: DenoisingGenerator, pairs: LatentPairs) -> None:
    swapped = replace(pairs, chosen=pairs.rejected, rejected=pairs.chosen)
    one, other = (flow_dpo(trained, p) for p in (pairs, swapped))
    margins = []
    for k in range(B):  # row by row: in a mean, sides could be swapped between pairs
        (_, forth), (_, back) = (m.loss(m.batch(0, size=B, seed=0).part(k, k + 1)) for m in (one, other))
        assert_close(back["margin"], -forth["margin"], **CLOSE)
        assert_close(back["accuracy"], 1 - forth["accuracy"])
        assert_close(back["chosen_gain"], forth["rejected_gain"], **CLOSE)
        margins.append(abs(forth["margin"].item()))
    assert max(margins) > 1e-2


@torch.no_grad()
def test_two_copies_of_one_sample_have_no_margin(trained: DenoisingGenerator, pairs: LatentPairs) -> None:
    # Red as soon as the two sides see different noise, another level or another prompt.
    method = flow_dpo(trained, replace(pairs, rejected=pairs.chosen))
    batch = method.batch(0, size=B, seed=0)
    for k in range(B):
        loss, metrics = method.loss(batch.part(k, k + 1))
        assert abs(metrics["margin"].item()) < 1e-6
        assert abs(metrics["chosen_gain"].item()) > 1e-3
        assert_close(loss.item(), math.log(2), rtol=0, atol=1e-4)


@torch.no_grad()
def test_the_loss_is_the_formula_on_velocity_errors(trained: DenoisingGenerator, pairs: LatentPairs) -> None:
    method = flow_dpo(trained, pairs, beta=7.0)
    batch = method.batch(3, size=B, seed=0)
    chosen, rejected, ref_chosen, ref_rejected = (
        mean_square(seen.velocity - (noise - clean))
        for which in ("policy", "reference")
        for clean, noise, seen in predictions(method, batch, which)
    )
    loss, metrics = method.loss(batch)
    gap = (chosen - ref_chosen) - (rejected - ref_rejected)
    assert_close(loss, F.softplus(7.0 / 2 * gap).mean(), **CLOSE)
    assert_close(metrics["margin"], -gap.mean() / 2, **CLOSE)
    assert_close(metrics["accuracy"], (gap < 0).float().mean())
    assert_close(metrics["chosen_gain"], (ref_chosen - chosen).mean() / 2, **CLOSE)
    assert_close(metrics["rejected_gain"], (ref_rejected - rejected).mean() / 2, **CLOSE)


@torch.no_grad()
def test_a_beta_that_falls_with_sigma_is_diffusion_dpo_on_the_noise(
    trained: DenoisingGenerator, pairs: LatentPairs
) -> None:
    method = flow_dpo(trained, pairs, beta=20.0, beta_schedule="one_minus_sigma_sq")
    batch = method.batch(0, size=B, seed=0)
    chosen, rejected, ref_chosen, ref_rejected = (
        mean_square(seen.noise - noise)
        for which in ("policy", "reference")
        for _, noise, seen in predictions(method, batch, which)
    )
    expected = F.softplus(20.0 / 2 * ((chosen - ref_chosen) - (rejected - ref_rejected))).mean()
    loss, _ = method.loss(batch)
    assert_close(loss, expected, **CLOSE)
    constant, _ = flow_dpo(trained, pairs, beta=20.0).loss(batch)
    assert abs(constant.item() - loss.item()) > 1e-2


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_parts_of_a_batch_add_up_to_its_gradient(
    trained: DenoisingGenerator, pairs: LatentPairs, schedule: Any
) -> None:
    method = flow_dpo(trained, pairs, beta_schedule=schedule)
    batch = method.batch(0, size=B, seed=0)
    parts = [batch.part(0, 2), batch.part(2, 4), batch.part(4, 5)]
    assert [len(part) for part in parts] == [2, 2, 1]
    whole, added = gradients(method, batch), gradients(method, *parts)
    assert whole.keys() == added.keys()
    largest = max(float(g.abs().max()) for g in whole.values())
    for name, gradient in whole.items():
        assert_close(added[name], gradient, rtol=1e-3, atol=1e-5 * largest)


@torch.no_grad()
def test_numbers_worth_plotting_are_means_over_rows(trained: DenoisingGenerator, pairs: LatentPairs) -> None:
    method = flow_dpo(trained, pairs)
    batch = method.batch(0, size=B, seed=0)
    loss, metrics = method.loss(batch)
    rows = [method.loss(batch.part(k, k + 1)) for k in range(B)]
    assert_close(torch.stack([row for row, _ in rows]).mean(), loss, **CLOSE)
    for name, value in metrics.items():
        assert_close(torch.stack([row[name] for _, row in rows]).mean(), value, **CLOSE)


def test_gradient_reaches_the_lora_alone(trained: DenoisingGenerator, pairs: LatentPairs) -> None:
    method = flow_dpo(trained, pairs)
    loss, metrics = method.loss(method.batch(0, size=B, seed=0))
    loss.backward()
    with_gradient = {name for name, p in trained.policy.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)
    assert not any(value.requires_grad for value in metrics.values())


@torch.no_grad()
def test_a_pair_costs_four_passes_of_the_denoiser(trained: DenoisingGenerator, pairs: LatentPairs) -> None:
    method = flow_dpo(trained, pairs)
    before = trained.denoiser_passes
    method.loss(method.batch(0, size=B, seed=0))
    assert trained.denoiser_passes - before == 4 * B


# Batches


def drawn(batch: PairBatch) -> list[Tensor]:
    return [batch.rows, batch.noise, batch.level.sigma, batch.level.model_time]


def test_a_batch_depends_on_step_and_seed_alone(fresh: DenoisingGenerator, pairs: LatentPairs) -> None:
    unbroken = flow_dpo(fresh, pairs)
    torch.manual_seed(1)
    steps = [drawn(unbroken.batch(step, size=B, seed=7)) for step in range(4)]
    resumed = flow_dpo(fresh, pairs)
    torch.manual_seed(2)
    for step in (3, 1):
        for one, other in zip(drawn(resumed.batch(step, size=B, seed=7)), steps[step], strict=True):
            assert torch.equal(one, other)


def test_another_step_or_seed_is_another_batch(fresh: DenoisingGenerator, pairs: LatentPairs) -> None:
    method = flow_dpo(fresh, pairs)
    here = method.batch(0, size=B, seed=0)
    for step, seed in ((1, 0), (0, 1)):
        there = method.batch(step, size=B, seed=seed)
        assert not torch.equal(here.noise, there.noise)
        assert not torch.equal(here.level.sigma, there.level.sigma)


def test_a_part_is_its_rows_of_the_batch(fresh: DenoisingGenerator, pairs: LatentPairs) -> None:
    batch = flow_dpo(fresh, pairs).batch(0, size=B, seed=0)
    parts = drawn(batch.part(1, 4))
    assert len(parts) > 1
    for one, other in zip(parts, drawn(batch), strict=True):
        assert len(one) == 3
        assert torch.equal(one, other[1:4])


def test_pairs_of_a_batch_have_their_own_noise(fresh: DenoisingGenerator, pairs: LatentPairs) -> None:
    batch = flow_dpo(fresh, pairs).batch(0, size=B, seed=0)
    assert len(batch.noise.flatten(1).unique(dim=0)) == B
    assert len(batch.level.sigma.unique()) > 1


@pytest.mark.parametrize("mean", [-6.0, 0.0, 6.0])
def test_noise_levels_are_logit_normal_over_the_rows_of_the_table(
    fresh: DenoisingGenerator, pairs: LatentPairs, mean: float
) -> None:
    method = flow_dpo(fresh, pairs, sigma_mean=mean, sigma_std=0.5)
    row = method.training_rows(400, generator=torch.Generator().manual_seed(0))
    levels = len(fresh.timesteps)
    assert 0 <= row.min() <= row.max() < levels
    # Row 0 is pure noise, and a positive mean favours noise.
    share = 1 - (row.double() + 0.5) / levels
    assert abs(share.logit().median().item() - mean) < 0.2
    assert fresh.timesteps.sigma[0] > fresh.timesteps.sigma[-1]


# What is refused


def test_a_model_that_predicts_noise_is_refused(pairs: LatentPairs) -> None:
    class Epsilon:
        timesteps = read_timesteps(DDIMScheduler())

    generator: Any = Epsilon()
    with pytest.raises(ConfigError, match=r"needs a rectified flow.* predicts 'epsilon'; use diffusion_dpo"):
        flow_dpo(generator, pairs)


def test_sides_of_different_shapes_are_refused(pairs: LatentPairs) -> None:
    with pytest.raises(ShapeError, match=r"rejected: expected \[6, 4, 8, 8\], got \[5, 4, 8, 8\]"):
        replace(pairs, rejected=pairs.rejected[:5])


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
@pytest.mark.parametrize("name", ["beta", "sigma_std"])
def test_a_number_that_is_not_positive_is_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=rf"method.{name} = {value}: expected .*a positive number"):
        FlowDPOConfig(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompts": 0}, "method.own.prompts = 0: expected at least 1"),
        ({"pairs_per_prompt": 0}, "method.own.pairs_per_prompt = 0: expected at least 1"),
        ({"group_size": 5, "pairs_per_prompt": 3}, "no sample may stand on both sides"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        OwnPairs(**options)


def test_the_table_of_methods_finds_it() -> None:
    assert METHODS[FlowDPOConfig.name][0] is FlowDPOConfig
    assert load_method(FlowDPOConfig.name) is FlowDPO
