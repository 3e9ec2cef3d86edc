import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    bradley_terry_loss,
    davidson_log_probs,
    rao_kupper_log_probs,
    squared_tie_loss,
    tied_preference_loss,
)
from tests.losses.drawing import EXACT, gaussian

B, D = 4, 3


@pytest.mark.parametrize(
    ("gap", "win", "tie"),
    [(0.0, 1 / 6, 2 / 3), (1.0, 0.352187, 0.579279), (math.log(5), 0.5, 0.461538)],
)
def test_rao_kupper_worked_by_hand(gap: float, win: float, tie: float) -> None:
    p = rao_kupper_log_probs(torch.tensor([gap], dtype=torch.float64)).exp()[0]
    assert p.tolist()[:2] == pytest.approx([win, tie], abs=1e-6)


def test_rao_kupper_is_the_odds_of_two_strengths() -> None:
    a, b, k = 3.0, 0.5, 2.5
    p = rao_kupper_log_probs(torch.tensor([math.log(a / b)], dtype=torch.float64), threshold=k).exp()[0]
    both = (a + k * b) * (k * a + b)
    assert p.tolist() == pytest.approx([a / (a + k * b), (k * k - 1) * a * b / both, b / (k * a + b)])


@pytest.mark.parametrize("threshold", [1.01, 2.0, 50.0])
def test_probabilities_add_up_to_one_and_swap(threshold: float) -> None:
    gap = 5 * gaussian(B, D)
    p = rao_kupper_log_probs(gap, threshold=threshold).exp()
    assert_close(p.sum(-1), torch.ones(B, D, dtype=torch.float64), **EXACT)
    assert_close(rao_kupper_log_probs(-gap, threshold=threshold).exp(), p.flip(-1), **EXACT)


def test_without_ties_both_are_bradley_terry() -> None:
    gap = gaussian(B)
    win = torch.ones(B, dtype=torch.long)
    for log_probs in (
        rao_kupper_log_probs(gap, threshold=1 + 1e-12),
        davidson_log_probs(gap, tie=1e-12),
    ):
        assert_close(tied_preference_loss(log_probs, win), bradley_terry_loss(gap), rtol=0, atol=1e-9)


def test_davidsons_ties_leave_the_odds_of_winning_alone() -> None:
    gap = gaussian(B)
    win, tie, loss = davidson_log_probs(gap, tie=3.0).unbind(-1)
    assert_close(win - loss, gap, **EXACT)
    assert_close(tie, math.log(3) + (win + loss) / 2, **EXACT)


def test_a_tie_is_best_explained_by_equal_rewards() -> None:
    gap = torch.linspace(-3, 3, 61, dtype=torch.float64)
    tie = rao_kupper_log_probs(gap)[:, 1]
    assert tie.argmax() == 30
    assert_close(tie, tie.flip(0), **EXACT)


def test_the_loss_picks_each_label_and_divides_by_what_is_valid() -> None:
    gap = gaussian(B, D).requires_grad_()
    label = torch.tensor([[1, 0, -1], [0, 22, 1], [-1, -1, 22], [1, 1, 0]])
    valid = label != 22
    with torch.no_grad():
        gap[~valid] = float("nan")
    log_probs = rao_kupper_log_probs(gap)
    loss = tied_preference_loss(log_probs, label, valid=valid)
    loss.backward()
    by_hand = [
        -log_probs[b, d, {1: 0, 0: 1, -1: 2}[int(label[b, d])]].item()
        for b in range(B)
        for d in range(D)
        if valid[b, d]
    ]
    assert_close(loss.item(), sum(by_hand) / 10)
    assert gap.grad is not None
    assert gap.grad[valid].isfinite().all()


def test_gradients_agree_with_finite_differences() -> None:
    gap, label = gaussian(B).requires_grad_(), torch.tensor([1, 0, -1, 0])
    assert torch.autograd.gradcheck(lambda g: tied_preference_loss(rao_kupper_log_probs(g), label), [gap])
    assert torch.autograd.gradcheck(lambda g: tied_preference_loss(davidson_log_probs(g), label), [gap])
    assert torch.autograd.gradcheck(squared_tie_loss, [gap])


def test_what_cannot_be_meant_is_refused() -> None:
    gap = gaussian(B)
    with pytest.raises(ConfigError, match="above 1"):
        rao_kupper_log_probs(gap, threshold=1.0)
    with pytest.raises(ConfigError, match="above 0"):
        davidson_log_probs(gap, tie=0.0)
    with pytest.raises(ConfigError, match="mark others in valid"):
        tied_preference_loss(rao_kupper_log_probs(gap), torch.tensor([1, 0, 22, 1]))
    with pytest.raises(ShapeError, match="log_probs"):
        tied_preference_loss(gap, torch.tensor([1, 0, -1, 1]))
