"""Epistemic networks: many opinions from one trunk, by mixing small heads with an index that is drawn."""

from collections.abc import Callable

from torch import Tensor

from mmalign.errors import ShapeError


def epinet_mix(
    mean: Tensor, learned: Tensor, prior: Tensor, index: Tensor, *, prior_scale: float = 1.0
) -> Tensor:
    """The rewards of n drawn opinions.

        mean[b] + learned[n, b] . index[n] + prior_scale * prior[n, b] . index[n]

    Args:
        mean: [B], of the base head.
        learned: [n, B, Z], of the learned small network, or [B, Z] where that does not see the index.
        prior: as ``learned``, of a network with fixed random weights; detached.
        index: [n, Z], standard normal.
        prior_scale: of the prior; it keeps opinions apart where there are no data.

    Returns:
        [n, B]; with an index of 0 the mean.

    Raises:
        ShapeError: the shapes do not fit.

    Source: Osband et al. 2021, Epistemic Neural Networks, section 4 (arXiv:2107.08924).

    >>> import torch
    >>> small = torch.tensor([[1.0, 2.0]])
    >>> epinet_mix(torch.tensor([5.0]), small, 0 * small, torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    tensor([[5.],
            [4.]])
    """
    if mean.ndim != 1 or index.ndim != 2:
        raise ShapeError(f"expected mean [B] and index [n, Z], got {list(mean.shape)}, {list(index.shape)}")
    (n, Z), B = index.shape, len(mean)
    for name, small in (("learned", learned), ("prior", prior)):
        if list(small.shape) not in ([n, B, Z], [B, Z]):
            raise ShapeError(f"{name}: expected [{n}, {B}, {Z}] or [{B}, {Z}], got {list(small.shape)}")
    spread = learned + prior_scale * prior.detach()
    return mean + (spread * index[:, None]).sum(-1)


def epinet_rewards(
    mean: Tensor,
    features: Tensor,
    index: Tensor,
    learned: Callable[[Tensor], Tensor],
    prior: Callable[[Tensor], Tensor],
    *,
    prior_scale: float = 1.0,
) -> Tensor:
    """``epinet_mix`` of two networks on features with the index beside them; the trunk gets no gradient from either.

    Args:
        mean: [B], of the base head on the same features, with its gradient.
        features: [B, H], of the trunk; detached.
        index: [n, Z].
        learned: from [n, B, H + Z] to [n, B, Z].
        prior: the same, fixed.
        prior_scale: as in ``epinet_mix``.

    Returns:
        [n, B].

    Raises:
        ShapeError: the shapes do not fit.

    Source: Osband et al. 2021, section 4 (arXiv:2107.08924); for rewards Dwaracherla et al. 2024, Efficient
    Exploration for LLMs (arXiv:2402.00396).
    """
    if features.ndim != 2 or index.ndim != 2:
        raise ShapeError(
            f"expected features [B, H] and index [n, Z], got {list(features.shape)}, {list(index.shape)}"
        )
    n, B = len(index), len(features)
    trunk = features.detach().expand(n, *features.shape)
    beside = trunk.new_empty(n, B, features.shape[1] + index.shape[1])
    beside[..., : features.shape[1]] = trunk
    beside[..., features.shape[1] :] = index[:, None]
    return epinet_mix(mean, learned(beside), prior(beside), index, prior_scale=prior_scale)
