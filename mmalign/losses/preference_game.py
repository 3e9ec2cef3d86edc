"""Preference as a game between two policies, for judges that only ever compare."""

from typing import Literal, get_args

from torch import Tensor

from mmalign.errors import ConfigError, UnknownNameError
from mmalign.losses.masks import check_mask, masked_sum
from mmalign.losses.shapes import check_shape

Credit = Literal["to_go", "local"]
"""Whose distance from the reference a token answers for: its own and all that follow, or its own alone."""


def nash_md_mixture(logits: Tensor, ref_logits: Tensor, *, share: float = 0.5) -> Tensor:
    """The opponent: the geometric mixture of policy and reference, token by token.

        ((1 - share) * logits + share * ref_logits).log_softmax()

    Args:
        logits: [..., V], of the policy.
        ref_logits: as ``logits``, of the frozen reference.
        share: of the reference; 0 is the policy, 1 the reference.

    Returns:
        [..., V], log-probabilities to sample from, detached.

    Raises:
        ShapeError: the shapes differ.
        ConfigError: ``share`` is outside [0, 1].

    Source: Munos et al. 2023, Nash-MD, section 4 (arXiv:2312.00886).

    >>> import torch
    >>> nash_md_mixture(torch.tensor([9.0, 1.0]).log(), torch.tensor([1.0, 1.0]).log()).exp()  # 3 to 1
    tensor([0.7500, 0.2500])
    """
    check_shape(ref_logits, logits.shape, name="ref_logits", letters="[..., V]")
    if not 0 <= share <= 1:
        raise ConfigError(f"share = {share}, but it is the reference's, from 0 to 1")
    return ((1 - share) * logits.detach() + share * ref_logits.detach()).log_softmax(-1)


def nash_md_loss(
    log_prob: Tensor,
    ref_log_prob: Tensor,
    win_probability: Tensor,
    mask: Tensor,
    *,
    beta: float = 0.1,
    credit: Credit = "to_go",
) -> Tensor:
    """One step towards the equilibrium of a preference game that is tied to the reference.

        d[b, l] = log_prob[b, l] - ref_log_prob[b, l]
        w[b, l] = sum_{s >= l: mask[b, s]} d[b, s]                 "to_go"
        w[b, l] = d[b, l]                                          "local"
        mean_b sum_{l: mask[b, l]} (beta * stop(w[b, l]) - (win_probability[b] - 1/2)) * log_prob[b, l]

    Only the policy's own sample carries gradient; the opponent's, of ``nash_md_mixture``, is in the win probability.

    Args:
        log_prob: [B, L], of the policy's own tokens, under the policy.
        ref_log_prob: [B, L], under the frozen reference; detached.
        win_probability: [B], of the policy's response against the opponent's, both orders averaged; detached.
        mask: [B, L], booleans, the response.
        beta: pull towards the reference, per nat.
        credit: "to_go" has the gradient of the KL of whole sequences on average; "local", of the published code, has
            it for single tokens only.

    Returns:
        Scalar; its value means nothing, its gradient does.

    Raises:
        ShapeError: not [B, L], [B, L], [B] and [B, L].
        ConfigError: ``mask`` is not of booleans, or a win probability is outside [0, 1].
        UnknownNameError: ``credit`` is neither.

    Source: Munos et al. 2023, Nash-MD-PG, section 7 (arXiv:2312.00886).

    >>> import torch
    >>> log_prob, mask = torch.tensor([[-1.0, -2.0]]), torch.tensor([[True, True]])
    >>> ref_log_prob = log_prob - 0.5  # so that w = (1, 0.5): (0.1 - 0.25) * -1 + (0.05 - 0.25) * -2
    >>> nash_md_loss(log_prob, ref_log_prob, torch.tensor([0.75]), mask)
    tensor(0.5500)
    """
    if credit not in get_args(Credit):
        raise UnknownNameError("credit", credit, get_args(Credit))
    check_mask(mask, log_prob)
    check_shape(ref_log_prob, log_prob.shape, name="ref_log_prob", letters="[B, L]")
    check_shape(win_probability, log_prob.shape[:1], name="win_probability", letters="[B]")
    win = win_probability.detach()
    if (win < 0).any() or (win > 1).any():
        raise ConfigError(f"win_probability: expected 0 to 1, got {win.min():g} to {win.max():g}")
    distance = (log_prob - ref_log_prob).detach().masked_fill(~mask, 0)
    if credit == "to_go":
        distance = distance.flip(1).cumsum(1).flip(1)
    return masked_sum((beta * distance - (win - 0.5)[:, None]) * log_prob, mask).mean()
