from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    denoising_error,
    diffusion_dro_loss,
    dro_gap,
    dro_loss,
    token_dro_loss,
    token_log_probs,
)
from tests.losses.drawing import EXACT, gaussian

B, D = 3, 4
L, N, V = 5, 6, 7
EXPERT_MASK = torch.tensor([[True] * 5, [True] * 2 + [False] * 3, [False] * 2 + [True] * 3])
NEGATIVE_MASK = torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [True] + [False] * 5])
masked_dro_loss = partial(token_dro_loss, expert_mask=EXPERT_MASK, negative_mask=NEGATIVE_MASK)


def errors(seed: int = 0) -> list[Tensor]:
    return list(gaussian(4, B, seed=seed) ** 2)


# The hinge


def test_the_gap_and_its_hinge_worked_by_hand() -> None:
    # (2 - 3) - (0.5 - 1) = -0.5 and (1 - 3) - (2 - 2) = -2
    four = list(torch.tensor([[2.0, 1.0], [3.0, 3.0], [0.5, 2.0], [1.0, 2.0]], dtype=torch.float64))
    assert_close(dro_gap(*four), torch.tensor([-0.5, -2.0], dtype=torch.float64))
    assert_close(dro_loss(*four, margin=1.0).item(), 0.25)
    assert dro_loss(*four) == 0
    assert_close(dro_loss(*[torch.zeros(B)] * 4), torch.tensor(0.001))


def test_only_what_is_within_the_margin_teaches() -> None:
    for gap, slope in ((-0.2, 0.0), (-0.05, 0.5), (3.0, 0.5)):
        pair = [
            torch.tensor([gap, 9.0], requires_grad=True),
            torch.zeros(2),
            torch.zeros(2).requires_grad_(),
            torch.zeros(2),
        ]
        dro_loss(*pair, margin=0.1).backward()
        assert pair[0].grad is not None
        assert pair[2].grad is not None
        assert pair[0].grad.tolist() == [slope, 0.5]
        assert pair[2].grad.tolist() == [-slope, -0.5]


def test_the_papers_threshold_has_the_same_gradient() -> None:
    margin = 0.7
    gradients = []
    for form in ("margin", "threshold"):
        expert = gaussian(8).requires_grad_()
        others = gaussian(3, 8, seed=1)
        loss = (
            dro_loss(expert, *others, margin=margin)
            if form == "margin"
            else dro_gap(expert, *others).clamp_min(-margin).mean()
        )
        loss.backward()
        assert expert.grad is not None
        gradients.append(expert.grad)
    assert torch.equal(gradients[0], gradients[1])
    assert 0 < (gradients[0] == 0).sum() < 8


def test_only_differences_count() -> None:
    expert, ref_expert, negative, ref_negative = four = errors()
    constant, loss = gaussian(B, seed=1), dro_loss(*errors(), margin=1.0)
    assert_close(
        dro_loss(expert + constant, ref_expert + constant, negative, ref_negative, margin=1.0), loss, **EXACT
    )
    assert_close(
        dro_loss(expert + constant, ref_expert, negative + constant, ref_negative, margin=1.0), loss, **EXACT
    )
    order = torch.tensor([2, 0, 1])
    assert_close(dro_loss(*[e[order] for e in four], margin=1.0), loss, **EXACT)


@pytest.mark.parametrize("place", range(4))
def test_shapes_that_would_broadcast_are_refused(place: int) -> None:
    four = errors()
    four[place] = gaussian(B, 1)
    for function in (dro_gap, dro_loss):
        with pytest.raises(ShapeError, match=r"_error: expected \[B\] = \[3\], got \[3, 1\]"):
            function(*four)


# Predictions


def test_where_policy_snapshot_and_reference_are_one_only_demonstrations_are_learned() -> None:
    target, seen = gaussian(B, D), gaussian(B, D, seed=1)
    expert, negative = gaussian(B, D, seed=2).requires_grad_(), seen.clone().requires_grad_()
    loss = diffusion_dro_loss(expert, expert.detach(), target, negative, seen, seen, margin=0.001)
    loss.backward()
    assert_close(loss.item(), 0.001)
    assert negative.grad is not None
    assert (negative.grad == 0).all()
    (fine_tuning,) = torch.autograd.grad(denoising_error(expert, target).mean(), expert)
    assert_close(expert.grad, fine_tuning, **EXACT)


def test_it_is_the_hinge_on_four_squared_errors() -> None:
    expert, ref_expert, target, negative, ref_negative, snapshot = (gaussian(B, D, seed=s) for s in range(6))
    by_hand = [
        ((a - b) ** 2).mean(1)
        for a, b in ((expert, target), (ref_expert, target), (negative, snapshot), (ref_negative, snapshot))
    ]
    gap = (by_hand[0] - by_hand[1]) - (by_hand[2] - by_hand[3])
    loss = diffusion_dro_loss(expert, ref_expert, target, negative, ref_negative, snapshot, margin=0.5)
    assert_close(loss, (gap + 0.5).clamp_min(0).mean(), **EXACT)
    plain = diffusion_dro_loss(expert, ref_expert, target, negative, ref_negative, snapshot)
    assert_close(plain, (gap + 0.001).clamp_min(0).mean(), **EXACT)


