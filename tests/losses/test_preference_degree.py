import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import spo_degree_loss, spo_removal
from tests.losses.drawing import EXACT, gaussian

N, K = 5, 4
B, L = 3, 8
MASK = torch.tensor([[True] * 8, [True] * 5 + [False] * 3, [False] * 2 + [True] * 6])


def test_without_weight_the_loss_is_that_of_the_pairs() -> None:
    degree = torch.tensor([0, 1, 2, 3, 0])
    assert spo_degree_loss(torch.tensor(0.7), gaussian(N, K).float(), degree, weight=0.0) == torch.tensor(0.7)


def test_a_head_that_knows_nothing_costs_log_k() -> None:
    degree = torch.tensor([0, 1, 2, 3, 0])
    loss = spo_degree_loss(torch.tensor(0.7), torch.full((N, K), 2.5), degree, weight=0.5)
    assert_close(loss.item(), 0.7 + 0.5 * math.log(K))


def test_the_head_is_a_classifier_of_the_degree() -> None:
    logits, degree = gaussian(N, K), torch.tensor([0, 1, 2, 3, 0])
    expected = -torch.distributions.Categorical(logits=logits).log_prob(degree).mean()
    assert_close(spo_degree_loss(gaussian(1).sum() * 0, logits, degree, weight=1.0), expected, **EXACT)


@pytest.mark.parametrize("wrong", [-1, -100, K])
def test_a_degree_that_is_none_is_refused(wrong: int) -> None:
    with pytest.raises(ConfigError, match="degree: expected 0 to 3, got"):
        spo_degree_loss(torch.tensor(0.0), gaussian(N, K), torch.tensor([0, 1, wrong, 3, 0]), weight=1.0)


def test_shapes_that_would_broadcast_are_refused() -> None:
    degree = torch.zeros(N, dtype=torch.long)
    with pytest.raises(ShapeError, match=r"alignment_loss: expected a scalar = \[\], got \[5\]"):
        spo_degree_loss(torch.zeros(N), gaussian(N, K), degree, weight=1.0)
    with pytest.raises(ShapeError, match=r"degree_logits: expected \[N, K\], got \[5\]"):
        spo_degree_loss(torch.tensor(0.0), gaussian(N), degree, weight=1.0)
    with pytest.raises(ShapeError, match=r"degree: expected \[N\] = \[5\], got \[5, 1\]"):
        spo_degree_loss(torch.tensor(0.0), gaussian(N, K), degree[:, None], weight=1.0)


def test_removing_nothing_and_everything() -> None:
    importance = gaussian(B, L)
    assert torch.equal(spo_removal(importance, MASK, share=0.0), MASK)
    assert not spo_removal(importance, MASK, share=1.0).any()


def test_the_most_important_tokens_of_the_response_go_first() -> None:
    importance = torch.tensor([[9.0, 3.0, 5.0, 4.0, 1.0]])
    mask = torch.tensor([[False, True, True, True, True]])  # the most important token of all is the prompt's
    for share, left in (
        (0.0, [1, 2, 3, 4]),
        (0.25, [1, 3, 4]),
        (0.5, [1, 4]),
        (0.6, [1, 4]),
        (0.7, [4]),
        (1.0, []),
    ):
        assert spo_removal(importance, mask, share=share)[0].nonzero()[:, 0].tolist() == left


def test_the_share_is_of_each_response_alone() -> None:
    # 8, 5 and 6 tokens, of which half are 4, 2 (2.5 to the even number) and 3.
    left = spo_removal(gaussian(B, L), MASK, share=0.5)
    assert left.sum(1).tolist() == [4, 3, 3]


@given(smaller=st.floats(0, 1), larger=st.floats(0, 1), seed=st.integers(0, 20))
def test_a_larger_share_removes_more_of_the_same(smaller: float, larger: float, seed: int) -> None:
    smaller, larger = sorted((smaller, larger))
    importance = gaussian(B, L, seed=seed)
    most, fewest = (spo_removal(importance, MASK, share=share) for share in (smaller, larger))
    assert (most | ~fewest).all()  # what the larger share leaves, the smaller leaves too
    assert (MASK | ~most).all()


def test_equally_important_tokens_go_from_the_left() -> None:
    kept = spo_removal(torch.ones(1, 4), torch.ones(1, 4, dtype=torch.bool), share=0.5)
    assert kept.tolist() == [[False, False, True, True]]


def test_ties_go_from_the_left_in_long_rows_too() -> None:
    # A sort that is not asked to be stable keeps up to 16 equal entries in order, and no more.
    kept = spo_removal(torch.ones(1, 64), torch.ones(1, 64, dtype=torch.bool), share=0.5)
    assert kept[0].nonzero()[:, 0].tolist() == list(range(32, 64))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"share = .*, but it is of each response's tokens, from 0 to 1"):
        spo_removal(gaussian(B, L), MASK, share=share)


def test_removal_needs_a_mask_of_booleans() -> None:
    with pytest.raises(ConfigError, match="mask: expected booleans"):
        spo_removal(gaussian(B, L), MASK.long(), share=0.5)
