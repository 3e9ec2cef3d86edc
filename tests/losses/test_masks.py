import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses.masks import check_mask, lengths, masked_mean, masked_sum

MASK = torch.tensor([[True, True, True], [False, True, False]])


def values() -> Tensor:
    return torch.tensor([[1.0, 2.0, 6.0], [float("nan"), 4.0, float("inf")]])


def test_sums_means_and_lengths_worked_by_hand() -> None:
    assert_close(masked_sum(values(), MASK), torch.tensor([9.0, 4.0]))
    assert_close(masked_mean(values(), MASK), torch.tensor([3.0, 4.0]))
    assert lengths(MASK).tolist() == [3, 1]


def test_an_empty_row_has_a_sum_of_zero_and_no_mean() -> None:
    mask = MASK.clone()
    mask[1] = False
    assert masked_sum(values(), mask).tolist() == [9.0, 0.0]
    for function in (lambda: masked_mean(values(), mask), lambda: lengths(mask)):
        with pytest.raises(ConfigError, match=r"mask: row 1 is empty, .* leave that sample out"):
            function()


def test_what_is_left_out_receives_no_gradient() -> None:
    rows = values().requires_grad_()
    masked_mean(rows, MASK).sum().backward()
    assert_close(rows.grad, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.0, 1.0, 0.0]]))


def test_a_mask_has_the_shape_of_what_it_is_for_and_is_of_booleans() -> None:
    with pytest.raises(ShapeError, match=r"kept: expected \[B, L\] = \[2, 3\], got \[2, 1\]"):
        check_mask(MASK[:, :1], values(), name="kept")
    with pytest.raises(ShapeError, match=r"what mask is for: expected \[B, L\], got \[2\]"):
        check_mask(MASK[:, 0], values()[:, 0])
    with pytest.raises(ConfigError, match=r"kept: expected booleans, .*got torch.uint8; give kept.bool\(\)"):
        check_mask(MASK.to(torch.uint8), values(), name="kept")
