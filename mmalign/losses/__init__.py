"""Losses as pure functions of tensors; they know no model, no modality and no config."""

from mmalign.losses.denoising import denoising_log_prob
from mmalign.losses.policy_gradient import (
    clip_fraction,
    clipped_ratio_loss,
    flow_grpo_advantages,
    gaussian_kl,
    group_advantages,
    kl_k1,
    kl_k3,
)
from mmalign.losses.preference import dpo_logits, dpo_loss, implicit_accuracy

__all__ = [
    "denoising_log_prob",
    "clip_fraction",
    "clipped_ratio_loss",
    "flow_grpo_advantages",
    "gaussian_kl",
    "group_advantages",
    "kl_k1",
    "kl_k3",
    "dpo_logits",
    "dpo_loss",
    "implicit_accuracy",
]
