"""Trajectories on small random pipelines of real classes: against the pipeline itself, and against their own record."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.generators import lora
from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.rollout import Sampler, Start, begin, rollout, scored_step
from tests.generators.small_pipelines import PIPELINES, stable_diffusion, stable_diffusion_3

SIZE = {"height": 16, "width": 16}
PROMPTS = ["a red circle", "one blue star on the left", "two"]
SEEDS = [5, 6, 7]
T = 4


@pytest.fixture(scope="module", params=[stable_diffusion, stable_diffusion_3], ids=["diffusion", "flow"])
def generator(request: pytest.FixtureRequest) -> DenoisingGenerator:
    generator = DenoisingGenerator(request.param(), **SIZE)
    generator.attach_lora(rank=2)
    return generator


def started(generator: DenoisingGenerator, *, guidance: float | None = None, seeds: Any = SEEDS) -> Start:
    return begin(generator, PROMPTS, seeds=seeds, steps=T, guidance=guidance, **SIZE)


def moved(generator: DenoisingGenerator) -> None:
    """Make the policy another network than the reference."""
    for seed, parameter in enumerate(lora.trainable(generator.policy)):
        random = torch.Generator().manual_seed(seed)
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=random))


@pytest.mark.parametrize("build", sorted(PIPELINES))
@pytest.mark.parametrize("guidance", [None, 3.0])
def test_without_noise_a_rollout_is_the_pipeline_itself(build: str, guidance: float | None) -> None:
    generator = DenoisingGenerator(PIPELINES[build](), **SIZE)
    start = started(generator, guidance=guidance)
    found = rollout(generator, start, Sampler(noise_level=0.0, guidance=guidance), step_seeds=SEEDS)
    wanted = generator.sample(
        PROMPTS, seeds=SEEDS, guidance=guidance, steps=T, output_type="latent", height=16, width=16
    )
    assert_close(found.clean, wanted, rtol=1e-4, atol=1e-5)
    assert len(found.window) == 0
    assert found.log_prob.shape == (3, 0)


def test_beginning_costs_no_pass_and_leaves_the_users_scheduler(generator: DenoisingGenerator) -> None:
    before, scheduler = generator.denoiser_passes, generator.pipeline.scheduler
    started(generator, guidance=2.0)
    assert generator.denoiser_passes == before
    assert generator.pipeline.scheduler is scheduler


def test_levels_run_from_noise_to_clean_data(generator: DenoisingGenerator) -> None:
    levels = started(generator).levels
    assert len(levels) == T + 1
    assert (levels.sigma.diff() < 0).all()
    assert (levels.alpha.diff() > 0).all()
    if generator.timesteps.kind == "flow_prediction":
        assert levels.sigma[[0, -1]].tolist() == [1.0, 0.0]
    else:
        assert_close(levels.alpha**2 + levels.sigma**2, torch.ones(T + 1))


def test_equal_seeds_are_equal_noise_with_steps_of_their_own(generator: DenoisingGenerator) -> None:
    start = begin(generator, [PROMPTS[0]] * 3, seeds=[1, 1, 2], steps=T, **SIZE)
    assert torch.equal(start.noise[0], start.noise[1])
    assert not torch.equal(start.noise[0], start.noise[2])
    found = rollout(generator, start, Sampler(noise_level=0.7), step_seeds=[3, 4, 3])
    assert not torch.equal(found.latents[0, 1], found.latents[1, 1])


def test_a_sample_depends_on_its_seeds_and_not_on_its_batch(generator: DenoisingGenerator) -> None:
    sampler = Sampler(noise_level=0.7, guidance=2.0)
    together = rollout(generator, started(generator, guidance=2.0), sampler, step_seeds=[1, 2, 3])
    start = begin(generator, PROMPTS[1:2], seeds=SEEDS[1:2], steps=T, guidance=2.0, **SIZE)
    alone = rollout(generator, start, sampler, step_seeds=[2])
    assert_close(together.latents[1:2], alone.latents, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratio_guidance", ["inside", "outside"])
@pytest.mark.parametrize("guidance", [None, 2.0])
def test_scoring_a_step_again_gives_its_log_probability(
    generator: DenoisingGenerator, guidance: float | None, ratio_guidance: Any
) -> None:
    sampler = Sampler(noise_level=0.7, guidance=guidance, ratio_guidance=ratio_guidance)
    found = rollout(generator, started(generator, guidance=guidance), sampler, step_seeds=[1, 2, 3])
    assert found.window == range(T - 1)
    assert found.log_prob.shape == (3, T - 1)
    assert found.log_prob.isfinite().all()
    for step in found.window:
        again = scored_step(generator, found, torch.arange(3), torch.full((3,), step))
        assert_close(again.log_prob, found.log_prob[:, step], rtol=0, atol=1e-6)


def test_steps_may_be_scored_in_any_order(generator: DenoisingGenerator) -> None:
    """Red where a step is scored at the level of its place in the batch rather than its own."""
    found = rollout(generator, started(generator), Sampler(noise_level=0.7), step_seeds=[1, 2, 3])
    sample, step = torch.tensor([2, 0, 1, 0]), torch.tensor([1, 2, 0, 0])
    again = scored_step(generator, found, sample, step)
    assert_close(again.log_prob, found.log_prob[sample, step], rtol=0, atol=1e-5)


def test_guidance_outside_the_ratio_is_the_likelihood_of_the_conditional_branch(
    generator: DenoisingGenerator,
) -> None:
    inside, outside = (
        rollout(
            generator,
            started(generator, guidance=4.0),
            Sampler(noise_level=0.7, guidance=4.0, ratio_guidance=where),
            step_seeds=[1, 2, 3],
        )
        for where in ("inside", "outside")
    )
    assert torch.equal(inside.latents, outside.latents)
    for k in range(T - 1):
        here, to = (outside.levels.rows(torch.full((3,), j)) for j in (k, k + 1))
        with torch.no_grad():
            conditional = generator.predict(outside.latents[:, k], here, outside.conditioning)
        by_hand = Sampler(noise_level=0.7).step(conditional, to, sample=outside.latents[:, k + 1])
        assert_close(outside.log_prob[:, k], by_hand.log_prob, rtol=0, atol=1e-6)
    assert float((outside.log_prob - inside.log_prob).abs().max()) > 1e-3
    before = generator.denoiser_passes
    scored_step(generator, outside, torch.arange(3), torch.zeros(3, dtype=torch.long))
    assert generator.denoiser_passes - before == 3


def test_only_the_window_is_random(generator: DenoisingGenerator) -> None:
    start = started(generator)
    sampler = Sampler(noise_level=0.7)
    one, other = (
        rollout(generator, start, sampler, step_seeds=seeds, window=range(1, 2))
        for seeds in ([1, 2, 3], [4, 5, 6])
    )
    assert one.log_prob.shape == (3, 1)
    assert torch.equal(one.latents[:, 1], other.latents[:, 1])
    assert not torch.equal(one.latents[:, 2], other.latents[:, 2])
    # From there on each follows the deterministic sampler.
    level, to = (start.levels.rows(torch.full((3,), k)) for k in (2, 3))
    with torch.no_grad():
        prediction = generator.predict(one.latents[:, 2], level, start.conditioning)
    assert_close(one.latents[:, 3], Sampler(noise_level=0.0).step(prediction, to).sample)
    again = scored_step(generator, one, torch.arange(3), torch.full((3,), 1))
    assert_close(again.log_prob, one.log_prob[:, 0], rtol=0, atol=1e-6)


def test_gradient_reaches_the_lora_and_no_recorded_latents(generator: DenoisingGenerator) -> None:
    found = rollout(generator, started(generator), Sampler(noise_level=0.7), step_seeds=[1, 2, 3])
    assert not found.latents.requires_grad
    scored_step(generator, found, torch.arange(3), torch.tensor([0, 1, 2])).log_prob.sum().backward()
    with_gradient = {name for name, p in generator.policy.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("lora" in name for name in with_gradient)
    generator.policy.zero_grad()


@pytest.mark.parametrize("window", [range(-1, 2), range(2, T + 1)])
def test_a_window_outside_the_steps_is_refused(generator: DenoisingGenerator, window: range) -> None:
    with pytest.raises(ConfigError, match=f"there are steps 0 to {T - 1}"):
        rollout(generator, started(generator), Sampler(noise_level=0.7), step_seeds=SEEDS, window=window)


# Kept copies of the LoRA


def prediction(generator: DenoisingGenerator, which: Any = "policy") -> torch.Tensor:
    start = started(generator)
    with torch.no_grad(), generator.weights(which):
        return generator.predict(
            start.noise, start.levels.rows(torch.tensor([1, 1, 1])), start.conditioning
        ).output


def test_a_kept_copy_stays_while_the_policy_moves(generator: DenoisingGenerator) -> None:
    generator.kept.keep("old")
    before = prediction(generator)
    moved(generator)
    assert torch.equal(prediction(generator, "old"), before)
    after = prediction(generator)
    assert float((after - before).abs().max()) > 1e-3
    with pytest.raises(RuntimeError, match="stop"), generator.weights("old"):
        raise RuntimeError("stop")
    assert torch.equal(prediction(generator), after)  # the policy is back after an exception


def test_blending_moves_a_copy_by_its_share(generator: DenoisingGenerator) -> None:
    generator.kept.keep("old")
    old = {name: p.detach().clone() for name, p in generator.policy.named_parameters() if p.requires_grad}
    moved(generator)
    for parameter in lora.trainable(generator.policy):
        parameter.data += 1
    new = {name: p.detach().clone() for name, p in generator.policy.named_parameters() if p.requires_grad}
    generator.kept.blend("old", decay=0.75)
    assert {path.removeprefix("old/") for path in generator.kept.state()} == old.keys()
    assert old
    for path, tensor in generator.kept.state().items():
        name = path.removeprefix("old/")
        assert_close(tensor, 0.75 * old[name] + 0.25 * new[name])
    generator.kept.blend("old", decay=0.0)
    assert all(torch.equal(t, new[path.removeprefix("old/")]) for path, t in generator.kept.state().items())


def test_copies_come_back_from_a_checkpoint(generator: DenoisingGenerator) -> None:
    generator.kept.keep("old")
    before = prediction(generator, "old")
    state = {name: tensor.clone() for name, tensor in generator.kept.state().items()}
    moved(generator)
    generator.kept.keep("old")
    generator.kept.load_state(state)
    assert torch.equal(prediction(generator, "old"), before)


def test_an_unknown_copy_is_refused(generator: DenoisingGenerator) -> None:
    with pytest.raises(ConfigError, match="no copy 'target' was kept"), generator.weights("target"):
        pass
