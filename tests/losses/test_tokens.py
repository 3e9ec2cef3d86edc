import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    clipped_ratio_loss,
    dpo_logits,
    dpo_loss,
    sequence_log_prob,
    token_kl,
    token_log_probs,
)
from tests.losses.drawing import EXACT, gaussian

B, L, V = 3, 5, 7
MASK = torch.tensor([[True] * 5, [True, True, False, False, False], [False, True, True, True, False]])


def words(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(V, shape, generator=torch.Generator().manual_seed(seed))


# Log-probabilities of tokens


def test_a_tokens_log_prob_is_that_of_a_categorical_distribution() -> None:
    logits, tokens = gaussian(B, L, V), words(B, L)
    expected = torch.distributions.Categorical(logits=logits).log_prob(tokens)
    assert_close(token_log_probs(logits, tokens), expected, **EXACT)


def test_a_token_worked_by_hand_at_temperature_two() -> None:
    # Logits log 9 and log 1 halve to log 3 and log 1.
    logits = torch.tensor([[[9.0, 1.0]]], dtype=torch.float64).log()
    log_prob = token_log_probs(logits, torch.tensor([[0]]), temperature=2.0)
    assert_close(log_prob.exp().item(), 0.75)


def test_log_probs_of_all_words_add_up_to_one() -> None:
    logits = gaussian(B, L, V)
    each = [token_log_probs(logits, torch.full((B, L), word), temperature=0.7).exp() for word in range(V)]
    assert_close(torch.stack(each).sum(0), torch.ones(B, L, dtype=torch.float64), **EXACT)


def test_what_the_mask_leaves_out_is_zero_and_takes_no_gradient_whatever_it_holds() -> None:
    logits, tokens = gaussian(B, L, V), words(B, L)
    tokens[~MASK] = -100
    logits[~MASK] = float("nan")
    logits.requires_grad_()
    log_prob = token_log_probs(logits, tokens, mask=MASK)
    assert (log_prob[~MASK] == 0).all()
    assert (log_prob[MASK] < 0).all()
    log_prob.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[~MASK] == 0).all()
    assert (logits.grad[MASK] != 0).all()


def test_the_mask_changes_nothing_where_it_is_true() -> None:
    logits, tokens = gaussian(B, L, V), words(B, L)
    everywhere = token_log_probs(logits, tokens)
    assert_close(token_log_probs(logits, tokens, mask=MASK), everywhere * MASK, **EXACT)


def test_half_precision_is_computed_in_float32() -> None:
    # In bfloat16 the sum over 4096 equal words is off, and log 4096 = 8.3178 rounds to 8.3125.
    log_prob = token_log_probs(
        torch.zeros(1, 1, 4096, dtype=torch.bfloat16), torch.zeros(1, 1, dtype=torch.long)
    )
    assert log_prob.dtype == torch.float32
    assert_close(log_prob, torch.tensor([[-8.317766]]))


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"temperature = .* must be positive"):
        token_log_probs(gaussian(B, L, V), words(B, L), temperature=temperature)


@pytest.mark.parametrize("token", [-1, V, -100])
def test_a_token_outside_the_vocabulary_is_refused_where_it_counts(token: int) -> None:
    tokens = words(B, L)
    tokens[1, 3] = token
    token_log_probs(gaussian(B, L, V), tokens, mask=MASK)  # row 1 ends before
    with pytest.raises(ConfigError, match=f"tokens: expected 0 to 6 wherever the mask is True, got {token};"):
        token_log_probs(gaussian(B, L, V), tokens)


@pytest.mark.parametrize("token", [0, V - 1])
def test_the_first_and_the_last_word_belong_to_the_vocabulary(token: int) -> None:
    assert token_log_probs(gaussian(B, L, V), torch.full((B, L), token)).isfinite().all()


