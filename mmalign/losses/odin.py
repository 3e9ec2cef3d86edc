"""ODIN: one head takes what length (or size, or loudness) explains, so that the other is free of it."""

import torch
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.losses.bradley_terry import bradley_terry_loss
from mmalign.losses.shapes import check_shape


def unit_rows(heads: Tensor) -> Tensor:
    """Weights of heads, each less its mean and of length 1, as ``odin_rewards`` uses them.

    Args:
        heads: [2, H].

    Returns:
        [2, H].

    >>> unit_rows(torch.tensor([[3.0, 1.0]]))
    tensor([[ 0.7071, -0.7071]])
    """
    centred = heads - heads.mean(1, keepdim=True)
    size: Tensor = centred.norm(dim=1, keepdim=True)
    return centred / size


def odin_rewards(features: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
    """The rewards of the two heads.

        w[i] = (heads[i] - mean heads[i]) / |heads[i] - mean heads[i]|
        quality = features @ w[0],  nuisance = features @ w[1]

    Args:
        features: [B, H], hidden states of the last token.
        heads: [2, H], weights of both heads, quality first, without bias.

    Returns:
        Quality and nuisance reward, [B] each. The policy is trained on quality alone, by the normalised head as here;
        the published inference takes its raw row.

    Raises:
        ShapeError: not [B, H] and [2, H].

    Source: Chen et al. 2024, ODIN (arXiv:2402.07319), with the centred rows of its code.

    >>> odin_rewards(torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
    (tensor([0.7071]), tensor([-0.7071]))
    """
    if features.ndim != 2:
        raise ShapeError(f"features: expected [B, H], got {list(features.shape)}")
    check_shape(heads, [2, features.shape[1]], name="heads", letters="[2, H]")
    quality, nuisance = (features @ unit_rows(heads).mT).unbind(1)
    return quality, nuisance


def head_overlap(heads: Tensor) -> Tensor:
    """How alike the two heads are: the absolute cosine of their centred weights.

        | w[0] . w[1] |,  w as in ``odin_rewards``

    Args:
        heads: [2, H].

    Returns:
        Scalar in [0, 1]; 0 where they are orthogonal.

    Raises:
        ShapeError: not [2, H].

    Source: Chen et al. 2024, ODIN (arXiv:2402.07319).

    >>> head_overlap(torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, -1.0]]))
    tensor(0.5000)
    """
    check_shape(heads, [2, *heads.shape[-1:]], name="heads", letters="[2, H]")
    quality, nuisance = unit_rows(heads)
    return torch.dot(quality, nuisance).abs()


def pearson(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation over a batch, with gradient to both.

    Args:
        first: [B].
        second: [B].

    Returns:
        Scalar in [-1, 1]; 0, without gradient, where either does not vary.

    Raises:
        ShapeError: not twice the same [B].

    >>> pearson(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0, 1.0, 3.0]))
    tensor(0.5000)
    """
    check_shape(first, first.shape[:1], name="first", letters="[B]")
    check_shape(second, first.shape, name="second", letters="[B]")
    x, y = first - first.mean(), second - second.mean()
    # The mean of equal numbers is rounded: what is left of them is no variation.
    if any(_flat(c, of) for c, of in ((x, first), (y, second))):
        return first.new_zeros(())
    size: Tensor = x.norm() * y.norm()
    return torch.dot(x, y) / size


def odin_loss(
    features: Tensor,
    heads: Tensor,
    nuisance: Tensor,
    *,
    overlap_weight: float = 1.0,
    correlation_weight: float = 1.0,
    sum_term: bool = True,
) -> Tensor:
    """Both heads together explain the preference; one of them alone may know the nuisance.

        r_q, r_n = odin_rewards(features),  c = pearson with the nuisance, over all 2B samples
        bradley_terry_loss of r_q + r_n + overlap_weight * head_overlap(heads)
            + correlation_weight * [ (1 - c(r_n)) + |c(r_q)| + |c(r_q + r_n)| ]

    Args:
        features: [2B, H], of the chosen samples and then of their rejected ones. Of the whole batch over all devices:
            a correlation of a few samples says little.
        heads: [2, H].
        nuisance: [2B], length, duration, resolution, saturation or loudness; detached. Where all are equal the three
            correlations are left out.
        overlap_weight: of the heads' cosine.
        correlation_weight: of the correlations.
        sum_term: the last correlation, which is in the published code.

    Returns:
        Scalar.

    Raises:
        ShapeError: not [2B, H], [2, H] and [2B].

    Source: Chen et al. 2024, ODIN (arXiv:2402.07319), in the form of its code; any other nuisance than length is ours.
    """
    if features.ndim != 2 or len(features) % 2:
        raise ShapeError(f"features: expected [2B, H], chosen and then rejected, got {list(features.shape)}")
    check_shape(nuisance, features.shape[:1], name="nuisance", letters="[2B]")
    quality, other = odin_rewards(features, heads)
    chosen, rejected = (quality + other).chunk(2)
    loss = bradley_terry_loss(chosen - rejected) + overlap_weight * head_overlap(heads)
    known = nuisance.detach().to(quality)
    if _flat(known - known.mean(), known):
        return loss
    terms = 1 - pearson(known, other) + pearson(known, quality).abs()
    if sum_term:
        terms = terms + pearson(known, quality + other).abs()
    return loss + correlation_weight * terms


def _flat(centred: Tensor, of: Tensor) -> bool:
    size = of.detach().abs().max() * torch.finfo(of.dtype).eps
    return bool(centred.detach().abs().max() <= 8 * size)
