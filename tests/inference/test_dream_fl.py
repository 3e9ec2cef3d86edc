"""Score distillation of a field: what the generator of views knows becomes a solid, and a reward bends it."""

from typing import Any

import pytest
import torch

from mmalign.adapters.loading import load_adapter
from mmalign.adapters.scene3d import Scene3DAdapter
from mmalign.errors import ConfigError
from mmalign.inference.dream_fl import DreamSettings, as_scene, dream, estimate
from mmalign.media import turntable
from mmalign.rewards.cards import load_reward
from mmalign.worlds import views
from tests.generators.small_pipelines import stable_diffusion_3

SIZE: dict[str, Any] = {"height": 16, "width": 16}
CAMERAS = turntable(4, elevation_deg=10.0, fov_deg=0.0)
FEW = DreamSettings(steps=2, voxels=6)


@pytest.fixture(scope="module")
def small() -> Scene3DAdapter:
    return Scene3DAdapter(stable_diffusion_3(), rows=2, columns=2, cameras=CAMERAS, **SIZE)


@pytest.fixture(scope="module")
def embedded() -> Scene3DAdapter:
    adapter = load_adapter("embedded/shapes-views", max_sequence_length=1)
    assert isinstance(adapter, Scene3DAdapter)
    return adapter


def test_the_same_seed_is_the_same_field_and_the_generator_stays_as_it_was(small: Scene3DAdapter) -> None:
    before = {name: value.clone() for name, value in small.generator.policy.state_dict().items()}
    first, again, other = (
        dream(small, "a cube", seed=seed, settings=FEW, **SIZE).raw_density for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(
        torch.equal(value, before[name]) for name, value in small.generator.policy.state_dict().items()
    )
    assert all(p.grad is None for p in small.generator.policy.parameters())


def test_the_estimate_is_at_the_noise_level_of_its_place(small: Scene3DAdapter) -> None:
    """At the least noise the noisy latents are the clean ones, so the estimate differs by sigma x velocity alone."""
    conditioning = small.generator.condition(["a cube"], guidance=2.0, **SIZE)
    latents, noise = torch.randn(2, 1, *conditioning.latent_shape, generator=torch.Generator().manual_seed(0))
    away = [
        (estimate(small, latents, noise, conditioning, place=place, guidance=2.0) - latents).norm().item()
        for place in (0.0, 0.5, 1.0)
    ]
    assert away[0] < 0.02 * away[1] < 0.02 * away[2]


def test_what_it_cannot_use_is_refused(small: Scene3DAdapter) -> None:
    blind = Scene3DAdapter(stable_diffusion_3(), rows=2, columns=2, **SIZE)
    with pytest.raises(ConfigError, match="of 0 known cameras"):
        dream(blind, "a cube", seed=0, settings=FEW, **SIZE)
    with pytest.raises(ConfigError, match="'view-consistency' is not made so"):
        dream(small, "a cube", seed=0, settings=FEW, reward=load_reward("view-consistency"), **SIZE)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_prompt_becomes_the_solid_that_it_names(embedded: Scene3DAdapter) -> None:
    reward: Any = load_reward("embedded/solids-clip-views")
    prompt = "a large red sphere"
    field = dream(embedded, prompt, seed=0, reward=reward, max_sequence_length=1)
    scene = as_scene(field, embedded)
    assert scene.views is not None
    solid = views.parse(prompt)
    assert solid is not None
    assert views.measure(scene.views[None], [solid])["overall"].item() > 0.6
    assert scene.mesh is not None
    radius = (scene.mesh.vertices - scene.mesh.vertices.mean(0)).norm(dim=1).mean().item()
    assert radius == pytest.approx(views.SIZES["large"], rel=0.25)
