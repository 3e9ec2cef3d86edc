"""Losses of heads that find wrong words and wrong regions."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.losses import region_detection_loss, word_detection_loss

B, W, P = 2, 3, 4
LOGITS = torch.tensor([[2.0, -1.0, 9.0], [0.5, 9.0, 9.0]], dtype=torch.float64)
RIGHT = torch.tensor([[True, False, False], [False, True, True]])
MASK = torch.tensor([[True, True, False], [True, False, False]])


def test_words_worked_by_hand() -> None:
    def cost(margin: float) -> float:
        return math.log1p(math.exp(-margin))

    expected = (cost(2.0) + cost(1.0) + cost(-0.5)) / 3
    assert_close(word_detection_loss(LOGITS, RIGHT, MASK).item(), expected)


def test_what_the_mask_leaves_out_changes_nothing_and_gets_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(word_detection_loss(logits, RIGHT, MASK), logits)
    assert (gradient[~MASK] == 0).all()
    assert_close(gradient[MASK], (LOGITS.sigmoid() - RIGHT.double())[MASK] / 3)
    padded = LOGITS.masked_fill(~MASK, -50.0)
    assert_close(
        word_detection_loss(padded, torch.where(MASK, RIGHT, ~RIGHT), MASK),
        word_detection_loss(LOGITS, RIGHT, MASK),
    )
    assert word_detection_loss(LOGITS, RIGHT, torch.zeros_like(MASK)).item() == 0


def test_regions_pull_to_their_share_where_known() -> None:
    logits = torch.zeros(B, P, dtype=torch.float64, requires_grad=True)
    region = torch.tensor([[0.0, 1.0, 0.25, 0.0], [math.nan] * 4], dtype=torch.float64)
    known = torch.tensor([True, False])
    loss = region_detection_loss(logits, region, known)
    assert_close(loss.item(), math.log(2))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert_close(gradient[0], (0.5 - region[0]) / P)
    assert (gradient[1] == 0).all()
    at_the_share = region[:1].clamp(1e-9, 1 - 1e-9).logit().requires_grad_()
    (flat,) = torch.autograd.grad(region_detection_loss(at_the_share, region[:1], known[:1]), at_the_share)
    assert flat.abs().max() < 1e-8


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapeError, match="known"):
        region_detection_loss(torch.zeros(B, P), torch.zeros(B, P), torch.ones(B, P, dtype=torch.bool))
    with pytest.raises(ShapeError, match="mask"):
        word_detection_loss(LOGITS, RIGHT, MASK[:, :2])
