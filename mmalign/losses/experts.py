"""Product of experts: a small expert absorbs a bias, so that the main one need not learn it."""

from torch import Tensor

from mmalign.losses.bradley_terry import bradley_terry_loss
from mmalign.losses.shapes import check_shape


def product_of_experts_loss(gap: Tensor, bias_gap: Tensor, *, bias_weight: float = 1.0) -> Tensor:
    """Bradley–Terry on the product of two experts' probabilities, and on the biased one alone.

        mean_b -log sigmoid(gap[b] + bias_gap[b]) + bias_weight * mean_b -log sigmoid(bias_gap[b])

    The normalised product of two Bernoulli distributions has the sum of their log odds. Where the biased expert
    explains a label nothing is left for the main one to learn.

    Args:
        gap: [B], chosen less rejected by the main expert, whose reward trains the policy.
        bias_gap: [B], by a small expert that sees only what should not count: shuffled tokens, blurred or low
            resolution media, no prompt.
        bias_weight: of the second term.

    Returns:
        Scalar, nats.

    Raises:
        ShapeError: not twice the same [B].

    Source: Shen et al. 2023, Loose lips sink ships (arXiv:2310.05199); the weight of 1 is ours.

    >>> import torch
    >>> product_of_experts_loss(torch.tensor([0.7]), torch.tensor([-0.3]), bias_weight=0.0)  # -log 0.5987
    tensor(0.5130)
    """
    check_shape(bias_gap, gap.shape, name="bias_gap", letters="[B]")
    return bradley_terry_loss(gap + bias_gap) + bias_weight * bradley_terry_loss(bias_gap)
