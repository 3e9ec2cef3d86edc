"""Whether a map or token scores point at what is wrong: the usual numbers of saliency maps, as functions of tensors."""

import torch
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError


def pointing_game(heat: Tensor, region: Tensor, *, tolerance: float = 0.0) -> Tensor:
    """Whether the hottest place lies in the region, or near enough.

    Args:
        heat: [B, H, W], or [B, L] for tokens; of equally hot places the first counts.
        region: as it, booleans.
        tolerance: in pixels or tokens, Euclidean; 15 in the paper's pictures.

    Returns:
        [B], 1 for a hit and 0 for a miss, NaN where there is no region or the map has a NaN; its ``nanmean`` is the
        accuracy, to be compared with the region's share of the area, which a random map reaches.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: ``region`` is not of booleans, or ``tolerance`` is negative.

    Source: Zhang et al. 2016, Top-down Neural Attention by Excitation Backprop, section 4.2 (arXiv:1608.00507).

    >>> pointing_game(torch.tensor([[0.1, 0.9, 0.3]]), torch.tensor([[False, False, True]]), tolerance=1)
    tensor([1.])
    """
    _check(heat, region)
    if tolerance < 0:
        raise ConfigError(f"tolerance = {tolerance}, but it is at least 0")
    hits = []
    for row, marked in zip(heat, region, strict=True):
        if not marked.any() or row.isnan().any():
            hits.append(float("nan"))
            continue
        hottest = torch.tensor(torch.unravel_index(row.argmax(), row.shape), dtype=torch.float64)
        apart = (marked.nonzero().double().cpu() - hottest).norm(dim=1).min()
        hits.append(float(apart <= tolerance))
    return torch.tensor(hits, device=heat.device)


def map_correlation(heat: Tensor, truth: Tensor) -> Tensor:
    """CC: Pearson's correlation of two maps.

    Args:
        heat: [B, H, W] or [B, L].
        truth: as it.

    Returns:
        [B], in [-1, 1]; NaN where either is flat.

    Raises:
        ShapeError: the shapes differ.

    Source: Bylinskii et al. 2016, What do different evaluation metrics tell us about saliency models?, section 4
    (arXiv:1604.03605).

    >>> map_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]])).round(decimals=4)
    tensor([1.])
    """
    h, t = (_flat(x) - _flat(x).mean(1, keepdim=True) for x in _same(heat, truth))
    size = h.norm(dim=1) * t.norm(dim=1)
    return torch.where(size > 0, (h * t).sum(1) / size, float("nan"))


def map_divergence(heat: Tensor, truth: Tensor, *, eps: float = 1e-12) -> Tensor:
    """KLD: the truth's divergence from the map, both as distributions.

        sum q * log( (q + eps) / (p + eps) ),   p = heat / sum heat,  q = truth / sum truth

    Args:
        heat: [B, H, W] or [B, L], at least 0.
        truth: as it.
        eps: keeps it finite where the map is 0.

    Returns:
        [B], nats; NaN where either is all 0.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a number is negative.

    Source: Bylinskii et al. 2016, section 4 (arXiv:1604.03605).

    >>> map_divergence(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]])).round(decimals=4)  # log(4 / 3) / 2
    tensor([0.1438])
    """
    p, q = _shares(heat, truth)
    return (q * ((q + eps) / (p + eps)).log()).sum(1)


def map_similarity(heat: Tensor, truth: Tensor) -> Tensor:
    """SIM: how much two maps share, both as distributions.

        sum min(heat / sum heat, truth / sum truth)

    Args:
        heat: [B, H, W] or [B, L], at least 0.
        truth: as it.

    Returns:
        [B], in [0, 1]; NaN where either is all 0.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: a number is negative.

    Source: Bylinskii et al. 2016, section 4 (arXiv:1604.03605).

    >>> map_similarity(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 2.0]]))
    tensor([0.7500])
    """
    p, q = _shares(heat, truth)
    return torch.minimum(p, q).sum(1)


def scanpath_saliency(heat: Tensor, region: Tensor) -> Tensor:
    """NSS: the map in its own standard units, averaged where the region is.

    Args:
        heat: [B, H, W] or [B, L].
        region: as it, booleans.

    Returns:
        [B], 0 by chance; NaN where the map is flat or there is no region.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: ``region`` is not of booleans.

    Source: Peters et al. 2005; Bylinskii et al. 2016, section 4 (arXiv:1604.03605).

    >>> scanpath_saliency(torch.tensor([[0.0, 0.0, 0.0, 4.0]]), torch.tensor([[False, False, False, True]]))
    tensor([1.7321])
    """
    _check(heat, region)
    h, marked = _flat(heat), _flat(region)
    std = h.std(1, correction=0, keepdim=True)
    z = torch.where(std > 0, (h - h.mean(1, keepdim=True)) / std, float("nan"))
    return z.masked_fill(~marked, 0).sum(1) / marked.sum(1)


def _same(heat: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    if heat.ndim not in (2, 3) or heat.shape != truth.shape:
        raise ShapeError(
            f"expected twice [B, H, W] or twice [B, L], got {list(heat.shape)} and {list(truth.shape)}"
        )
    return heat, truth


def _check(heat: Tensor, region: Tensor) -> None:
    _same(heat, region)
    if region.dtype != torch.bool:
        raise ConfigError(f"region: expected booleans, got {region.dtype}; give a threshold")


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)


def _shares(heat: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    _same(heat, truth)
    if (heat < 0).any() or (truth < 0).any():
        raise ConfigError("heat and truth: expected numbers of at least 0")
    p, q = (_flat(x) / _flat(x).sum(1, keepdim=True) for x in (heat, truth))
    return p, q
