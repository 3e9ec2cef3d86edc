"""One audit over all losses: what is trained receives gradient, what is constant receives none."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from mmalign import losses

B, T, V = 3, 5, 4
Shapes = list[tuple[int, ...]]
FOUR: Shapes = [(B,), (B,), (B,), (B,)]
MASK = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [True] * 3 + [False] * 2])
NONE = torch.zeros(B, dtype=torch.bool)
CHOSEN = torch.tensor([True, False, False])
RANKS = torch.tensor([[0, 1, 2, 3], [3, 0, 1, 2], [1, 1, 0, 2]])
TOKENS = torch.arange(B * T).reshape(B, T) % V


def probability(tensor: Tensor) -> Tensor:
    return torch.sigmoid(tensor)


def antisymmetric(tensor: Tensor) -> Tensor:
    p = torch.sigmoid(tensor)
    return (p + 1 - p.mT) / 2


def sums(pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[0] + pair[1]


# A loss, the shapes of its arguments, and which of them are trained. The others are constants.
LOSSES: dict[str, tuple[Callable[..., Tensor], Shapes, set[int]]] = {
    "alignprop_loss": (losses.alignprop_loss, [(B,)], {0}),
    "baton_loss": (
        lambda log_prob, reward, before: losses.baton_loss(
            log_prob, probability(reward), before, pretraining_weight=0.5
        ),
        [(B,), (B,), (T,)],
        {0, 2},
    ),
    "boundary_scalings": (lambda time: sums(losses.boundary_scalings(time)), [(B,)], {0}),
    "brain_loss": (losses.brain_loss, [(B, T), (B, T), (B, T)], {0}),
    "class_disagreement": (losses.class_disagreement, [(B, V), (B, V)], {0, 1}),
    "clipped_ratio_loss": (partial(losses.clipped_ratio_loss, clip=1e3), [(B, T), (B, T), (B,)], {0}),
    "clipped_ratio_terms": (partial(losses.clipped_ratio_terms, clip=1e3), [(B, T), (B, T), (B,)], {0}),
    "clipped_value_loss": (
        lambda value, old, returns: losses.clipped_value_loss(value, old, returns, MASK, clip=1e3),
        [(B, T), (B, T), (B, T)],
        {0},
    ),
    "consistency_output": (losses.consistency_output, [(B, T), (B, T), (B,), (B,)], {0, 1, 2, 3}),
    "control_consistency_loss": (
        lambda training, error: losses.control_consistency_loss(training, error, ~NONE),
        [(B,), (B,)],
        {0, 1},
    ),
    "crpo_loss": (partial(losses.crpo_loss, beta=2.0), FOUR, {0, 1}),
    "ctrl_u_loss": (
        lambda training, error, doubt: losses.ctrl_u_loss(training, error, doubt, ~NONE, weight=0.5),
        [(T,), (B, T), (B, T)],
        {0, 1, 2},
    ),
    "d3po_loss": (
        lambda *t: losses.d3po_loss(*t[:4], beta=2.0, clamp=1e3, label=t[4].sign()),
        [(B, T), (B, T), (B, T), (B, T), (B,)],
        {0, 1},
    ),
    "dapo_mean": (lambda values: losses.dapo_mean(values, MASK), [(B, T)], {0}),
    "denoising_error": (losses.denoising_error, [(B, T), (B, T)], {0}),
    "denoising_log_prob": (losses.denoising_log_prob, [(B, T), (B, T)], {0}),
    "diffusion_dro_loss": (partial(losses.diffusion_dro_loss, margin=1e3), [(B, T)] * 6, {0, 3}),
    "dpo_logits": (losses.dpo_logits, FOUR, {0, 1}),
    "dpo_loss": (lambda *t: losses.dpo_loss(*t[:4], beta=t[4]), [*FOUR, (B,)], {0, 1}),
    "dr_grpo_mean": (lambda values: losses.dr_grpo_mean(values, MASK, max_tokens=8), [(B, T)], {0}),
    "draft_loss": (losses.draft_loss, [(B,)], {0}),
    "dream_fl_loss": (partial(losses.dream_fl_loss, weight=0.5), [(), (B,)], {0, 1}),
    "dro_gap": (losses.dro_gap, FOUR, {0, 2}),
    "dro_loss": (partial(losses.dro_loss, margin=1e3), FOUR, {0, 2}),
    "gapo_loss": (lambda *t: losses.gapo_loss(*t[:4], weight=t[4].exp(), beta=2.0), [*FOUR, (B,)], {0, 1}),
    "gaussian_kl": (losses.gaussian_kl, [(B, T), (B, T), (B,)], {0}),
    "gdpo_loss": (
        partial(losses.gdpo_loss, chosen=CHOSEN, mask=MASK),
        [(B, T), (B, T + 1), (B, T), (B, T + 1)],
        {0, 1},
    ),
    "grpo_mean": (lambda values: losses.grpo_mean(values, MASK), [(B, T)], {0}),
    "hinge_dpo_loss": (partial(losses.hinge_dpo_loss, beta=1e-3), FOUR, {0, 1}),
    "instruct_video_loss": (losses.instruct_video_loss, [(B, T), (B, T)], {0}),
    "ipo_loss": (partial(losses.ipo_loss, beta=2.0), FOUR, {0, 1}),
    "kept_mean": (lambda values: losses.kept_mean(values, CHOSEN), [(B,)], {0}),
    "kl_k1": (losses.kl_k1, [(B, T), (B, T)], {0}),
    "kl_k3": (losses.kl_k3, [(B, T), (B, T)], {0}),
    "latent_reward_loss": (losses.latent_reward_loss, [(B, V), (B, V)], {0}),
    "nash_md_loss": (
        lambda log_prob, ref, win: losses.nash_md_loss(log_prob, ref, probability(win), MASK),
        [(B, T), (B, T), (B,)],
        {0},
    ),
    "nft_loss": (
        lambda x, old, clean, r: losses.nft_loss(x, old, clean, probability(r), beta=0.5),
        [(B, T), (B, T), (B, T), (B,)],
        {0},
    ),
    "nft_velocity_loss": (
        lambda v, old, target, r: losses.nft_velocity_loss(v, old, target, probability(r), beta=0.5),
        [(B, T), (B, T), (B, T), (B,)],
        {0},
    ),
    "offset_noise": (losses.offset_noise, [(1, 1, 2, 2, 2), (1, 1, 2)], {0, 1}),
    "osp_loss": (
        lambda *t: losses.osp_loss(*t[:4], probability=probability(t[4]), beta=2.0),
        [*FOUR, (B,)],
        {0, 1},
    ),
    "pro_loss": (losses.pro_loss, [(B, T), (B, T), (B,)], {0, 2}),
    "pseudo_huber": (losses.pseudo_huber, [(B, T), (B, T)], {0}),
    "refl_loss": (
        lambda reward, error: losses.refl_loss(reward, target=1e3, pretraining_error=error),
        [(B,), (T,)],
        {0, 1},
    ),
    "reward_distillation_loss": (losses.reward_distillation_loss, [(B, T), (B, T), (B,)], {0, 2}),
    "robust_dpo_loss": (partial(losses.robust_dpo_loss, beta=2.0, flip_rate=0.1), FOUR, {0, 1}),
    # All in the wrong order, and an even number, so that no pulls cancel.
    "rrhf_loss": (lambda log_prob, r: losses.rrhf_loss(log_prob, r - 99 * log_prob), [(B, V), (B, V)], {0}),
    "score_function_loss": (losses.score_function_loss, [(B, T), (B,)], {0}),
    "sds_loss": (losses.sds_loss, [(B, T), (B, T)], {0}),
    "sequence_log_prob": (lambda log_prob: losses.sequence_log_prob(log_prob, MASK), [(B, T)], {0}),
    "slic_loss": (partial(losses.slic_loss, margin=1e3), [(B,), (B,), (B,)], {0, 1, 2}),
    "spo_degree_loss": (
        lambda loss, logits: losses.spo_degree_loss(loss, logits, torch.tensor([0, 3, 1]), weight=0.5),
        [(), (B, V)],
        {0, 1},
    ),
    "sppo_loss": (partial(losses.sppo_loss, beta=2.0), FOUR, {0, 1}),
    "straight_through": (losses.straight_through, [(B, T), (B, T)], {1}),
    "token_dro_loss": (
        partial(losses.token_dro_loss, expert_mask=MASK, negative_mask=MASK, margin=1e3),
        [(B, T), (B, T), (B, T, V), (B, T, V), (B, T, V)],
        {0, 2},
    ),
    "token_kl": (partial(losses.token_kl, mask=MASK), [(B, T, V), (B, T, V)], {0, 1}),
    "token_log_probs": (lambda logits: losses.token_log_probs(logits, TOKENS), [(B, T, V)], {0}),
    "token_reward_distillation_loss": (
        lambda logits, teacher, advantage: losses.token_reward_distillation_loss(
            logits, teacher, TOKENS, advantage, MASK
        ),
        [(B, T, V), (B, T, V), (B,)],
        {0},
    ),
    "truncate_gradient": (partial(losses.truncate_gradient, step=3, start=3), [(B, T)], {0}),
    "velocity_drift": (losses.velocity_drift, [(B, T), (B, T)], {0}),
    "weighted_likelihood_loss": (
        lambda log_prob, weight: losses.weighted_likelihood_loss(log_prob, weight.exp()),
        [(B,), (B,)],
        {0},
    ),
    "beta_rating_loss": (
        lambda logit, spread, share: losses.beta_rating_loss(logit, spread, probability(share).detach()),
        [(B,), (B,), (B,)],
        {0, 1},
    ),
    "binary_feedback_loss": (
        lambda logit, label, weight: losses.binary_feedback_loss(
            logit, probability(label), weight=weight.exp()
        ),
        [(B,), (B,), (B,)],
        {0},
    ),
    "bradley_terry_loss": (
        lambda gap, margin, weight: losses.bradley_terry_loss(gap, margin=margin, weight=weight.exp()),
        [(B,), (B,), (B,)],
        {0},
    ),
    "centring_penalty": (losses.centring_penalty, [(B,), (B,)], {0, 1}),
    "comparison_covariance": (losses.comparison_covariance, [(B, T, V)], {0}),
    "davidson_log_probs": (lambda gap: losses.davidson_log_probs(gap)[:, 0], [(B,)], {0}),
    "expected_share": (lambda x: losses.expected_share(x.log_softmax(1)), [(B, V)], {0}),
    "gaussian_bradley_terry_loss": (
        lambda gap, spread: losses.gaussian_bradley_terry_loss(gap, spread.exp()),
        [(B,), (B,)],
        {0, 1},
    ),
    "gaussian_rating_loss": (losses.gaussian_rating_loss, [(B,), (B,), (B,)], {0, 1}),
    "grm_loss": (losses.grm_loss, [(), ()], {0, 1}),
    "grm_sft_loss": (losses.grm_sft_loss, [(B,)], {0}),
    "head_overlap": (losses.head_overlap, [(2, V)], {0}),
    "inner_share": (lambda x: losses.inner_share(x, low=-9, high=9, count=5), [(B,)], {0}),
    "margin_cap_penalty": (
        lambda gap, distance: losses.margin_cap_penalty(gap, probability(distance), base=1e-3, slope=1e-3),
        [(B,), (B,)],
        {0},
    ),
    "pcrm_loss": (
        lambda gap, alike: losses.pcrm_loss(gap, probability(alike)),
        [(B,), (B,)],
        {0},
    ),
    "odin_loss": (losses.odin_loss, [(2 * B, V), (2, V), (2 * B,)], {0, 1}),
    "odin_rewards": (lambda x, w: sums(losses.odin_rewards(x, w)), [(B, V), (2, V)], {0, 1}),
    "pairwise_ranking_loss": (
        lambda r: losses.pairwise_ranking_loss(r, RANKS),
        [(B, V)],
        {0},
    ),
    "pearson": (losses.pearson, [(B,), (B,)], {0, 1}),
    "pessimistic_value": (
        lambda x, theta, c: losses.pessimistic_value(x, theta, torch.eye(V).double(), centre=c),
        [(B, V), (V,), (V,)],
        {0, 1, 2},
    ),
    "plackett_luce_log_prob": (lambda r: losses.plackett_luce_log_prob(r, RANKS), [(B, V)], {0}),
    "plackett_luce_loss": (lambda r: losses.plackett_luce_loss(r, RANKS), [(B, V)], {0}),
    "product_of_experts_loss": (losses.product_of_experts_loss, [(B,), (B,)], {0, 1}),
    "rao_kupper_log_probs": (losses.rao_kupper_log_probs, [(B,)], {0}),
    "rating_loss": (losses.rating_loss, [(B, V), (B, V)], {0}),
    "region_detection_loss": (
        lambda z: losses.region_detection_loss(z, torch.full((B, T), 0.25), torch.ones(B, dtype=torch.bool)),
        [(B, T)],
        {0},
    ),
    "sinkhorn_loss": (
        lambda x, y: losses.sinkhorn_loss(x.log_softmax(1), y.softmax(1), temperature=1.0),
        [(B, V), (B, V)],
        {0},
    ),
    "soft_bradley_terry_loss": (
        lambda gap, p: losses.soft_bradley_terry_loss(gap, probability(p)),
        [(B,), (B,)],
        {0},
    ),
    "squared_tie_loss": (losses.squared_tie_loss, [(B,)], {0}),
    "tied_preference_loss": (
        lambda gap: losses.tied_preference_loss(losses.rao_kupper_log_probs(gap), torch.tensor([1, 0, -1])),
        [(B,)],
        {0},
    ),
    "true_rate_logit": (lambda x: losses.true_rate_logit(x, base_rate=0.1), [(B,)], {0}),
    "unit_rows": (lambda heads: losses.unit_rows(heads) ** 3, [(2, T)], {0}),
    "vote_update": (lambda *t: sums(losses.vote_update(*t)), [(B,)] * 4, {0, 1, 2, 3}),
    "word_detection_loss": (
        lambda z: losses.word_detection_loss(z, z < 0, torch.ones(B, T, dtype=torch.bool)),
        [(B, T)],
        {0},
    ),
    "wasserstein_loss": (
        lambda x, y: losses.wasserstein_loss(x.log_softmax(1), y.softmax(1)),
        [(B, V), (B, V)],
        {0},
    ),
}
# Detached altogether: numbers to look at, and weights that a loss multiplies with.
CONSTANT: dict[str, tuple[Callable[..., Tensor], Shapes]] = {
    "best_of_n_mean": (partial(losses.best_of_n_mean, n=2), [(B, T)]),
    "best_weights": (losses.best_weights, [(B, T)]),
    "brain_weights": (partial(losses.brain_weights, temperature=1.0), [(B, T), (B, T), (B, T)]),
    "clamp_advantages": (losses.clamp_advantages, [(B, T)]),
    "clip_fraction": (partial(losses.clip_fraction, clip=0.2), [(B, T), (B, T), (B,)]),
    "dance_grpo_advantages": (losses.dance_grpo_advantages, [(B, T)]),
    "draft_lv_noisy": (losses.draft_lv_noisy, [(B, T), (2, B, T), (B,), (B,)]),
    "effective_sample_size": (losses.effective_sample_size, [(B, T)]),
    "exp_weights": (losses.exp_weights, [(B, T)]),
    "flow_grpo_advantages": (losses.flow_grpo_advantages, [(B, T)]),
    "gae": (lambda rewards, values: losses.gae(rewards, values, MASK), [(B, T), (B, T)]),
    "gapo_weights": (lambda low, gap: losses.gapo_weights(low.exp() + gap.exp(), low.exp()), [(B,), (B,)]),
    "group_advantages": (losses.group_advantages, [(B, T)]),
    "implicit_accuracy": (losses.implicit_accuracy, FOUR),
    "lcm_guidance": (lambda c, u, w: losses.lcm_guidance(c, u, guidance=w), [(B, T), (B, T), (B,)]),
    "leave_one_out_advantages": (losses.leave_one_out_advantages, [(B, T)]),
    "lift_weights": (losses.lift_weights, [(B, T)]),
    "nash_md_mixture": (losses.nash_md_mixture, [(B, V), (B, V)]),
    "optimality_probability": (losses.optimality_probability, [(B, T)]),
    "raw_weights": (lambda reward: losses.raw_weights(reward.exp()), [(B, T)]),
    "sds_gradient": (losses.sds_gradient, [(B, T), (B, T), (B,)]),
    "softmax_weights": (losses.softmax_weights, [(B, T)]),
    "whiten": (lambda advantages: losses.whiten(advantages, MASK), [(B, T)]),
    "win_rate_rewards": (lambda p: losses.win_rate_rewards(antisymmetric(p)), [(B, V, V)]),
    "annotator_log_likelihood": (
        lambda gap: losses.annotator_log_likelihood(gap, torch.tensor([0, 1, 0]), annotators=2),
        [(B, V)],
    ),
    "balance_weights": (lambda y: losses.balance_weights(probability(y), base_rate=0.1), [(B,)]),
    "beta_bins": (lambda a, b: losses.beta_bins(a.exp(), b.exp(), bins=4), [(B,), (B,)]),
    "bradley_terry_fit": (losses.bradley_terry_fit, [(B, V)]),
    "mixture_log_likelihood": (losses.mixture_log_likelihood, [(B, V)]),
    "pair_weights": (lambda r: losses.pair_weights(r, torch.tensor([0, 2])), [(B, V)]),
    "pcrm_similarity": (losses.pcrm_similarity, [(B,)]),
    "prior_distance": (lambda c, r: losses.prior_distance(c, probability(r)), [(B,), (B,)]),
    "responsibilities": (losses.responsibilities, [(B, V)]),
    "token_group_advantages": (
        lambda t: losses.token_group_advantages(t, t.sum(-1), torch.ones(2, B, T, dtype=torch.bool)),
        [(2, B, T)],
    ),
    "strength_weights": (lambda s: losses.strength_weights(s.exp()), [(B,)]),
}
# Indices, booleans and plain numbers, which have no gradient to ask for.
NOT_DIFFERENTIABLE = {
    "Credit",
    "FilterRule",
    "LIFT_SCORES",
    "PromptTracker",
    "RealLabel",
    "attenuation_weights",
    "best_and_worst",
    "best_of_n_kl",
    "draft_k_start",
    "draw_step",
    "filter_groups",
    "gaussian_truncation",
    "lift_score",
    "matched_weight",
    "nft_old_decay",
    "partial_chain_start",
    "ramp",
    "segment_frames",
    "spo_removal",
    "pessimism_bound",
    "smoothed_probability",
}
# Losses that look only under the mask, or at the samples that are kept, and where that is in each shape.
MASKED = {
    "clipped_value_loss",
    "dapo_mean",
    "dr_grpo_mean",
    "gdpo_loss",
    "grpo_mean",
    "kept_mean",
    "nash_md_loss",
    "sequence_log_prob",
    "token_dro_loss",
    "token_kl",
    "token_reward_distillation_loss",
}
LOOKED_AT: dict[tuple[int, ...], Tensor] = {
    (B,): CHOSEN,
    (B, T): MASK,
    (B, T + 1): torch.arange(T + 1) <= MASK.sum(1, keepdim=True),
    (B, T, V): MASK[..., None].expand(B, T, V),
}


def draw(shapes: Shapes) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


def test_the_audit_is_complete() -> None:
    assert len(losses.__all__) > 100
    assert len(LOSSES) > 60
    assert sorted([*LOSSES, *CONSTANT, *NOT_DIFFERENTIABLE]) == sorted(losses.__all__)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_reaches_what_is_trained_and_nothing_else(name: str) -> None:
    function, argument_shapes, trained = LOSSES[name]
    arguments = draw(argument_shapes)
    assert trained
    assert trained <= set(range(len(arguments)))
    function(*arguments).sum().backward()
    for place, argument in enumerate(arguments):
        if place in trained:
            assert argument.grad is not None
            everywhere = torch.ones_like(argument, dtype=torch.bool)
            looked_at = LOOKED_AT[tuple(argument.shape)] if name in MASKED else everywhere
            assert torch.equal(argument.grad != 0, looked_at)
        else:
            assert argument.grad is None


@pytest.mark.parametrize("name", CONSTANT)
def test_what_is_only_looked_at_has_no_gradient(name: str) -> None:
    function, argument_shapes = CONSTANT[name]
    assert not function(*draw(argument_shapes)).requires_grad
