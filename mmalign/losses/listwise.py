"""Losses on K ranked samples of one prompt, without a reference: the likelier, the better."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmalign.errors import ShapeError
from mmalign.losses.shapes import check_shape


def rrhf_loss(log_prob: Tensor, reward: Tensor, *, ranking_weight: float = 1.0) -> Tensor:
    """Rank responses: a worse one may not be likelier than a better one, and the best one is imitated.

        mean_b [ ranking_weight * sum_{i, j: reward[b, i] < reward[b, j]} max(0, log_prob[b, i] - log_prob[b, j])
                 - log_prob[b, argmax_i reward[b, i]] ]

    Args:
        log_prob: [B, K], under the policy; of tokens the mean over each response's own length.
        reward: [B, K], any order and any unit, only its ranks count; detached. Equal rewards are not ranked.
        ranking_weight: of the first term; 1 in the published run, 100 by default in its code.

    Returns:
        Scalar, in the unit of ``log_prob``.

    Raises:
        ShapeError: not twice the same [B, K] with K >= 2.

    Source: Yuan et al. 2023, RRHF, section 3.1, equations 2 to 4 (arXiv:2304.05302). Its code divides by the padded
    length; here the caller's mean is over the response.

    >>> rrhf_loss(torch.tensor([[-1.0, -2.0, -0.5]]), torch.tensor([[3.0, 2.0, 1.0]]))  # 0.5 + 1.5, and 1 for the best
    tensor(3.)
    """
    reward = _check_lists(log_prob, reward)
    worse = reward[:, :, None] < reward[:, None, :]
    excess = F.relu(log_prob[:, :, None] - log_prob[:, None, :])
    best = log_prob.gather(1, reward.argmax(1, keepdim=True))[:, 0]
    return (ranking_weight * (excess * worse).sum((1, 2)) - best).mean()


def pro_loss(
    log_prob: Tensor, reward: Tensor, target_log_prob: Tensor, *, target_weight: float = 0.05
) -> Tensor:
    """Preference ranking: each response against all worse ones, the further apart the rewards the sharper.

        with the K responses of a row sorted by falling reward r and s their log_prob,
        g[k, i] = r[k] - r[i] for i > k,  g[k, k] = max_{i > k} g[k, i]
        mean_b sum_{k < K} [ log sum_{i >= k} exp(g[k, i] * s[i]) - g[k, k] * s[k] ]
            - target_weight * (K - 1)^2 * mean_b target_log_prob[b]

    Args:
        log_prob: [B, K], under the policy; of tokens the mean over each response's own length.
        reward: [B, K], any order, the first of equals counting as the better; its gaps are inverse temperatures, so its
            scale counts; detached.
        target_log_prob: [B], of the demonstration, under the policy; of tokens the sum.
        target_weight: of its likelihood.

    Returns:
        Scalar.

    Raises:
        ShapeError: not twice the same [B, K] with K >= 2 and once [B].

    Source: Song et al. 2023, PRO, section 3, equations 6 to 8 (arXiv:2306.17492), with the weight of its code.

    >>> pro_loss(torch.tensor([[-1.0, -2.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([-4.0]))  # log(1 + e^-2) + 0.2
    tensor(0.3269)
    """
    reward = _check_lists(log_prob, reward)
    check_shape(target_log_prob, log_prob.shape[:1], name="target_log_prob", letters="[B]")
    order = reward.argsort(dim=1, descending=True, stable=True)
    r, s = reward.gather(1, order), log_prob.gather(1, order)
    K = log_prob.shape[1]
    loss = -target_weight * (K - 1) ** 2 * target_log_prob
    for k in range(K - 1):
        gaps = r[:, k, None] - r[:, k + 1 :]
        scaled = torch.cat([gaps.amax(1, keepdim=True), gaps], 1) * s[:, k:]
        loss = loss + scaled.logsumexp(1) - scaled[:, 0]
    return loss.mean()


def _check_lists(log_prob: Tensor, reward: Tensor) -> Tensor:
    if log_prob.ndim != 2 or log_prob.shape[1] < 2:
        raise ShapeError(f"log_prob: expected [B, K] with K >= 2, got {list(log_prob.shape)}")
    check_shape(reward, log_prob.shape, name="reward", letters="[B, K]")
    return reward.detach()
