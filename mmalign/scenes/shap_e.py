"""What Shap-E's latents are: the weights of a small network, whose signed distance has a surface."""

from typing import Any

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Mesh
from mmalign.scenes.surface import surface

POINTS_AT_ONCE = 65_536


@torch.no_grad()
def shap_e_mesh(renderer: Any, latents: Tensor, *, points: int = 64) -> Mesh:
    """The surface of one object, closed at the side of Shap-E's box, with its colours as the pictures show them.

    Args:
        renderer: ``pipeline.shap_e_renderer``; it holds this object's weights afterwards, as after its own decoding.
        latents: [L, D] of one object, of ``ShapEPipeline(..., output_type="latent")``.
        points: along each side of the box at which the distance is looked up.

    Raises:
        ShapeError: ``latents`` is not [L, D].
        ConfigError: the distance changes its sign nowhere, so there is no surface, or the extra ``mesh`` is missing.

    Source: Jun and Nichol 2023, Shap-E, section 3.2 (arXiv:2305.02463), by scikit-image's marching cubes: the tables of
    diffusers' own are part of the checkpoint, and colours stay as they are where diffusers makes them linear.
    """
    if latents.ndim != 2:
        raise ShapeError(f"latents: expected [L, D] of one object, got {list(latents.shape)}")
    weights = renderer.params_proj(latents[None].to(renderer.device, renderer.dtype))
    for name, value in renderer.mlp.state_dict().items():
        if f"nerstf.{name}" in weights:
            value.copy_(weights[f"nerstf.{name}"][0])
    low, high = renderer.volume.bbox_min.float().cpu(), renderer.volume.bbox_max.float().cpu()
    axes = [torch.linspace(float(a), float(b), points) for a, b in zip(low, high, strict=True)]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside = torch.cat(
        [_look_up(renderer, some).signed_distance[0, :, 0] for some in places.split(POINTS_AT_ONCE)]
    )
    if not float(inside.min()) < 0 < float(inside.max()):
        raise ConfigError(
            f"the signed distance is {float(inside.min()):.2g} to {float(inside.max()):.2g}: there is no surface"
        )
    field = torch.nn.functional.pad(
        inside.float().cpu().reshape(points, points, points), (1,) * 6, value=-1.0
    )
    corners, faces = surface(field, 0.0)
    vertices = low + (corners - 1) * (high - low) / (points - 1)
    colours = torch.cat([_look_up(renderer, some).channels[0] for some in vertices.split(POINTS_AT_ONCE)])
    return Mesh(vertices, faces, colours.float().cpu().clamp(0, 1))


def _look_up(renderer: Any, places: Tensor) -> Any:
    return renderer.mlp(
        position=places[None].to(renderer.device, renderer.dtype),
        direction=None,
        ts=None,
        nerf_level="fine",
        rendering_mode="stf",
    )