def test_a_demonstration_that_is_the_negative_cancels_under_any_policy() -> None:
    noisy, said = gaussian(B, D), gaussian(B, D, seed=1)
    for seed in (2, 3):
        policy, ref = (
            torch.tanh(noisy @ gaussian(D, D, seed=seed)),
            torch.tanh(noisy @ gaussian(D, D, seed=9)),
        )
        loss = diffusion_dro_loss(policy, ref, said, policy, ref, said, margin=0.25)
        assert_close(loss.item(), 0.25)


def test_the_two_sides_may_differ_in_shape_but_not_each_in_itself() -> None:
    one, wide = torch.ones(B, D), torch.ones(B, D, 2)
    diffusion_dro_loss(one, one, one, wide, wide, wide)
    for place, message in (
        (1, r"ref_expert_prediction: expected \[B, ...\] = "),
        (2, r"target: expected \[B, ...\] = "),
        (4, r"ref_negative_prediction: expected \[B, ...\] = "),
        (5, r"target: expected \[B, ...\] = "),
    ):
        arguments = [one] * 6
        arguments[place] = torch.ones(B, 1)
        with pytest.raises(ShapeError, match=message):
            diffusion_dro_loss(*arguments)


# Tokens


def test_where_token_models_are_one_only_demonstrations_are_learned() -> None:
    expert_logits, tokens = gaussian(B, L, V).requires_grad_(), torch.arange(B * L).reshape(B, L) % V
    log_prob = token_log_probs(expert_logits, tokens)
    negative = gaussian(B, N, V, seed=1).requires_grad_()
    same = negative.detach()
    loss = masked_dro_loss(log_prob, log_prob.detach(), negative, same, same)
    loss.backward(retain_graph=True)
    assert_close(loss.item(), 0.001)
    assert_close(negative.grad, torch.zeros_like(negative), rtol=0, atol=1e-16)
    nll = -torch.stack([log_prob[b][EXPERT_MASK[b]].mean() for b in range(B)]).mean()
    assert_close(expert_logits.grad, torch.autograd.grad(nll, expert_logits)[0], **EXACT)


def test_it_is_the_hinge_on_likelihoods_and_divergences() -> None:
    expert, ref = -gaussian(B, L).abs(), -gaussian(B, L, seed=1).abs()
    logits = [gaussian(B, N, V, seed=s) for s in (2, 3, 4)]
    policy, reference, snapshot = (torch.distributions.Categorical(logits=t) for t in logits)
    rows = []
    for b in range(B):
        kls = [
            torch.distributions.kl_divergence(snapshot, q)[b][NEGATIVE_MASK[b]].mean()
            for q in (policy, reference)
        ]
        rows.append((ref - expert)[b][EXPERT_MASK[b]].mean() - (kls[0] - kls[1]))
    expected = (torch.stack(rows) + 0.5).clamp_min(0).mean()
    assert_close(masked_dro_loss(expert, ref, *logits, margin=0.5), expected, **EXACT)
    default = (torch.stack(rows) + 0.001).clamp_min(0).mean()
    assert_close(masked_dro_loss(expert, ref, *logits), default, **EXACT)


def test_masked_tokens_are_inert_and_the_hinge_lets_go() -> None:
    expert, ref = -gaussian(B, L).abs(), -gaussian(B, L, seed=1).abs()
    logits = [gaussian(B, N, V, seed=s) for s in (2, 3, 4)]
    loss = masked_dro_loss(expert, ref, *logits, margin=3.0)
    nan = float("nan")
    other = masked_dro_loss(
        expert.masked_fill(~EXPERT_MASK, nan),
        ref.masked_fill(~EXPERT_MASK, nan),
        *[t.masked_fill(~NEGATIVE_MASK[..., None], nan) for t in logits],
        margin=3.0,
    )
    assert torch.equal(other, loss)
    known = (expert + 99).requires_grad_()
    masked_dro_loss(known, ref, *logits).backward()
    assert_close(known.grad, torch.zeros(B, L, dtype=torch.float64), rtol=0, atol=0)


def test_token_shapes_that_would_broadcast_are_refused() -> None:
    logits = [gaussian(B, N, V)] * 3
    with pytest.raises(ShapeError, match=r"ref_expert_log_prob: expected \[B, L\] = \[3, 5\], got \[3, 1\]"):
        masked_dro_loss(gaussian(B, L), gaussian(B, 1), *logits)
    with pytest.raises(ShapeError, match="other_logits: expected"):
        masked_dro_loss(gaussian(B, L), gaussian(B, L), gaussian(B, 1, V), *logits[1:])
    empty = NEGATIVE_MASK & torch.tensor([[True], [True], [False]])
    with pytest.raises(ConfigError, match="row 2 is empty"):
        masked_dro_loss(gaussian(B, L), gaussian(B, L), *logits, negative_mask=empty)