@pytest.mark.parametrize(
    ("logits", "tokens", "mask", "message"),
    [
        ((B, V), (B, L), None, r"logits: expected \[B, L, V\], got \[3, 7\]"),
        ((B, L, V), (B, 1), None, r"tokens: expected \[B, L\] = \[3, 5\], got \[3, 1\]"),
        ((B, L, V), (B, L), (B, 1), r"mask: expected \[B, L\] = \[3, 5\], got \[3, 1\]"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(
    logits: tuple[int, ...], tokens: tuple[int, ...], mask: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        token_log_probs(
            torch.ones(logits),
            torch.zeros(tokens, dtype=torch.long),
            mask=None if mask is None else torch.ones(mask, dtype=torch.bool),
        )


# Whole sequences


def test_a_sequence_worked_by_hand() -> None:
    log_prob = torch.tensor([[-1.0, -3.0, -9.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    for power, expected in ((0.0, -4.0), (1.0, -2.0), (0.5, -4 / 2**0.5), (2.0, -1.0)):
        value = sequence_log_prob(log_prob, mask, length_power=power).item()
        assert_close(value, expected, rtol=1e-12, atol=0)
    assert_close(sequence_log_prob(log_prob, mask).item(), -4.0)


def test_a_sequences_probability_is_the_product_of_its_tokens() -> None:
    logits, tokens = gaussian(B, L, V), words(B, L)
    p = torch.distributions.Categorical(logits=logits).log_prob(tokens).exp()
    expected = torch.where(MASK, p, 1).prod(1)
    assert_close(sequence_log_prob(token_log_probs(logits, tokens), MASK).exp(), expected, **EXACT)


def test_padding_a_sequence_changes_nothing() -> None:
    log_prob = gaussian(B, L)
    padded = torch.cat([log_prob, torch.full((B, 2), float("nan"), dtype=torch.float64)], 1)
    longer = torch.cat([MASK, torch.zeros(B, 2, dtype=torch.bool)], 1)
    for power in (0.0, 1.0):
        assert torch.equal(
            sequence_log_prob(padded, longer, length_power=power),
            sequence_log_prob(log_prob, MASK, length_power=power),
        )


def test_an_empty_sequence_is_refused() -> None:
    mask = MASK.clone()
    mask[1] = False
    for power in (0.0, 1.0):
        with pytest.raises(ConfigError, match="mask: row 1 is empty"):
            sequence_log_prob(gaussian(B, L), mask, length_power=power)


def test_a_mask_of_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"mask: expected booleans.*got torch.int64; give mask.bool\(\)"):
        sequence_log_prob(gaussian(B, L), MASK.long())
    with pytest.raises(ConfigError, match="mask: expected booleans"):
        token_log_probs(gaussian(B, L, V), words(B, L), mask=MASK.float())


def test_a_sequence_needs_a_mask_of_its_shape() -> None:
    with pytest.raises(ShapeError, match=r"mask: expected \[B, L\] = \[3, 5\], got \[3\]"):
        sequence_log_prob(gaussian(B, L), MASK[:, 0])
    with pytest.raises(ShapeError, match=r"what mask is for: expected \[B, L\], got \[3\]"):
        sequence_log_prob(gaussian(B), MASK[:, 0])


# What the other losses make of sequences


def test_token_dpo_has_the_published_gradient() -> None:
    # Minus beta times sigmoid(-beta * logit) on every token of the chosen side, over B pairs.
    beta = 0.3
    chosen, rejected = gaussian(B, L).requires_grad_(), gaussian(B, L, seed=1).requires_grad_()
    four = chosen, rejected, gaussian(B, L, seed=2), gaussian(B, L, seed=3)
    pairs = [sequence_log_prob(side, MASK) for side in four]
    dpo_loss(*pairs, beta=beta).backward()
    slope = beta * torch.sigmoid(-beta * dpo_logits(*pairs).detach()) / B
    assert_close(chosen.grad, -slope[:, None] * MASK, **EXACT)
    assert_close(rejected.grad, slope[:, None] * MASK, **EXACT)


def test_a_prefix_that_both_sides_share_gets_no_gradient_from_dpo() -> None:
    logits = gaussian(B, L, V).requires_grad_()
    chosen, rejected = words(B, L), words(B, L, seed=1)
    rejected[:, :2] = chosen[:, :2]
    everything = torch.ones(B, L, dtype=torch.bool)
    sides = (sequence_log_prob(token_log_probs(logits, t), everything) for t in (chosen, rejected))
    dpo_loss(*sides, *torch.zeros(2, B, dtype=torch.float64), beta=0.1).backward()
    assert logits.grad is not None
    assert_close(logits.grad[:, :2], torch.zeros_like(logits.grad[:, :2]), **EXACT)
    assert logits.grad[:, 2:].abs().max() > 0


def test_a_mean_over_tokens_makes_the_ratio_of_gspo() -> None:
    # The ratio of a sequence is the geometric mean of its tokens' ratios.
    log_prob, old, advantage = gaussian(B, L), gaussian(B, L, seed=1), gaussian(B, seed=2)
    ratio = torch.stack(
        [(log_prob - old)[b][MASK[b]].exp().prod() ** (1 / int(MASK[b].sum())) for b in range(B)]
    )
    expected = torch.maximum(-advantage * ratio, -advantage * ratio.clamp(0.8, 1.2)).mean()
    new, old = (sequence_log_prob(t, MASK, length_power=1.0) for t in (log_prob, old))
    assert_close(clipped_ratio_loss(new, old, advantage, clip=0.2), expected, **EXACT)


# Distance between next-token distributions


def test_the_token_kl_is_that_of_two_categorical_distributions() -> None:
    logits, other = gaussian(B, L, V), gaussian(B, L, V, seed=1)
    p, q = (torch.distributions.Categorical(logits=t) for t in (logits, other))
    expected = torch.distributions.kl_divergence(p, q)
    assert_close(token_kl(logits, other, mask=MASK), expected * MASK, **EXACT)
    assert (expected[MASK] > 0).all()


@given(scale=st.floats(0, 5), seed=st.integers(0, 20))
def test_the_token_kl_is_never_negative_and_has_a_direction(scale: float, seed: int) -> None:
    logits, other = gaussian(1, 1, V), scale * gaussian(1, 1, V, seed=seed)
    mask = torch.tensor([[True]])
    assert token_kl(logits, other, mask=mask) >= -1e-15
    assert token_kl(logits, logits, mask=mask) == 0


def test_the_token_kl_ignores_masked_nans_and_gives_both_sides_gradient() -> None:
    logits, other = gaussian(B, L, V), gaussian(B, L, V, seed=1)
    logits[~MASK], other[~MASK] = float("nan"), float("inf")
    for side in (logits.requires_grad_(), other.requires_grad_()):
        (gradient,) = torch.autograd.grad(token_kl(logits, other, mask=MASK).sum(), side)
        assert (gradient[~MASK] == 0).all()
        assert (gradient[MASK] != 0).all()
    assert (token_kl(logits, other, mask=MASK)[~MASK] == 0).all()


def test_the_token_kl_refuses_what_would_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"logits: expected \[B, L, V\], got \[3, 7\]"):
        token_kl(gaussian(B, V), gaussian(B, V), mask=MASK)
    with pytest.raises(
        ShapeError, match=r"other_logits: expected \[B, L, V\] = \[3, 5, 7\], got \[3, 1, 7\]"
    ):
        token_kl(gaussian(B, L, V), gaussian(B, 1, V), mask=MASK)
    with pytest.raises(ShapeError, match=r"mask: expected \[B, L\] = \[3, 5\], got \[3, 1\]"):
        token_kl(gaussian(B, L, V), gaussian(B, L, V), mask=MASK[:, :1])
