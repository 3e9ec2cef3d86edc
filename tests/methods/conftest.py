"""Small real generators of both families with a real learned reward: what every method is tested on."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from mmalign.adapters.image import ImageAdapter
from mmalign.generators import lora
from mmalign.methods.base import Task
from mmalign.methods.latents import LatentPairs, LatentSamples
from mmalign.rewards.cards import load_reward
from tests.generators.small_pipelines import stable_diffusion, stable_diffusion_3

N = 6  # pairs or samples at hand
SIZE = {"height": 16, "width": 16}
PROMPTS = ["a red circle", "one blue star on the left", "two"]
FAMILIES: dict[str, Callable[[], Any]] = {"diffusion": stable_diffusion, "flow": stable_diffusion_3}


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> ImageAdapter:
    """One adapter of each family with a LoRA; tests take it through ``adapter``, which resets it."""
    adapter = ImageAdapter(FAMILIES[request.param](), **SIZE)
    adapter.generator.attach_lora(rank=2)
    return adapter


@pytest.fixture
def adapter(family: ImageAdapter) -> Iterator[ImageAdapter]:
    """The policy is the reference before and after."""
    policy = family.generator.policy
    before = {name: p.detach().clone() for name, p in policy.named_parameters() if p.requires_grad}
    yield family
    for name, parameter in policy.named_parameters():
        if name in before:
            parameter.data.copy_(before[name])
            parameter.grad = None


@pytest.fixture(scope="session")
def reward() -> Any:
    return load_reward("embedded/shapes-clip")


@pytest.fixture
def task(adapter: ImageAdapter, reward: Any) -> Task:
    """For online methods: prompts and a reward."""
    return Task(adapter, prompts=PROMPTS, reward=reward, sampling={"steps": 4, "guidance": 1.0, **SIZE})


def moved(adapter: ImageAdapter, *, scale: float = 0.3) -> None:
    """Make the policy another network than the reference."""
    for seed, parameter in enumerate(lora.trainable(adapter.generator.policy)):
        parameter.data.copy_(scale * gaussian(*parameter.shape, seed=seed))


def latent_pairs(adapter: ImageAdapter) -> LatentPairs:
    conditioning = adapter.generator.condition(PROMPTS, **SIZE)
    chosen, rejected = (gaussian(N, *conditioning.latent_shape, seed=seed) for seed in (0, 1))
    return LatentPairs(chosen, rejected, conditioning, torch.tensor([0, 1, 2, 2, 1, 0]), PROMPTS)


def latent_samples(adapter: ImageAdapter, *, scored: bool = True) -> LatentSamples:
    conditioning = adapter.generator.condition(PROMPTS, **SIZE)
    score = torch.tensor([0.0, 1.0, 5.0, 2.0, 3.0, 4.0]) if scored else None
    clean = gaussian(N, *conditioning.latent_shape, seed=2)
    return LatentSamples(clean, conditioning, torch.tensor([0, 1, 2, 2, 1, 0]), PROMPTS, score)


def gradients(adapter: ImageAdapter, loss: Tensor) -> dict[str, Tensor]:
    """Of a loss, by parameter."""
    adapter.generator.policy.zero_grad()
    loss.backward()
    named = adapter.generator.policy.named_parameters()
    return {name: p.grad.clone() for name, p in named if p.requires_grad and p.grad is not None}
