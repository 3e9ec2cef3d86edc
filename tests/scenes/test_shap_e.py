"""Shap-E from a prompt to a mesh file, on a small random copy of the real classes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import trimesh
from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
from diffusers.pipelines.shap_e import ShapERenderer
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Mesh
from mmalign.resources import resource
from mmalign.scenes.shap_e import shap_e_mesh

LOW = 9
"""The coordinates themselves, and the sines of once and twice them."""


@pytest.fixture(scope="module")
def pipeline() -> Any:
    """Its default initialisation gives a flat distance of white noise: the last layers' weights are made larger, and of
    the places' frequencies only the lowest are left."""
    tokenizer = CLIPTokenizer.from_pretrained(resource("assets") / "shapes-views" / "tokenizer")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        renderer = ShapERenderer(
            param_shapes=((8, 93), (8, 8), (8, 8), (8, 8)),
            d_latent=16,
            d_hidden=8,
            n_output=12,
            background=(0.1, 0.1, 0.1),
        )
        for layer in renderer.mlp.mlp[-3:]:
            layer.weight.data.mul_(8.0)
        first = next(iter(renderer.params_proj.projections.values()))
        first.norm.weight.data[LOW:] = 0
        first.proj.bias.data.view(8, 93)[:, LOW:] = 0
        made = ShapEPipeline(
            prior=PriorTransformer(
                num_attention_heads=2,
                attention_head_dim=16,
                embedding_dim=16,
                num_embeddings=32,
                embedding_proj_dim=16,
                time_embed_dim=64,
                num_layers=1,
                clip_embed_dim=32,
                additional_embeddings=0,
                time_embed_act_fn="gelu",
                norm_in_type="layer",
                encoder_hid_proj_type=None,
                added_emb_type=None,
            ),
            text_encoder=CLIPTextModelWithProjection(
                CLIPTextConfig(
                    vocab_size=len(tokenizer),
                    hidden_size=16,
                    intermediate_size=37,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    projection_dim=16,
                    max_position_embeddings=16,
                    eos_token_id=tokenizer.eos_token_id,
                )
            ),
            tokenizer=tokenizer,
            scheduler=HeunDiscreteScheduler(
                beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", clip_sample=True
            ),
            shap_e_renderer=renderer,
        )
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
