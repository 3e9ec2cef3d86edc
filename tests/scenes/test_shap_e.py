"""Shap-E from a prompt to a mesh file, on a small random copy of the real classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Mesh
from mmalign.scenes.shap_e import shap_e_mesh
from tests.generators.small_scene_pipelines import shap_e

LOW = 9
"""The coordinates themselves, and the sines of once and twice them."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Its default initialisation gives a flat distance of white noise: the last layers' weights are made larger, and of
    the places' frequencies only the lowest are left."""
    with torch.random.fork_rng():
        made = shap_e()
    renderer = made.shap_e_renderer
    for layer in renderer.mlp.mlp[-3:]:
        layer.weight.data.mul_(8.0)
    first = next(iter(renderer.params_proj.projections.values()))
    first.norm.weight.data[LOW:] = 0
    first.proj.bias.data.view(8, 93)[:, LOW:] = 0
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def latents(pipeline: Any) -> torch.Tensor:
    seeded = torch.Generator("cpu").manual_seed(0)
    found: torch.Tensor = pipeline(
        "a red cube", num_inference_steps=2, generator=seeded, output_type="latent"
    ).images
    return found[0]


def test_a_prompt_becomes_a_closed_mesh_file(pipeline: Any, latents: torch.Tensor, tmp_path: Path) -> None:
    mesh = shap_e_mesh(pipeline.shap_e_renderer, latents, points=24)
    mesh.save(tmp_path / "a.glb")
    body = trimesh.load_scene(tmp_path / "a.glb").to_mesh()
    assert body.is_watertight
    assert Mesh.load(tmp_path / "a.glb").colours is not None


def test_the_distance_is_positive_just_within_and_negative_just_outside(
    pipeline: Any, latents: torch.Tensor
) -> None:
    renderer = pipeline.shap_e_renderer
    mesh = shap_e_mesh(renderer, latents, points=48)
    body = trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)
    step = torch.from_numpy(body.vertex_normals.copy()).float() * (2 / 47)

    def distance(places: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            found: torch.Tensor = renderer.mlp(
                position=places[None], direction=None, ts=None, nerf_level="fine", rendering_mode="stf"
            ).signed_distance
        return found.flatten()

    free = (mesh.vertices.abs() < 0.95).all(1)  # not where the box cuts it off
    assert free.sum() > 50
    assert (distance(mesh.vertices - step)[free] > 0).float().mean() > 0.95
    assert (distance(mesh.vertices + step)[free] < 0).float().mean() > 0.95


def test_what_has_no_surface_is_refused(pipeline: Any, latents: torch.Tensor) -> None:
    with pytest.raises(ShapeError, match=r"expected \[L, D\]"):
        shap_e_mesh(pipeline.shap_e_renderer, latents[None])
    flat = pipeline.shap_e_renderer
    bias = flat.mlp.mlp[-1].bias.data.clone()
    flat.mlp.mlp[-1].bias.data += 1e3
    with pytest.raises(ConfigError, match="there is no surface"):
        shap_e_mesh(flat, latents, points=8)
    flat.mlp.mlp[-1].bias.data = bias
