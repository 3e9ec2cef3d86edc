import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import leave_one_out_advantages, token_reward_distillation_loss
from tests.losses.drawing import EXACT, gaussian

B, L, V = 3, 5, 4
MASK = torch.tensor([[True] * 5, [True, True, False, False, False], [False, True, True, True, False]])
TOKENS = torch.arange(B * L).reshape(B, L) % V
ADVANTAGE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)


def test_it_is_the_mean_kl_less_the_policy_gradient() -> None:
    logits, teacher = gaussian(B, L, V), gaussian(B, L, V, seed=1)
    student, other = (torch.distributions.Categorical(logits=t) for t in (logits, teacher))
    kl, log_prob = torch.distributions.kl_divergence(student, other), student.log_prob(TOKENS)
    rows = [kl[b][MASK[b]].mean() - 0.3 * ADVANTAGE[b] * log_prob[b][MASK[b]].mean() for b in range(B)]
    loss = token_reward_distillation_loss(logits, teacher, TOKENS, ADVANTAGE, MASK, reward_weight=0.3)
    assert_close(loss, torch.stack(rows).mean(), **EXACT)
    tenth = token_reward_distillation_loss(logits, teacher, TOKENS, ADVANTAGE, MASK, reward_weight=0.1)
    assert torch.equal(token_reward_distillation_loss(logits, teacher, TOKENS, ADVANTAGE, MASK), tenth)


def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient_without_a_reward() -> None:
    logits = gaussian(B, L, V).requires_grad_()
    loss = token_reward_distillation_loss(logits, logits.detach(), TOKENS, ADVANTAGE, MASK, reward_weight=0.0)
    loss.backward()
    assert loss.item() == 0
    assert_close(logits.grad, torch.zeros(B, L, V, dtype=torch.float64), **EXACT)


def test_the_gradient_of_the_kl_is_that_over_the_whole_vocabulary() -> None:
    # Two tokens of one sequence: dKL / dlogits_v = p_v (log p_v - log q_v - KL), over L tokens.
    logits, teacher = gaussian(1, 2, V).requires_grad_(), gaussian(1, 2, V, seed=1)
    everything = torch.ones(1, 2, dtype=torch.bool)
    token_reward_distillation_loss(
        logits, teacher, TOKENS[:1, :2], ADVANTAGE[:1], everything, reward_weight=0.0
    ).backward()
    log_p, log_q = logits.detach().log_softmax(2), teacher.log_softmax(2)
    kl = (log_p.exp() * (log_p - log_q)).sum(2, keepdim=True)
    assert_close(logits.grad, log_p.exp() * (log_p - log_q - kl) / 2, **EXACT)


def test_a_constant_on_all_rewards_changes_nothing() -> None:
    logits, teacher, rewards = gaussian(B, L, V), gaussian(B, L, V, seed=1), gaussian(1, B, seed=2)
    losses = [
        token_reward_distillation_loss(logits, teacher, TOKENS, leave_one_out_advantages(r)[0], MASK)
        for r in (rewards, rewards + 7)
    ]
    assert_close(losses[0], losses[1], **EXACT)


def test_masked_tokens_are_inert_and_the_order_does_not_count() -> None:
    logits, teacher = gaussian(B, L, V), gaussian(B, L, V, seed=1)
    loss = token_reward_distillation_loss(logits, teacher, TOKENS, ADVANTAGE, MASK)
    out = ~MASK[..., None]
    other = token_reward_distillation_loss(
        logits.masked_fill(out, float("nan")),
        teacher.masked_fill(out, float("inf")),
        TOKENS.masked_fill(~MASK, -100),
        ADVANTAGE,
        MASK,
    )
    assert torch.equal(other, loss)
    order = torch.tensor([2, 0, 1])
    shuffled = token_reward_distillation_loss(
        logits[order], teacher[order], TOKENS[order], ADVANTAGE[order], MASK[order]
    )
    assert_close(shuffled, loss, **EXACT)


def test_mistakes_are_refused() -> None:
    logits = gaussian(B, L, V)
    with pytest.raises(
        ShapeError, match=r"teacher_logits: expected \[B, L, V\] = \[3, 5, 4\], got \[3, 1, 4\]"
    ):
        token_reward_distillation_loss(logits, logits[:, :1], TOKENS, ADVANTAGE, MASK)
    with pytest.raises(ShapeError, match=r"advantage: expected \[B\] = \[3\], got \[3, 1\]"):
        token_reward_distillation_loss(logits, logits, TOKENS, ADVANTAGE[:, None], MASK)
    with pytest.raises(ShapeError, match=r"tokens: expected"):
        token_reward_distillation_loss(logits, logits, TOKENS[:, :1], ADVANTAGE, MASK)
    with pytest.raises(ConfigError, match="mask: expected booleans"):
        token_reward_distillation_loss(logits, logits, TOKENS, ADVANTAGE, MASK.long())
