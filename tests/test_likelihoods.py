"""The denoising surrogate on networks whose error is known, and on a real small pipeline."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.generators.denoising import DenoisingGenerator
from mmalign.generators.timesteps import NoiseLevel, TimestepTable
from mmalign.likelihoods import denoising_log_likelihood
from mmalign.sampling import Kind, Prediction, add_noise, target
from tests.generators.small_pipelines import stable_diffusion_3

B = 3
KINDS: tuple[Kind, ...] = get_args(Kind)
SIZE = {"height": 16, "width": 16}
PROMPTS = ["a red circle", "one blue star on the left", "two"]
ROW = torch.tensor([900, 20, 500])


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Oracle:
    """A network that knows the data and the noise, and answers each sample wrong by a known amount."""

    def __init__(self, kind: Kind, clean: Tensor, noise: Tensor, error: Tensor) -> None:
        sigma = torch.tensor([0.8, 0.6, 0.28], dtype=torch.float64)
        alpha = 1 - sigma if kind == "flow_prediction" else (1 - sigma**2).sqrt()
        self.timesteps = TimestepTable(kind, alpha, sigma, 1000 * sigma)
        self.clean, self.noise, self.error = clean, noise, error

    def predict(self, noisy: Tensor, level: NoiseLevel, conditioning: Any) -> Prediction:
        shares = level.alpha, level.sigma
        # What it is shown is the mix at each sample's own level.
        assert_close(noisy, add_noise(self.clean, self.noise, *shares))
        wrong = self.error.reshape(-1, *[1] * (noisy.ndim - 1))
        output = target(self.clean, self.noise, *shares, self.timesteps.kind) + wrong
        return Prediction(noisy, output, *shares, self.timesteps.kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(4, 5), (2, 6, 4, 5)], ids=["tokens", "video"])
def test_a_network_wrong_by_e_has_minus_half_e_squared_in_its_own_parametrisation(
    kind: Kind, shape: tuple[int, ...]
) -> None:
    clean, noise = gaussian(B, *shape), gaussian(B, *shape, seed=1)
    oracle: Any = Oracle(kind, clean, noise, torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64))
    row = torch.tensor([2, 0, 1])
    found = denoising_log_likelihood(oracle, clean, None, noise=noise, level=oracle.timesteps.at(row))  # type: ignore[arg-type]
    assert_close(found, torch.tensor([0.0, -0.5, -2.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def generator() -> DenoisingGenerator:
    return DenoisingGenerator(stable_diffusion_3(), **SIZE)


@pytest.fixture(scope="module")
def sample(generator: DenoisingGenerator) -> tuple[Tensor, Tensor]:
    """Clean latents and noise."""
    shape = generator.condition(PROMPTS, **SIZE).latent_shape
    return gaussian(B, *shape).float(), gaussian(B, *shape, seed=1).float()


@torch.no_grad()
def test_of_a_flow_it_is_the_velocity_error_by_hand(
    generator: DenoisingGenerator, sample: tuple[Tensor, Tensor]
) -> None:
    clean, noise = sample
    conditioning = generator.condition(PROMPTS, **SIZE)
    sigma = generator.timesteps.sigma[ROW].reshape(B, 1, 1, 1)
    velocity = generator.policy(
        hidden_states=(1 - sigma) * clean + sigma * noise,
        timestep=1000 * sigma.flatten(),
        **conditioning.conditional,
    )[0]
    expected = -((velocity - (noise - clean)) ** 2).mean((1, 2, 3)) / 2
    found = denoising_log_likelihood(
        generator, clean, conditioning, noise=noise, level=generator.timesteps.at(ROW)
    )
    assert_close(found, expected)
    assert found.unique().numel() == B


@torch.no_grad()
def test_a_sample_does_not_know_its_neighbours(
    generator: DenoisingGenerator, sample: tuple[Tensor, Tensor]
) -> None:
    clean, noise = sample
    conditioning = generator.condition(PROMPTS, **SIZE)
    together = denoising_log_likelihood(
        generator, clean, conditioning, noise=noise, level=generator.timesteps.at(ROW)
    )
    order = torch.tensor([2, 0])
    fewer = denoising_log_likelihood(
        generator,
        clean[order],
        conditioning.rows(order),
        noise=noise[order],
        level=generator.timesteps.at(ROW[order]),
    )
    assert_close(fewer, together[order], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_guidance_has_no_part_in_it(generator: DenoisingGenerator, sample: tuple[Tensor, Tensor]) -> None:
    clean, noise = sample
    both, one = (generator.condition(PROMPTS, guidance=g, **SIZE) for g in (4.5, None))
    assert both.unconditional is not None
    found = [
        denoising_log_likelihood(generator, clean, c, noise=noise, level=generator.timesteps.at(ROW))
        for c in (both, one)
    ]
    assert_close(*found)
