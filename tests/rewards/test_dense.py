"""Redistribution, segments and spans."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.rewards.redistribution import (
    attention_redistribution,
    potential_shaping,
    prefix_redistribution,
    sampled_return,
    uniform_redistribution,
)
from mmalign.rewards.segments import (
    chain_score,
    entropy_segments,
    location_normalised,
    segment_means,
    segments_to_tokens,
)
from mmalign.rewards.spans import Span, changed_token_labels, find_quotation, merge_spans, spans_to_tokens

B, L = 3, 6
# A prompt before it, padding after it, a response of one token.
MASK = torch.tensor(
    [[False, True, True, True, False, False], [True] * 6, [False, False, True, False, False, False]]
)
NAN = float("nan")


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# redistribution


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_every_redistribution_keeps_the_sum(share: float) -> None:
    value, start, reward = gaussian(B, L).masked_fill(~MASK, NAN), gaussian(B, seed=1), gaussian(B, seed=2)
    end = torch.stack([value[0, 3], value[1, 5], value[2, 2]])
    red = prefix_redistribution(value, start, MASK, share=share)
    assert_close(red.sum(1), end - start, rtol=0, atol=1e-12)
    looked = gaussian(B, L, seed=3).exp()
    assert_close(
        attention_redistribution(reward, looked, MASK, share=share).sum(1), reward, rtol=0, atol=1e-12
    )
    assert_close(uniform_redistribution(reward, MASK).sum(1), reward, rtol=0, atol=1e-12)
    for found in (red, attention_redistribution(reward, looked, MASK, share=share)):
        assert (found[~MASK] == 0).all()


def test_the_sum_holds_to_a_millionth_in_single_precision() -> None:
    n = 400
    value = torch.randn(8, n, generator=torch.Generator().manual_seed(0)).cumsum(1) / n**0.5
    mask = torch.ones(8, n, dtype=torch.bool)
    start = torch.zeros(8)
    assert_close(
        prefix_redistribution(value, start, mask).double().sum(1).float(), value[:, -1], rtol=0, atol=1e-6
    )
    shaped = potential_shaping(uniform_redistribution(value[:, -1], mask), value, mask)
    assert_close(shaped.double().sum(1).float(), value[:, -1], rtol=0, atol=1e-6)


def test_a_token_is_worth_what_it_adds() -> None:
    value = torch.tensor([[7.0, 1.0, 4.0, 2.0, 9.0]])
    mask = torch.tensor([[False, True, True, True, False]])
    start = torch.tensor([0.5])
    assert prefix_redistribution(value, start, mask).tolist() == [[0, 0.5, 3, -2, 0]]
    # Half of it, and half of 2 - 0.5 at the end.
    assert prefix_redistribution(value, start, mask, share=0.5).tolist() == [[0, 0.25, 1.5, -0.25, 0]]
    assert prefix_redistribution(value, start, mask, share=0.0).tolist() == [[0, 0, 0, 1.5, 0]]


def test_even_attention_shares_evenly_and_without_renormalising_the_prompts_part_is_lost() -> None:
    reward = gaussian(B)
    even = torch.full((B, L), 1 / L, dtype=torch.float64)
    assert_close(
        attention_redistribution(reward, even, MASK, share=1.0), uniform_redistribution(reward, MASK)
    )
    lost = attention_redistribution(reward, even, MASK, share=1.0, renormalise=False)
    assert_close(lost.sum(1), reward * MASK.sum(1) / L)
    sparse = attention_redistribution(reward, even, MASK, share=0.0)
    assert sparse.count_nonzero(1).tolist() == [1, 1, 1]
    assert_close(torch.stack([sparse[0, 3], sparse[1, 5], sparse[2, 2]]), reward)


def test_shaping_by_the_plain_loop_keeps_the_discounted_sum() -> None:
    rewards, potential, gamma = gaussian(B, L), gaussian(B, L, seed=1), 0.9
    shaped = potential_shaping(rewards, potential, MASK, gamma=gamma)
    for b in range(B):
        where = MASK[b].nonzero()[:, 0].tolist()
        phi = [float(potential[b, t] - potential[b, where[0]]) for t in where] + [0.0]
        for i, t in enumerate(where):
            assert shaped[b, t].item() == pytest.approx(float(rewards[b, t]) + gamma * phi[i + 1] - phi[i])
        sums = [sum(gamma**i * float(x[b, t]) for i, t in enumerate(where)) for x in (rewards, shaped)]
        assert sums[1] == pytest.approx(sums[0], abs=1e-12)
    shifted = potential + gaussian(B, 1, seed=2)
    assert_close(potential_shaping(rewards, shifted, MASK, gamma=gamma), shaped)
    flat = torch.ones(B, L, dtype=torch.float64)
    assert_close(potential_shaping(rewards, flat, MASK), rewards.masked_fill(~MASK, 0))


def test_gradients_agree_with_finite_differences() -> None:
    value, start, reward = gaussian(B, L).requires_grad_(), gaussian(B, seed=1).requires_grad_(), gaussian(B)
    assert torch.autograd.gradcheck(lambda v, s: prefix_redistribution(v, s, MASK, share=0.3), [value, start])
    looked = gaussian(B, L).exp().requires_grad_()
    found = attention_redistribution(reward.requires_grad_(), looked, MASK)
    found.sum().backward()
    assert looked.grad is None
    assert_close(reward.grad, torch.ones(B, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda r, p: potential_shaping(r, p, MASK, gamma=0.9), [value, value])


def test_a_sampled_return_is_right_on_average() -> None:
    steps = gaussian(1, 5)
    subsets = torch.tensor(list(itertools.combinations(range(5), 3)))
    returns = sampled_return(steps.expand(len(subsets), 5), subsets, steps=5)
    assert_close(returns.mean(), steps.sum())
    # The excess of the squared loss, as the docstring has it.
    excess = ((returns - steps.sum()) ** 2).mean()
    assert_close(excess, 25 / 3 * (1 - 3 / 5) * steps.var())
    whole = torch.arange(5)[None]
    assert_close(sampled_return(steps, whole, steps=5), steps.sum(1))


def test_masks_that_make_no_response_are_refused() -> None:
    gap = torch.tensor([[True, False, True]])
    x = torch.zeros(1, 3)
    with pytest.raises(ConfigError, match="has a gap"):
        prefix_redistribution(x, torch.zeros(1), gap)
    with pytest.raises(ConfigError, match="is empty"):
        uniform_redistribution(torch.zeros(1), gap & False)
    with pytest.raises(ShapeError, match="reward"):
        uniform_redistribution(torch.zeros(3), gap)
    with pytest.raises(ConfigError, match="attention"):
        attention_redistribution(torch.zeros(1), x, gap | True)
    with pytest.raises(ConfigError, match="share"):
        prefix_redistribution(x, torch.zeros(1), gap | True, share=1.5)


# segments


def test_segments_end_where_the_next_token_is_hard_to_foresee() -> None:
    assert entropy_segments(torch.tensor([0.0, 3.0, 0.0, 0.0, 3.0])) == [1, 4]
    assert entropy_segments(torch.tensor([0.0, 3.0, 0.0, 0.0, 0.0])) == [1, 4]
    assert entropy_segments(torch.zeros(5)) == [4]
    assert entropy_segments(torch.tensor([])) == []


def test_segment_rewards_on_tokens() -> None:
    rewards, ends = gaussian(3), [0, 3, 5]
    end, spread, copy = (segments_to_tokens(rewards, ends, mode=m) for m in ("end", "spread", "copy"))
    assert_close(end.sum(), rewards.sum())
    assert_close(spread.sum(), rewards.sum())
    assert end.nonzero()[:, 0].tolist() == ends
    assert_close(segment_means(copy, ends), rewards)
    assert_close(segment_means(spread, ends), rewards / torch.tensor([1, 3, 2]))
    x = rewards.requires_grad_()
    for mode in ("end", "spread", "copy"):
        assert torch.autograd.gradcheck(lambda r, m=mode: segments_to_tokens(r, ends, mode=m), [x])
    with pytest.raises(ConfigError, match="rising"):
        segments_to_tokens(rewards, [3, 1, 5])
    with pytest.raises(UnknownNameError, match="spread"):
        segments_to_tokens(rewards, ends, mode="sprea")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="ends"):
        segment_means(gaussian(5), [1, 2])


def test_what_the_place_explains_is_gone() -> None:
    S = 4
    log_place = torch.log(torch.arange(1, S + 1).double() / S)
    mean, std = (0.7, -2.0), (0.1, 1.5)
    explained = mean[0] * log_place + mean[1]
    assert_close(location_normalised(explained, mean=mean, std=std), torch.zeros(S, dtype=torch.float64))
    one_std = explained + std[0] * log_place + std[1]
    assert_close(location_normalised(one_std, mean=mean, std=std), torch.ones(S, dtype=torch.float64))
    # The std's line would be negative at the first place; it stops at a tenth of its intercept.
    steep = location_normalised(explained + 0.15, mean=mean, std=(2.0, 1.5))
    assert steep[0].item() == pytest.approx(1.0)
    assert location_normalised(explained + 1e6, mean=mean, std=std).tolist() == [10] * S


def test_chains_worked_by_hand() -> None:
    p = torch.tensor([0.9, 0.5, 0.8], dtype=torch.float64)
    logits = [math.log(x / (1 - x)) for x in p.tolist()]
    by_hand = {
        "product": 0.36,
        "min": 0.5,
        "mean": 2.2 / 3,
        "last": 0.8,
        "mean-logit": 1 / (1 + math.exp(-sum(logits) / 3)),
    }
    for how, value in by_hand.items():
        assert chain_score(p, how=how).item() == pytest.approx(value)  # type: ignore[arg-type]
        assert chain_score(p[:1], how=how).item() == pytest.approx(0.9)  # type: ignore[arg-type]
    assert by_hand["mean-logit"] == pytest.approx(0.767546, abs=1e-6)
    with pytest.raises(UnknownNameError, match="step aggregate"):
        chain_score(p, how="sum")  # type: ignore[arg-type]


# spans


def test_quotations_are_found_exactly_nearly_or_by_their_beginning() -> None:
    text = "The cat sat on the mat. The dog did not."
    assert find_quotation(text, "sat on the mat") == (8, 22)
    start, end = find_quotation(text, "sat on teh mat") or (0, 0)
    assert (start, end) == (8, 23)  # whole words, their punctuation too
    long = "sat on the mat. The dog did not, which is a pity since we had all hoped for it"
    assert find_quotation(text, long, prefix_words=4) == (8, 23)
    assert find_quotation(text, "purple elephants") is None
    assert find_quotation(text, "a") is None


def test_overlapping_spans_are_one_with_the_lowest_score() -> None:
    spans = [Span(3, 8, 0.0), Span(0, 5, -1.0), Span(8, 9, 0.5), Span(20, 22, 1.0)]
    merged = merge_spans(spans)
    assert merged == [Span(0, 8, -1.0), Span(8, 9, 0.5), Span(20, 22, 1.0)]
    assert merge_spans(reversed(spans)) == merged
    assert merge_spans(merged) == merged
    with pytest.raises(ConfigError, match="start < end"):
        merge_spans([Span(3, 3, 0.0)])


def test_spans_reach_every_token_they_touch() -> None:
    # By characters, so that letters of several bytes count once.
    offsets = [(0, 0), (0, 3), (3, 8), (8, 9), (10, 12), (0, 0)]
    assert spans_to_tokens([Span(2, 4, -1.0)], offsets).tolist() == [0, -1, -1, 0, 0, 0]
    assert spans_to_tokens([Span(2, 4, -1.0), Span(8, 11, 0.5)], offsets, default=1.0).tolist() == [
        1,
        -1,
        -1,
        0.5,
        0.5,
        1,
    ]
    centred = spans_to_tokens([Span(2, 4, -1.0)], offsets, default=1.0, centred=True)
    assert centred.sum() == 0
    assert centred.tolist() == [0, -1, -1, 1, 1, 0]


def test_labels_of_a_text_made_wrong() -> None:
    right = ["a", "red", "car", "on", "grass"]
    assert changed_token_labels(right, right) == [1] * 5
    assert changed_token_labels(right, ["a", "blue", "car", "on", "grass"]) == [1, 0, 1, 1, 1]
    assert changed_token_labels(right, ["a", "car", "on", "grass"]) == [1, 0, 1, 1]
    assert changed_token_labels(right, ["a", "red", "car"]) == [1, 1, 0]
    assert changed_token_labels(right, ["a", "red", "old", "car", "on", "grass"]) == [1, 1, 0, 1, 1, 1]
    assert changed_token_labels(right, []) == []
