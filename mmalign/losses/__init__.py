"""Losses as pure functions of tensors; they know no model, no modality and no config."""

from mmalign.losses.advantages import (
    clamp_advantages,
    dance_grpo_advantages,
    flow_grpo_advantages,
    group_advantages,
    leave_one_out_advantages,
    win_rate_rewards,
)
from mmalign.losses.denoising import denoising_error, denoising_log_prob
from mmalign.losses.drift import gaussian_kl, kl_k1, kl_k3, velocity_drift
from mmalign.losses.gflownet import gdpo_loss
from mmalign.losses.listwise import pro_loss, rrhf_loss
from mmalign.losses.policy_gradient import (
    clip_fraction,
    clipped_ratio_loss,
    clipped_ratio_terms,
    score_function_loss,
)
from mmalign.losses.posterior import brain_loss, brain_weights, effective_sample_size
from mmalign.losses.preference import (
    dpo_logits,
    dpo_loss,
    hinge_dpo_loss,
    implicit_accuracy,
    ipo_loss,
    sppo_loss,
)
from mmalign.losses.preference_anchored import crpo_loss, slic_loss
from mmalign.losses.preference_degree import spo_degree_loss, spo_removal
from mmalign.losses.preference_game import Credit, nash_md_loss, nash_md_mixture
from mmalign.losses.preference_strength import gapo_loss, gapo_weights, osp_loss, robust_dpo_loss
from mmalign.losses.prompt_tracker import PromptTracker
from mmalign.losses.selection import (
    FilterRule,
    best_and_worst,
    best_of_n_kl,
    best_of_n_mean,
    filter_groups,
    kept_mean,
)
from mmalign.losses.step_preference import d3po_loss
from mmalign.losses.token_critic import clipped_value_loss, gae, whiten
from mmalign.losses.token_means import dapo_mean, dr_grpo_mean, grpo_mean
from mmalign.losses.tokens import sequence_log_prob, token_kl, token_log_probs

__all__ = [
    # preference pairs
    "dpo_logits",
    "dpo_loss",
    "implicit_accuracy",
    "crpo_loss",
    "d3po_loss",
    "gapo_loss",
    "gapo_weights",
    "hinge_dpo_loss",
    "ipo_loss",
    "osp_loss",
    "robust_dpo_loss",
    "slic_loss",
    "spo_degree_loss",
    "spo_removal",
    "sppo_loss",
    # ranked lists, weighted sets and games
    "brain_loss",
    "brain_weights",
    "effective_sample_size",
    "gdpo_loss",
    "pro_loss",
    "rrhf_loss",
    "Credit",
    "nash_md_loss",
    "nash_md_mixture",
    # policy gradients
    "clip_fraction",
    "clipped_ratio_loss",
    "clipped_ratio_terms",
    "score_function_loss",
    "dapo_mean",
    "dr_grpo_mean",
    "grpo_mean",
    "clipped_value_loss",
    "gae",
    "whiten",
    # advantages and selection
    "PromptTracker",
    "clamp_advantages",
    "dance_grpo_advantages",
    "flow_grpo_advantages",
    "group_advantages",
    "leave_one_out_advantages",
    "win_rate_rewards",
    "FilterRule",
    "best_and_worst",
    "best_of_n_kl",
    "best_of_n_mean",
    "filter_groups",
    "kept_mean",
    # distances to the reference
    "gaussian_kl",
    "kl_k1",
    "kl_k3",
    "velocity_drift",
    # likelihoods
    "denoising_error",
    "denoising_log_prob",
    "sequence_log_prob",
    "token_kl",
    "token_log_probs",
]
