"""The reward that a tuned generator is: nothing before training, the likelihood ratio after it."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mmalign.adapters.image import ImageAdapter
from mmalign.adapters.speech import SpeechAdapter
from mmalign.errors import ConfigError
from mmalign.generators import lora
from mmalign.likelihoods import denoising_log_likelihood, token_log_prob
from mmalign.media import Image, Sample
from mmalign.training.implicit_reward import LEVELS, implicit_rewards, implicit_rewards_of_run
from tests.generators.small_pipelines import stable_diffusion_3
from tests.methods.test_token_methods import made

__all__ = ["made"]

B = 3


@pytest.fixture(scope="module")
def adapter() -> ImageAdapter:
    found = ImageAdapter(stable_diffusion_3(), height=16, width=16)
    found.generator.attach_lora(rank=2)
    return found


def samples() -> list[Sample]:
    random = torch.Generator().manual_seed(0)
    prompts = ["a red circle", "one blue star", "two"]
    return [Sample(prompt, Image(torch.rand(3, 16, 16, generator=random))) for prompt in prompts]


def test_it_is_0_until_the_policy_moves_and_then_the_mean_log_ratio_over_levels(
    adapter: ImageAdapter,
) -> None:
    size = {"height": 16, "width": 16}
    assert implicit_rewards(adapter, samples(), **size).tolist() == [0.0] * B
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in adapter.generator.policy.named_parameters():
            if "lora_B" in name:
                weight.copy_(torch.randn(weight.shape, generator=random))
    found = implicit_rewards(adapter, samples(), **size)
    assert found.abs().min() > 0
    assert_close(implicit_rewards(adapter, samples(), batch_size=1, **size), found, rtol=1e-4, atol=1e-6)
    alone = implicit_rewards(adapter, samples()[1:2], **size)
    assert_close(alone, found[1:2], rtol=1e-4, atol=1e-6)
    assert not torch.equal(implicit_rewards(adapter, samples(), seed=1, **size), found)
    # The plain loop of one sample.
    one = samples()[0]
    latents, count = adapter.encode([one.media]), len(adapter.generator.timesteps)  # type: ignore[list-item]
    conditioning = adapter.condition([one.prompt], **size)
    noises = torch.Generator().manual_seed(0)
    ratios = []
    with torch.no_grad():
        for k in range(LEVELS):
            level = adapter.generator.timesteps.at(torch.tensor([int((k + 0.5) / LEVELS * count)]))
            noise = torch.randn(latents.shape[1:], generator=noises)[None]
            both = []
            for which in ("policy", "reference"):
                with adapter.generator.weights(which):
                    both.append(
                        denoising_log_likelihood(
                            adapter.generator, latents, conditioning, noise=noise, level=level
                        )
                    )
            ratios.append(both[0] - both[1])
    assert_close(found[:1], torch.stack(ratios).mean(0), rtol=1e-4, atol=1e-6)


def test_a_run_without_a_lora_has_none(tmp_path: Path) -> None:
    from mmalign.training.recipe import load_recipe, save_recipe

    save_recipe(load_recipe("image/flow_dpo"), tmp_path / "recipe.yaml")
    with pytest.raises(ConfigError, match="this run has no LoRA"):
        implicit_rewards_of_run(tmp_path, samples())


@pytest.mark.parametrize("name", ["image/nft", "image/d3po", "image/rwr", "image/flow_grpo", "speech/rwr"])
def test_a_run_of_another_method_has_none(name: str, tmp_path: Path) -> None:
    from mmalign.training.recipe import load_recipe, save_recipe

    recipe = load_recipe(name)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    (tmp_path / "lora").mkdir()
    with pytest.raises(ConfigError, match=f"derived from DPO, and {recipe.method.name} has another optimum"):
        implicit_rewards_of_run(tmp_path, samples())


def test_of_a_token_model_it_is_the_sum_of_the_log_ratios_of_its_tokens(made: SpeechAdapter) -> None:
    spoken = made.generate(["go left", "stop"], seeds=[0, 1], frames=4)
    samples = [Sample(prompt, sound) for prompt, sound in zip(["go left", "stop"], spoken, strict=True)]
    assert implicit_rewards(made, samples).tolist() == [0.0, 0.0]
    start = [p.detach().clone() for p in lora.trainable(made.generator.model)]
    try:
        for seed, parameter in enumerate(lora.trainable(made.generator.model)):
            random = torch.Generator().manual_seed(seed)
            parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=random))
        found = implicit_rewards(made, samples)
        one = made.encode([spoken[0]])
        with torch.no_grad():
            mine = token_log_prob(made.generator, one, made.condition(["go left"])).sum()
            with made.generator.weights("reference"):
                reference = token_log_prob(made.generator, one, made.condition(["go left"])).sum()
    finally:
        for parameter, value in zip(lora.trainable(made.generator.model), start, strict=True):
            parameter.data.copy_(value)
    assert found.abs().min() > 0
    assert_close(found[0], mine - reference, rtol=1e-4, atol=1e-5)
    assert_close(implicit_rewards(made, samples, batch_size=1), torch.zeros(2))
