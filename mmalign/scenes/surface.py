"""The surface of a field on a grid, as triangles."""

import numpy as np
import torch
from torch import Tensor

from mmalign.errors import ConfigError

CRUMB = 0.05
"""A body of less than this share of the largest one's grid points is left out."""


def surface(field: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """The closed surface at one level of a field, larger within; its cavities are filled, its crumbs left out.

    Args:
        field: [N, N, N], its outermost layer below the level.
        level: where the surface is.

    Returns:
        Vertices [V, 3] in grid steps and faces [F, 3], counter-clockwise from outside.

    Raises:
        ConfigError: the extra ``mesh`` is missing.

    Source: Lorensen and Cline 1987, Marching cubes, in the form of Lewiner et al. 2003 (scikit-image).
    """
    try:
        from skimage.measure import label, marching_cubes
    except ImportError:
        raise ConfigError("a mesh of a field needs an extra: pip install 'mmalign[mesh]'") from None
    values = field.numpy().copy()
    outside = label(values <= level, connectivity=1)
    values[(values <= level) & (outside != outside[0, 0, 0])] = values.max()
    bodies = label(values > level, connectivity=3)
    sizes = np.bincount(bodies.ravel())
    sizes[0] = 0
    values[np.isin(bodies, (sizes < CRUMB * sizes.max()).nonzero()[0]) & (bodies > 0)] = values.min()
    corners, faces, _, _ = marching_cubes(values, level)
    return torch.from_numpy(corners.copy()).float(), torch.from_numpy(faces[:, ::-1].copy()).long()
