"""Diffusion-DRO: rank demonstrations above the policy's own samples, without a labelled loser."""

import torch.nn.functional as F
from torch import Tensor

from mmalign.losses.denoising import denoising_error
from mmalign.losses.masks import masked_mean
from mmalign.losses.shapes import check_shape
from mmalign.losses.tokens import token_kl


def dro_gap(
    expert_error: Tensor, ref_expert_error: Tensor, negative_error: Tensor, ref_negative_error: Tensor
) -> Tensor:
    """How much worse the policy knows the demonstration than its own sample, both against the reference.

        (expert_error - ref_expert_error) - (negative_error - ref_negative_error)

    Args:
        expert_error: [B], of the policy on a demonstration.
        ref_expert_error: [B], of the frozen reference there; detached.
        negative_error: [B], of the policy on a sample of its snapshot, against what the snapshot predicted.
        ref_negative_error: [B], of the frozen reference there; detached.

    Returns:
        [B], in the unit of the errors; 0 while policy, snapshot and reference are one.

    Raises:
        ShapeError: not four times the same [B].

    Source: Wu et al. 2025, Diffusion-DRO, section 4 (arXiv:2510.18353).

    >>> import torch
    >>> dro_gap(*torch.tensor([[2.0], [3.0], [0.5], [4.0]]))  # -1 + 3.5
    tensor([2.5000])
    """
    B = expert_error.shape[:1]
    for name, error in (
        ("expert_error", expert_error),
        ("ref_expert_error", ref_expert_error),
        ("negative_error", negative_error),
        ("ref_negative_error", ref_negative_error),
    ):
        check_shape(error, B, name=name, letters="[B]")
    return (expert_error - ref_expert_error.detach()) - (negative_error - ref_negative_error.detach())


def dro_loss(
    expert_error: Tensor,
    ref_expert_error: Tensor,
    negative_error: Tensor,
    ref_negative_error: Tensor,
    *,
    margin: float = 0.001,
) -> Tensor:
    """Ranking hinge of any errors, of denoising or of tokens.

        mean_b max(0, dro_gap[b] + margin)

    Args:
        expert_error: [B], of the policy on a demonstration.
        ref_expert_error: [B], of the frozen reference there; detached.
        negative_error: [B], of the policy on a sample of its snapshot, against what the snapshot predicted.
        ref_negative_error: [B], of the frozen reference there; detached.
        margin: in the unit of the errors; too large a one never lets go.

    Returns:
        Scalar; the margin while policy, snapshot and reference are one.

    Raises:
        ShapeError: not four times the same [B].

    Source: Wu et al. 2025, Diffusion-DRO, section 4 (arXiv:2510.18353), with the additive margin of its code; the
    paper's max(m, d) has the same gradient at m = -margin.

    >>> import torch
    >>> dro_loss(*torch.tensor([[2.0, 1.0], [3.0, 3.0], [0.5, 2.0], [1.0, 2.0]]), margin=1.0)  # (0.5 + 0) / 2
    tensor(0.2500)
    """
    gap = dro_gap(expert_error, ref_expert_error, negative_error, ref_negative_error)
    return F.relu(gap + margin).mean()


