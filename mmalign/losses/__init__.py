"""Losses as pure functions of tensors; they know no model, no modality and no config."""

from mmalign.losses.advantages import (
    clamp_advantages,
    dance_grpo_advantages,
    flow_grpo_advantages,
    group_advantages,
    leave_one_out_advantages,
    token_group_advantages,
    win_rate_rewards,
)
from mmalign.losses.annotator_groups import (
    annotator_log_likelihood,
    mixture_log_likelihood,
    pair_weights,
    responsibilities,
)
from mmalign.losses.binary_feedback import balance_weights, binary_feedback_loss, true_rate_logit
from mmalign.losses.bradley_terry import (
    bradley_terry_loss,
    centring_penalty,
    gaussian_bradley_terry_loss,
    smoothed_probability,
    soft_bradley_terry_loss,
    strength_weights,
)
from mmalign.losses.control import class_disagreement, control_consistency_loss, ctrl_u_loss, ramp
from mmalign.losses.denoising import denoising_error, denoising_log_prob
from mmalign.losses.detection import region_detection_loss, word_detection_loss
from mmalign.losses.distillation import (
    RealLabel,
    boundary_scalings,
    consistency_output,
    latent_reward_loss,
    lcm_guidance,
    pseudo_huber,
    reward_distillation_loss,
)
from mmalign.losses.distributional import (
    beta_bins,
    expected_share,
    sinkhorn_loss,
    vote_update,
    wasserstein_loss,
)
from mmalign.losses.drift import gaussian_kl, kl_k1, kl_k3, velocity_drift
from mmalign.losses.experts import product_of_experts_loss
from mmalign.losses.gflownet import gdpo_loss
from mmalign.losses.hidden_state import grm_loss, grm_sft_loss
from mmalign.losses.lift import LIFT_SCORES, lift_score, lift_weights
from mmalign.losses.linear_reward import (
    bradley_terry_fit,
    comparison_covariance,
    pessimism_bound,
    pessimistic_value,
)
from mmalign.losses.listwise import pro_loss, rrhf_loss
from mmalign.losses.negative_aware import nft_loss, nft_old_decay, nft_velocity_loss, optimality_probability
from mmalign.losses.odin import head_overlap, odin_loss, odin_rewards, pearson, unit_rows
from mmalign.losses.plackett_luce import pairwise_ranking_loss, plackett_luce_log_prob, plackett_luce_loss
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
from mmalign.losses.prior_margin import margin_cap_penalty, pcrm_loss, pcrm_similarity, prior_distance
from mmalign.losses.prompt_tracker import PromptTracker
from mmalign.losses.ranking import diffusion_dro_loss, dro_gap, dro_loss, token_dro_loss
from mmalign.losses.rating import beta_rating_loss, gaussian_rating_loss, inner_share, rating_loss
from mmalign.losses.regression import (
    baton_loss,
    best_weights,
    exp_weights,
    raw_weights,
    softmax_weights,
    weighted_likelihood_loss,
)
from mmalign.losses.reward_backprop import (
    alignprop_loss,
    draft_k_start,
    draft_loss,
    draft_lv_noisy,
    draw_step,
    gaussian_truncation,
    refl_loss,
    truncate_gradient,
)
from mmalign.losses.score_distillation import (
    dream_fl_loss,
    matched_weight,
    sds_gradient,
    sds_loss,
    straight_through,
)
from mmalign.losses.selection import (
    FilterRule,
    best_and_worst,
    best_of_n_kl,
    best_of_n_mean,
    filter_groups,
    kept_mean,
)
from mmalign.losses.step_preference import d3po_loss
from mmalign.losses.temporal import (
    attenuation_weights,
    instruct_video_loss,
    offset_noise,
    partial_chain_start,
    segment_frames,
)
from mmalign.losses.ties import (
    davidson_log_probs,
    rao_kupper_log_probs,
    squared_tie_loss,
    tied_preference_loss,
)
from mmalign.losses.token_critic import clipped_value_loss, gae, whiten
from mmalign.losses.token_distillation import token_reward_distillation_loss
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
    # fitting a reward: pairs and rankings
    "bradley_terry_loss",
    "centring_penalty",
    "gaussian_bradley_terry_loss",
    "smoothed_probability",
    "soft_bradley_terry_loss",
    "strength_weights",
    "davidson_log_probs",
    "rao_kupper_log_probs",
    "squared_tie_loss",
    "tied_preference_loss",
    "pairwise_ranking_loss",
    "plackett_luce_log_prob",
    "plackett_luce_loss",
    # fitting a reward: ratings and reactions
    "beta_rating_loss",
    "gaussian_rating_loss",
    "inner_share",
    "rating_loss",
    "balance_weights",
    "binary_feedback_loss",
    "true_rate_logit",
    "beta_bins",
    "expected_share",
    "sinkhorn_loss",
    "vote_update",
    "wasserstein_loss",
    "region_detection_loss",
    "word_detection_loss",
    # fitting a reward: what it should not learn, and from whom
    "margin_cap_penalty",
    "pcrm_loss",
    "pcrm_similarity",
    "prior_distance",
    "grm_loss",
    "grm_sft_loss",
    "head_overlap",
    "odin_loss",
    "odin_rewards",
    "pearson",
    "unit_rows",
    "product_of_experts_loss",
    "annotator_log_likelihood",
    "mixture_log_likelihood",
    "pair_weights",
    "responsibilities",
    "bradley_terry_fit",
    "comparison_covariance",
    "pessimism_bound",
    "pessimistic_value",
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
    # weighted likelihood
    "LIFT_SCORES",
    "baton_loss",
    "best_weights",
    "exp_weights",
    "lift_score",
    "lift_weights",
    "raw_weights",
    "softmax_weights",
    "weighted_likelihood_loss",
    # demonstrations and negatives on predictions
    "diffusion_dro_loss",
    "dro_gap",
    "dro_loss",
    "token_dro_loss",
    "nft_loss",
    "nft_old_decay",
    "nft_velocity_loss",
    "optimality_probability",
    # distillation
    "RealLabel",
    "boundary_scalings",
    "consistency_output",
    "latent_reward_loss",
    "lcm_guidance",
    "pseudo_huber",
    "reward_distillation_loss",
    "token_reward_distillation_loss",
    # differentiable rewards
    "alignprop_loss",
    "draft_k_start",
    "draft_loss",
    "draft_lv_noisy",
    "draw_step",
    "gaussian_truncation",
    "refl_loss",
    "truncate_gradient",
    "attenuation_weights",
    "instruct_video_loss",
    "offset_noise",
    "partial_chain_start",
    "segment_frames",
    "class_disagreement",
    "control_consistency_loss",
    "ctrl_u_loss",
    "ramp",
    "dream_fl_loss",
    "matched_weight",
    "sds_gradient",
    "sds_loss",
    "straight_through",
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
    "token_group_advantages",
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
