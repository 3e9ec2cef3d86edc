"""Reward-weighted regression: imitate samples, the good ones more; a weight is at least 0, or it pushes away."""

from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def weighted_likelihood_loss(log_prob: Tensor, weight: Tensor) -> Tensor:
    """Likelihood of samples, each with the weight of its reward.

        mean_b -weight[b] * log_prob[b]

    With ``denoising_log_prob`` this is half of the published loss on squared errors; with the mean log-probability of
    tokens it is a weighted cross-entropy.

    Args:
        log_prob: [B], under the policy.
        weight: [B], at least 0, such as ``exp_weights``; detached.

    Returns:
        Scalar, in the unit of ``log_prob`` times that of ``weight``.

    Raises:
        ShapeError: not twice the same [B].
        ConfigError: a weight is negative, and its sample would be pushed away without bound.

    Source: Lee et al. 2023, Aligning Text-to-Image Models using Human Feedback, section 3.3 (arXiv:2302.12192); Liu et
    al. 2025, Flow-RWR, section 4 (arXiv:2501.13918); Wang et al. 2024, LiFT, section 3.3 (arXiv:2412.04814).

    >>> import torch
    >>> weighted_likelihood_loss(torch.tensor([-1.0, -3.0]), torch.tensor([0.5, 1.0]))  # (0.5 + 3) / 2
    tensor(1.7500)
    """
    check_shape(log_prob, log_prob.shape[:1], name="log_prob", letters="[B]")
    check_shape(weight, log_prob.shape, name="weight", letters="[B]")
    _check_not_negative(weight, name="weight")
    return -(weight.detach() * log_prob).mean()


def baton_loss(
    log_prob: Tensor, reward: Tensor, pretraining_log_prob: Tensor, *, pretraining_weight: float
) -> Tensor:
    """Reward-weighted likelihood, held to what the model learned before by its pretraining data.

        mean_b -reward[b] * log_prob[b] - pretraining_weight * mean_n pretraining_log_prob[n]

    Args:
        log_prob: [B], of labelled samples, under the policy.
        reward: [B], in [0, 1]: a person's label, or how probably a reward model says "aligned"; detached.
        pretraining_log_prob: [N], of pretraining data, under the policy.
        pretraining_weight: of the second term, at least 0.

    Returns:
        Scalar, in the unit of the log-probabilities.

    Raises:
        ShapeError: not twice the same [B] and once [N].
        ConfigError: a reward is outside [0, 1], or ``pretraining_weight`` is negative.

    Source: ours, after Liao et al. 2024, BATON (arXiv:2402.00744), who weight the likelihood with the reward and hold
    the model to pretraining data. They publish no code and no weight of the second term; ours has no default.

    >>> import torch
    >>> log_prob, reward = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, 0.0])
    >>> baton_loss(log_prob, reward, torch.tensor([-2.0]), pretraining_weight=0.25)  # 1 / 2 + 2 / 4
    tensor(1.)
    """
    check_shape(
        pretraining_log_prob, pretraining_log_prob.shape[:1], name="pretraining_log_prob", letters="[N]"
    )
    if pretraining_weight < 0:
        raise ConfigError(f"pretraining_weight = {pretraining_weight}, but it is at least 0")
    if (reward > 1).any():
        raise ConfigError(f"reward: expected 0 to 1, got {reward.max():g}")
    return weighted_likelihood_loss(log_prob, reward) - pretraining_weight * pretraining_log_prob.mean()


def exp_weights(reward: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Weight by the exponential of the reward.

        exp(reward / temperature)

    Args:
        reward: any shape, standardised per prompt, such as ``group_advantages``: raw, one sample decides alone.
        temperature: in the unit of ``reward``, above 0.

    Returns:
        As ``reward``, above 0, detached.

    Raises:
        ConfigError: ``temperature`` is not positive, or a weight overflows.

    Source: Peng et al. 2019, Advantage-Weighted Regression, section 3 (arXiv:1910.00177); Liu et al. 2025, Flow-RWR,
    section 4 (arXiv:2501.13918), at temperature 1.

    >>> import torch
    >>> exp_weights(torch.tensor([0.0, 2.0]), temperature=2.0)
    tensor([1.0000, 2.7183])
    """
    _check_temperature(temperature)
    weight = (reward.detach() / temperature).exp()
    if weight.isinf().any():
        raise ConfigError(
            f"reward: exp({reward.max():g} / {temperature:g}) overflows; standardise rewards, or raise temperature"
        )
    return weight


def softmax_weights(rewards: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Share one weight among the samples of a prompt.

        softmax_g(rewards[p] / temperature)

    Args:
        rewards: [P, G], G samples for each of P prompts.
        temperature: in the unit of ``rewards``, above 0; towards 0 it becomes ``best_weights``.

    Returns:
        [P, G], each row adds up to 1, detached; times G, equal rewards weigh 1 each.

    Raises:
        ShapeError: ``rewards`` is not [P, G].
        ConfigError: ``temperature`` is not positive.

    Source: Liu et al. 2025, Flow-GRPO, appendix C.1 (arXiv:2505.05470), on reward-weighted regression.

    >>> import torch
    >>> softmax_weights(torch.tensor([[3.0, 1.0]]).log())
    tensor([[0.7500, 0.2500]])
    """
    _check_temperature(temperature)
    _check_groups(rewards)
    return (rewards.detach() / temperature).softmax(1)


def best_weights(rewards: Tensor) -> Tensor:
    """Imitate the best sample of each prompt and no other.

        1 where rewards[p, g] is the largest of its row, shared evenly among equals, and 0 elsewhere

    Args:
        rewards: [P, G], G samples for each of P prompts.

    Returns:
        [P, G], each row adds up to 1, detached.

    Raises:
        ShapeError: ``rewards`` is not [P, G].

    Source: the code of Liu et al. 2025, Flow-GRPO (arXiv:2505.05470), which gives the first of equals all.

    >>> import torch
    >>> best_weights(torch.tensor([[1.0, 3.0], [2.0, 2.0]]))
    tensor([[0.0000, 1.0000],
            [0.5000, 0.5000]])
    """
    _check_groups(rewards)
    best = (rewards == rewards.amax(1, keepdim=True)).to(rewards.dtype)
    return (best / best.sum(1, keepdim=True)).detach()


def raw_weights(reward: Tensor) -> Tensor:
    """Weight by the reward itself, which for that has to be at least 0.

    Args:
        reward: any shape.

    Returns:
        ``reward``, detached.

    Raises:
        ConfigError: a reward is negative.

    Source: the code of Liu et al. 2025, Flow-GRPO (arXiv:2505.05470), which does not ask for the sign.

    >>> import torch
    >>> raw_weights(torch.tensor([0.5, -0.1]))
    Traceback (most recent call last):
    mmalign.errors.ConfigError: reward: expected at least 0, got -0.1; a negative weight pushes a sample away
    """
    _check_not_negative(reward, name="reward")
    return reward.detach()


def _check_not_negative(weight: Tensor, *, name: str) -> None:
    if (weight < 0).any():
        raise ConfigError(
            f"{name}: expected at least 0, got {weight.min():g}; a negative weight pushes a sample away"
        )


def _check_temperature(temperature: float) -> None:
    if temperature <= 0:
        raise ConfigError(
            f"temperature = {temperature}, but it must be positive; best_weights is its limit at 0"
        )


def _check_groups(rewards: Tensor) -> None:
    if rewards.ndim != 2:
        raise ShapeError(f"rewards: expected [P, G], got {list(rewards.shape)}")
