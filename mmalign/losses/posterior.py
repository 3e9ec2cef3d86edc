"""Matching the policy to a posterior on a set of samples: how likely each is, given that it is good."""

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def brain_weights(
    prior_log_prob: Tensor, old_log_prob: Tensor, reward: Tensor, *, temperature: float
) -> Tensor:
    """The reward-conditioned posterior on the samples of each prompt, self-normalised.

        softmax_i(prior_log_prob[p, i] + reward[p, i] / temperature - old_log_prob[p, i])

    Args:
        prior_log_prob: [P, G], G samples for each of P prompts, under the model before alignment.
        old_log_prob: [P, G], under the policy that sampled.
        reward: [P, G].
        temperature: in the unit of ``reward``, above 0.

    Returns:
        [P, G], each row adds up to 1, detached.

    Raises:
        ShapeError: not three times the same [P, G].
        ConfigError: ``temperature`` is not positive.

    Source: Pandey et al. 2024, BRAIn, section 3 (arXiv:2402.02479).

    >>> import torch
    >>> brain_weights(torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[3.0, 1.0]]).log(), temperature=1.0)
    tensor([[0.7500, 0.2500]])
    """
    if temperature <= 0:
        raise ConfigError(
            f"temperature = {temperature}, but it must be positive; best-of-n is its limit at 0"
        )
    _check_groups(prior_log_prob=prior_log_prob, old_log_prob=old_log_prob, reward=reward)
    return (prior_log_prob + reward / temperature - old_log_prob).detach().softmax(1)


def brain_loss(log_prob: Tensor, old_log_prob: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy from the posterior to the policy, both on the same samples.

        mean_p sum_i -weight[p, i] * (log_prob[p] - old_log_prob[p]).log_softmax()[i]

    Its gradient is sum_i -(weight - policy's own share)[i] * d log_prob[i]: a baseline that needs no critic.

    Args:
        log_prob: [P, G], under the policy.
        old_log_prob: [P, G], under the policy that sampled; detached.
        weight: [P, G], of ``brain_weights``; detached.

    Returns:
        Scalar, nats; least where the policy's shares are the weights.

    Raises:
        ShapeError: not three times the same [P, G].

    Source: Pandey et al. 2024, BRAIn, section 3 (arXiv:2402.02479). With two samples of prior and reference it is DPO
    with a soft label and beta 1.

    >>> import torch
    >>> brain_loss(torch.tensor([[3.0, 1.0]]).log(), torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]))  # -log(3/4)
    tensor(0.2877)
    """
    _check_groups(log_prob=log_prob, old_log_prob=old_log_prob, weight=weight)
    share = (log_prob - old_log_prob.detach()).log_softmax(1)
    return -(weight.detach() * share).sum(1).mean()


def effective_sample_size(weight: Tensor) -> Tensor:
    """How many samples a weighted set is worth; near 1 one sample decides alone.

        (sum_i weight[p, i])^2 / sum_i weight[p, i]^2

    Args:
        weight: [P, G], at least 0, not all 0 in a row.

    Returns:
        [P], from 1 to G, detached.

    Raises:
        ShapeError: ``weight`` is not [P, G].

    Source: Kong et al. 1994, Sequential Imputations, section 4.1.

    >>> import torch
    >>> effective_sample_size(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    tensor([2., 1.])
    """
    _check_groups(weight=weight)
    weight = weight.detach()
    return weight.sum(1) ** 2 / (weight**2).sum(1)


def _check_groups(**tensors: Tensor) -> None:
    shape = next(iter(tensors.values())).shape
    for name, tensor in tensors.items():
        if tensor.ndim != 2:
            raise ShapeError(f"{name}: expected [P, G], got {list(tensor.shape)}")
        check_shape(tensor, shape, name=name, letters="[P, G]")
