"""The KL of a policy from its reference, against the plain sum over the steps of a rollout and over tokens."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mmalign.adapters.image import ImageAdapter
from mmalign.adapters.speech import SpeechAdapter
from mmalign.generators import lora
from mmalign.generators.rollout import Sampler, begin, rollout, scored_step
from mmalign.generators.token_layouts import IGNORED
from mmalign.likelihoods import token_log_prob
from mmalign.training import drift
from mmalign.training.recipe import SamplingConfig
from tests.generators.small_pipelines import stable_diffusion, stable_diffusion_3
from tests.methods.test_token_methods import made

__all__ = ["made"]
PROMPTS = ["a red circle", "two"]
SIZE = {"height": 16, "width": 16}


def move(policy: Any, *, scale: float) -> None:
    for seed, parameter in enumerate(lora.trainable(policy)):
        random = torch.Generator().manual_seed(seed)
        parameter.data.copy_(scale * torch.randn(parameter.shape, generator=random))


@pytest.mark.parametrize(("pipeline", "noise"), [(stable_diffusion, 1.0), (stable_diffusion_3, 0.7)])
def test_of_a_denoiser_it_is_the_sum_over_steps_of_the_policys_own_trajectories(
    pipeline: Callable[[], Any], noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "KL_STEPS", 4)
    adapter = ImageAdapter(pipeline(), **SIZE)
    generator = adapter.generator
    generator.attach_lora(rank=2)
    sampling = SamplingConfig(steps=3, guidance=2.0, **SIZE)  # type: ignore[arg-type]
    assert drift.distances(adapter, PROMPTS, sampling) == {"drift": 0.0, "kl": 0.0}
    move(generator.policy, scale=0.3)
    found = drift.trajectory_kl(adapter, PROMPTS, sampling)
    seeds = [drift.DRIFT_SEED, drift.DRIFT_SEED + 1]
    start = begin(generator, PROMPTS, seeds=seeds, steps=4, guidance=2.0, **SIZE)
    sampler = Sampler(noise_level=noise, guidance=2.0)
    path = rollout(generator, start, sampler, step_seeds=[seed + 2 for seed in seeds])
    wanted = torch.zeros(2)
    with torch.no_grad():
        for step in (0, 1, 2):
            rows, at = torch.arange(2), torch.full((2,), step)
            mine = scored_step(generator, path, rows, at)
            with generator.weights("reference"):
                other = scored_step(generator, path, rows, at)
            apart = (mine.mean - other.mean).square().flatten(1).sum(1)
            wanted += apart / (2 * mine.std**2)
    assert found == pytest.approx(float(wanted.mean()), rel=1e-4)
    assert found > 0


def test_of_a_token_model_it_is_the_sum_over_the_tokens_of_a_sample(made: SpeechAdapter) -> None:
    sampling = SamplingConfig(steps=None, guidance=1.0, frames=5)
    assert drift.distances(made, PROMPTS, sampling) == {"drift": 0.0, "kl": 0.0}
    start = [p.detach().clone() for p in lora.trainable(made.generator.model)]
    try:
        move(made.generator.model, scale=0.2)
        found = drift.distances(made, PROMPTS, sampling)
        # Its estimate from the log-ratios of many samples.
        many = PROMPTS * 100
        tokens = made.tokens(many, seeds=range(len(many)), batch_size=200)
        with torch.no_grad():
            mine = token_log_prob(made.generator, tokens, made.condition(many))
            with made.generator.weights("reference"):
                ratio = mine - token_log_prob(made.generator, tokens, made.condition(many))
        per_sample = (ratio * (tokens != IGNORED)).flatten(1).sum(1)
    finally:
        for parameter, value in zip(lora.trainable(made.generator.model), start, strict=True):
            parameter.data.copy_(value)
    assert found["kl"] > found["drift"] > 0
    # Two samples against 200: of the same size, and no mean over tokens, which is several times smaller.
    assert found["kl"] == pytest.approx(float(per_sample.mean()), rel=0.6)
