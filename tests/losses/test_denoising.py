import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.losses import denoising_log_prob

B = 3


@pytest.mark.parametrize("shape", [(B, 4), (B, 4, 5), (B, 2, 4, 5), (B, 2, 6, 4, 5)])
def test_it_is_minus_half_the_mean_squared_error_of_each_sample(shape: tuple[int, ...]) -> None:
    # Sample b is off by b everywhere: -b^2 / 2, whatever the size.
    target = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    off = torch.arange(B, dtype=torch.float64).reshape(-1, *[1] * (len(shape) - 1))
    assert_close(
        denoising_log_prob(target + off, target), torch.tensor([0.0, -0.5, -2.0], dtype=torch.float64)
    )


def test_its_gradient_is_the_error_over_the_number_of_elements() -> None:
    prediction = torch.randn(
        B, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    target = torch.ones(B, 4, 5, dtype=torch.float64)
    denoising_log_prob(prediction, target).sum().backward()
    assert_close(prediction.grad, (target - prediction).detach() / 20)


def test_half_precision_is_computed_in_float32() -> None:
    # In bfloat16 the target would be 3.09375, and the answer -0.0044.
    prediction, target = torch.full((1, 5000), 3.0, dtype=torch.bfloat16), torch.full((1, 5000), 3.1)
    log_prob = denoising_log_prob(prediction, target)
    assert log_prob.dtype == torch.float32
    assert_close(log_prob, torch.tensor([-0.005]))
    assert denoising_log_prob(prediction, prediction).dtype == torch.float32


def test_a_target_in_double_precision_leaves_the_predictions_dtype() -> None:
    prediction, target = torch.ones(B, 4), torch.ones(B, 4, dtype=torch.float64)
    assert denoising_log_prob(prediction, target).dtype == torch.float32


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        ((B, 4), (B, 1), r"target: expected \[B, ...\] = \[3, 4\], got \[3, 1\]"),
        ((B,), (B,), r"prediction: expected \[B, ...\], got \[3\]"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(
    prediction: tuple[int, ...], target: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        denoising_log_prob(torch.ones(prediction), torch.ones(target))