def diffusion_dro_loss(
    expert_prediction: Tensor,
    ref_expert_prediction: Tensor,
    expert_target: Tensor,
    negative_prediction: Tensor,
    ref_negative_prediction: Tensor,
    snapshot_prediction: Tensor,
    *,
    margin: float = 0.001,
) -> Tensor:
    """``dro_loss`` on the predictions of a denoiser.

        expert_error[b] = mean_e (expert_prediction - expert_target)^2
        negative_error[b] = mean_e (negative_prediction - snapshot_prediction)^2, and likewise of the reference

    The negative's target is what the snapshot predicted, not its noise, so that at the snapshot it has no gradient.

    Args:
        expert_prediction: [B, ...], of the policy, on a noised demonstration.
        ref_expert_prediction: as it, of the frozen reference; detached.
        expert_target: as it, what a perfect denoiser says, noise or velocity; detached.
        negative_prediction: [B, ...], of the policy, on what the snapshot saw in a step of its rollout, at the same
            time and condition as the demonstration.
        ref_negative_prediction: as it, of the frozen reference; detached.
        snapshot_prediction: as it, recorded in the rollout; detached.
        margin: in the squared unit of the predictions.

    Returns:
        Scalar; the margin while policy, snapshot and reference are one, with the gradient of fine-tuning on the
        demonstrations.

    Raises:
        ShapeError: the shapes of a side differ, or the two sides have not one B.

    Source: Wu et al. 2025, Diffusion-DRO, section 4 and algorithm 1 (arXiv:2510.18353). Velocities are ours.

    >>> import torch
    >>> one = torch.ones(1, 2)
    >>> diffusion_dro_loss(3 * one, 2 * one, one, 4 * one, 0 * one, one, margin=7.0)  # (4 - 1) - (9 - 1) + 7
    tensor(2.)
    """
    check_shape(
        ref_expert_prediction, expert_prediction.shape, name="ref_expert_prediction", letters="[B, ...]"
    )
    check_shape(
        ref_negative_prediction, negative_prediction.shape, name="ref_negative_prediction", letters="[B, ...]"
    )
    return dro_loss(
        denoising_error(expert_prediction, expert_target),
        denoising_error(ref_expert_prediction, expert_target),
        denoising_error(negative_prediction, snapshot_prediction),
        denoising_error(ref_negative_prediction, snapshot_prediction),
        margin=margin,
    )


def token_dro_loss(
    expert_log_prob: Tensor,
    ref_expert_log_prob: Tensor,
    negative_logits: Tensor,
    ref_negative_logits: Tensor,
    snapshot_logits: Tensor,
    *,
    expert_mask: Tensor,
    negative_mask: Tensor,
    margin: float = 0.001,
) -> Tensor:
    """``dro_loss`` on tokens.

        expert_error[b] = mean_{l: expert_mask[b, l]} -expert_log_prob[b, l]
        negative_error[b] = mean_{l: negative_mask[b, l]} KL(snapshot || policy)[b, l], and likewise of the reference

    The KL runs over the vocabulary, so that at the snapshot the negative has no gradient; with the sampled token's
    -log policy in its place this would be SPIN.

    Args:
        expert_log_prob: [B, L], of a demonstration's tokens, under the policy.
        ref_expert_log_prob: [B, L], under the frozen reference; detached.
        negative_logits: [B, N, V], of the policy, on a sample of the snapshot.
        ref_negative_logits: as it, of the frozen reference; detached.
        snapshot_logits: as it, of the snapshot that sampled; detached.
        expert_mask: [B, L], booleans, True somewhere in every row.
        negative_mask: [B, N], likewise.
        margin: in nats per token.

    Returns:
        Scalar; the margin while policy, snapshot and reference are one.

    Raises:
        ShapeError: the shapes of a side differ, or the two sides have not one B.
        ConfigError: a mask is not of booleans, or a row of it is empty.

    Source: this project's extension of Wu et al. 2025, Diffusion-DRO (arXiv:2510.18353), to tokens.

    >>> import torch
    >>> yes, even, other = torch.tensor([[True]]), torch.zeros(1, 1, 2), torch.tensor([[[3.0, 1.0]]]).log()
    >>> expert, ref = torch.tensor([[-1.0]]), torch.tensor([[-3.0]])
    >>> token_dro_loss(expert, ref, other, even, even, expert_mask=yes, negative_mask=yes, margin=3.0)  # -2 - 0.1438
    tensor(0.8562)
    """
    check_shape(ref_expert_log_prob, expert_log_prob.shape, name="ref_expert_log_prob", letters="[B, L]")
    snapshot = snapshot_logits.detach()
    return dro_loss(
        masked_mean(-expert_log_prob, expert_mask),
        masked_mean(-ref_expert_log_prob, expert_mask),
        masked_mean(token_kl(snapshot, negative_logits, mask=negative_mask), negative_mask),
        masked_mean(token_kl(snapshot, ref_negative_logits.detach(), mask=negative_mask), negative_mask),
        margin=margin,
    )
