"""Steering while drawing: identities on formulas, and on small real pipelines with a real reward."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.errors import ConfigError
from mmalign.inference.best_of_n import best_of_n
from mmalign.inference.drawing import guided_drawing
from mmalign.inference.dynamic_guidance import preferred, sample_with_dynamic_guidance
from mmalign.inference.reward_guidance import guided, reward_of_estimate, sample_with_reward
from mmalign.media import Image, Sample
from mmalign.rewards.base import Score
from mmalign.rewards.cards import find_card, load_reward
from mmalign.sampling import Prediction
from tests.generators.small_pipelines import flux, stable_diffusion, stable_diffusion_3

SIZE: dict[str, Any] = {"height": 16, "width": 16}
PROMPTS = ["a red circle", "one blue star on the left"]
KINDS = ("epsilon", "v_prediction", "sample", "flow_prediction")


@pytest.fixture(scope="module", params=[stable_diffusion, stable_diffusion_3], ids=["diffusion", "flow"])
def adapter(request: pytest.FixtureRequest) -> ImageAdapter:
    return ImageAdapter(request.param(), **SIZE)


@pytest.fixture(scope="module")
def reward() -> Any:
    return load_reward("embedded/shapes-clip")


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Reward guidance


def prediction(kind: Any) -> Prediction:
    sigma = torch.tensor([0.3, 0.8], dtype=torch.float64)
    alpha = 1 - sigma if kind == "flow_prediction" else (1 - sigma**2).sqrt()
    return Prediction(gaussian(2, 3, seed=0), gaussian(2, 3, seed=1), alpha=alpha, sigma=sigma, kind=kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_score_moves_by_the_weighted_gradient(kind: Any) -> None:
    before, gradient = prediction(kind), gaussian(2, 3, seed=2)
    after = guided(before, gradient, weight=0.7)
    sigma = before.sigma[:, None]
    assert_close(-after.noise / sigma, -before.noise / sigma + 0.7 * gradient)
    assert after.kind == kind


def test_a_flows_velocity_moves_as_the_paper_says() -> None:
    before, gradient = prediction("flow_prediction"), gaussian(2, 3, seed=2)
    sigma = before.sigma[:, None]
    assert_close(
        guided(before, gradient, weight=2.0).velocity, before.velocity - sigma / (1 - sigma) * 2.0 * gradient
    )


def test_pure_noise_is_not_steered() -> None:
    one = torch.ones(1)
    noise = Prediction(torch.ones(1, 2), torch.ones(1, 2), alpha=0 * one, sigma=one, kind="flow_prediction")
    assert torch.equal(guided(noise, torch.ones(1, 2)).output, noise.output)


def test_gaussian_data_shift_towards_the_reward() -> None:
    """Data N(0, 1), reward b x, weight w: 400 Euler steps, guided up to sigma 0.95, end at the known mean."""
    ends = {}
    for weight in (0.0, 0.1):
        x = gaussian(4000, 1, seed=0)
        start = x.mean()
        for k in range(400):
            sigma = torch.full((len(x),), 1 - k / 400, dtype=torch.float64)
            s = float(sigma[0])
            velocity = x * (s - (1 - s)) / ((1 - s) ** 2 + s**2)
            now = Prediction(x, velocity, alpha=1 - sigma, sigma=sigma, kind="flow_prediction")
            if s <= 0.95:
                now = guided(now, torch.ones_like(x), weight=weight)
            x = x - now.velocity / 400
        ends[weight] = float(x.mean() - start)
    assert ends[0.0] == pytest.approx(0.0, abs=5e-3)
    assert ends[0.1] - ends[0.0] == pytest.approx(0.24661, abs=1e-3)


def test_no_weight_is_the_plain_sampler(adapter: ImageAdapter, reward: Any) -> None:
    noisy = reward_of_estimate(adapter, reward)
    plain = adapter.generator.sample(PROMPTS, seeds=[1, 2], steps=3, output_type="latent", **SIZE)
    for rewards in ([(noisy, 0.0)], []):
        found = sample_with_reward(adapter, rewards, PROMPTS, seeds=[1, 2], steps=3, **SIZE)
        assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_weights_add_up_and_raise_the_reward(adapter: ImageAdapter, reward: Any) -> None:
    noisy = reward_of_estimate(adapter, reward)

    def drawn(*weights: float) -> Tensor:
        rewards = [(noisy, weight) for weight in weights]
        return sample_with_reward(adapter, rewards, PROMPTS, seeds=[1, 2], steps=4, **SIZE)

    def score(latents: Tensor) -> Tensor:
        samples = [Sample(p, m) for p, m in zip(PROMPTS, adapter.decode(latents), strict=True)]
        found: Tensor = reward.score(samples).value
        return found

    assert_close(drawn(0.02, 0.03), drawn(0.05), rtol=1e-3, atol=1e-4)
    assert_close(drawn(0.05, 0.0), drawn(0.05))
    assert (score(drawn(0.05)) > score(drawn(0.0))).all()


# Best of N


def test_the_best_of_the_candidates_wins(adapter: ImageAdapter, reward: Any) -> None:
    found = best_of_n(adapter, reward, PROMPTS, seeds=[10, 20], n=3, steps=2, **SIZE)
    assert found.scores.shape == (2, 3)
    for row, (prompt, seed) in enumerate(zip(PROMPTS, found.seeds, strict=True)):
        assert seed == [10, 20][row] + int(found.scores[row].argmax())
        (again,) = adapter.generate([prompt], seeds=[seed], steps=2, **SIZE)
        assert isinstance(again, Image)
        assert_close(again.pixels, found.media[row].pixels, rtol=0, atol=1 / 255)  # type: ignore[union-attr]


def test_lower_is_better_is_respected_and_missing_scores_never_win(adapter: ImageAdapter) -> None:
    class Scripted:
        """A reward whose numbers are given: what is tested is the choice."""

        def __init__(self, values: list[float], higher_is_better: bool) -> None:
            from dataclasses import replace

            self.values, self.card = (
                values,
                replace(find_card("placebo"), higher_is_better=higher_is_better),
            )

        def score(self, samples: Any) -> Score:
            value = torch.tensor(self.values)
            return Score(value, ["no score" if v != v else "ok" for v in self.values])

    nan = float("nan")
    for higher, winner in ((True, 2), (False, 0)):
        scripted = Scripted([1.0, nan, 3.0], higher)
        assert best_of_n(adapter, scripted, PROMPTS[:1], seeds=[5], n=3, steps=1, **SIZE).seeds == [
            5 + winner
        ]
    with pytest.raises(ConfigError, match="no candidate of 'a red circle' has a score"):
        best_of_n(adapter, Scripted([nan] * 2, True), PROMPTS[:1], seeds=[5], n=2, steps=1, **SIZE)


# Dynamic guidance


def test_one_scale_is_static_guidance(adapter: ImageAdapter, reward: Any) -> None:
    wanted = adapter.generator.sample(
        PROMPTS, seeds=[1, 2], steps=3, guidance=3.0, output_type="latent", **SIZE
    )
    found, taken = sample_with_dynamic_guidance(
        adapter, [(reward, 1.0)], PROMPTS, seeds=[1, 2], steps=3, scales=[3.0], **SIZE
    )
    assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert taken.tolist() == [[3.0] * 3] * 2


@pytest.mark.parametrize("scales", [[2.0], [1.0, 2.0, 5.0]])
def test_scales_cost_no_passes(adapter: ImageAdapter, reward: Any, scales: list[float]) -> None:
    before = adapter.generator.denoiser_passes
    sample_with_dynamic_guidance(
        adapter, [(reward, 1.0)], PROMPTS, seeds=[1, 2], steps=3, scales=scales, **SIZE
    )
    assert adapter.generator.denoiser_passes - before == 2 * 3 * len(PROMPTS)


def test_each_sample_takes_what_its_reward_likes() -> None:
    dark, light = (Image(torch.full((3, 4, 4), value)) for value in (0.1, 0.9))

    class Brightness:
        card = find_card("placebo")

        def score(self, samples: Any) -> Score:
            # The second prompt likes it dark.
            signs = [1.0 if sample.prompt == PROMPTS[0] else -1.0 for sample in samples]
            values = [sign * float(s.media.pixels.mean()) for sign, s in zip(signs, samples, strict=True)]
            return Score(torch.tensor(values), ["ok"] * len(values))

    media = [[dark, dark], [light, light], [light, light]]
    assert preferred(media, [(Brightness(), 1.0)], PROMPTS).tolist() == [1, 0]
    assert preferred(media, [(Brightness(), -1.0)], PROMPTS).tolist() == [0, 1]
    assert preferred(media, [(Brightness(), 0.0)], PROMPTS).tolist() == [0, 0]  # ties: the smallest


def test_a_pipeline_without_guidance_is_refused(reward: Any) -> None:
    with pytest.raises(ConfigError, match="FluxPipeline has no guidance whose scale could be chosen"):
        sample_with_dynamic_guidance(
            ImageAdapter(flux(guidance_embeds=True), **SIZE),
            [(reward, 1.0)],
            PROMPTS,
            seeds=[1, 2],
            steps=2,
            scales=[1.0, 2.0],
            **SIZE,
        )


# By name


@pytest.mark.parametrize("guide", ["best_of_n", "reward", "dynamic"])
def test_every_guide_draws_by_name(adapter: ImageAdapter, guide: Any) -> None:
    draw = guided_drawing(
        adapter,
        guide,
        rewards=["embedded/shapes-clip:0.05"],
        sampling={"steps": 2, "guidance": 2.0, **SIZE},
        n=2,
        scales=[1.0, 3.0],
        batch_size=4,
    )
    media, notes = draw(PROMPTS, [1, 2])
    assert len(media) == len(notes) == 2
    assert all(isinstance(medium, Image) and medium.pixels.shape == (3, 16, 16) for medium in media)


def test_a_black_box_cannot_steer(adapter: ImageAdapter) -> None:
    with pytest.raises(ConfigError, match="'placebo' has none; use --guide best_of_n"):
        guided_drawing(
            adapter, "reward", rewards=["placebo"], sampling={"steps": 1}, n=1, scales=[1.0], batch_size=1
        )
