"""GRM: a reward model whose trunk keeps generating, so that its hidden states stay general."""

import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.shapes import check_shape


def grm_sft_loss(chosen_log_prob: Tensor, *, beta: float = 0.1) -> Tensor:
    """GRM's default regulariser: the chosen sample stays likely, and what is likely enough is left alone.

        mean_b -log sigmoid(beta * chosen_log_prob[b])

    Other forms: ``-chosen_log_prob.mean()``, ``bradley_terry_loss(beta * (chosen - rejected))`` and ``dpo_loss``.

    Args:
        chosen_log_prob: [B], of the whole response under the trunk's own generating head, the sum over its tokens
            without the prompt's (``sequence_log_prob``); or a caption's, or a ``denoising_log_prob``.
        beta: above 0; for long responses, whose beta * log_prob is far below 0, scale it down first.

    Returns:
        Scalar, nats; log 2 for a response of probability 1, and about beta * |log_prob| for an unlikely one.

    Raises:
        ShapeError: not [B].
        ConfigError: ``beta`` is not positive.

    Source: Yang et al. 2024, Regularizing Hidden States (arXiv:2406.10216).

    >>> import torch
    >>> grm_sft_loss(torch.tensor([0.0, -20.0]))  # (log 2 + log(1 + e^2)) / 2
    tensor(1.4100)
    """
    check_shape(chosen_log_prob, chosen_log_prob.shape[:1], name="chosen_log_prob", letters="[B]")
    if beta <= 0:
        raise ConfigError(f"beta = {beta}, but it is above 0")
    return -F.logsigmoid(beta * chosen_log_prob).mean()


def grm_loss(reward_loss: Tensor, regulariser: Tensor, *, share: float = 0.01) -> Tensor:
    """Reward and regulariser together.

        (1 - share) * reward_loss + share * regulariser

    Args:
        reward_loss: scalar, such as ``bradley_terry_loss``.
        regulariser: scalar, such as ``grm_sft_loss``.
        share: in [0, 1]; 0.01 as published.

    Returns:
        Scalar.

    Raises:
        ShapeError: not two scalars.
        ConfigError: ``share`` is outside [0, 1].

    Source: Yang et al. 2024 (arXiv:2406.10216).

    >>> import torch
    >>> grm_loss(torch.tensor(1.0), torch.tensor(3.0), share=0.25)
    tensor(1.5000)
    """
    if reward_loss.ndim or regulariser.ndim:
        raise ShapeError(f"expected two scalars, got {list(reward_loss.shape)} and {list(regulariser.shape)}")
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share}, but it is in [0, 1]")
    return (1 - share) * reward_loss + share * regulariser
