import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.losses import balance_weights, binary_feedback_loss, true_rate_logit
from tests.losses.drawing import EXACT, gaussian

B = 5


def test_against_torchs_own_cross_entropy_and_by_hand() -> None:
    logit, label = gaussian(B), (gaussian(B, seed=1) > 0).double()
    own = torch.nn.functional.binary_cross_entropy_with_logits(logit, label)
    assert_close(binary_feedback_loss(logit, label), own, **EXACT)
    one = torch.tensor([2.0, 0.0], dtype=torch.float64)
    found = binary_feedback_loss(one, torch.tensor([1.0, 0.0]), weight=torch.tensor([3.0, 1.0]))
    assert_close(found.item(), (3 * math.log1p(math.exp(-2)) + math.log(2)) / 4)


def test_the_scale_of_weights_does_not_matter() -> None:
    logit, label, w = gaussian(B), (gaussian(B, seed=1) > 0).double(), gaussian(B, seed=2).exp()
    assert_close(
        binary_feedback_loss(logit, label, weight=w),
        binary_feedback_loss(logit, label, weight=9 * w),
        **EXACT,
    )
    x = logit.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: binary_feedback_loss(z, label, weight=w), [x])


def test_balanced_fit_of_a_rare_reaction_has_the_datas_rate_again() -> None:
    label = torch.zeros(200, dtype=torch.float64)
    label[:6] = 1
    weight = balance_weights(label, base_rate=0.03)
    assert_close(weight.mean().item(), 1.0)
    # The weighted share of reactions is 1/2, so the best constant has log odds of 0.
    z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(binary_feedback_loss(z.expand(200), label, weight=weight), z)
    assert abs(gradient.item()) < 1e-12
    assert_close(true_rate_logit(z.detach(), base_rate=0.03).sigmoid().item(), 0.03)


def test_what_cannot_be_meant_is_refused() -> None:
    x = gaussian(B)
    with pytest.raises(ConfigError, match="label"):
        binary_feedback_loss(x, x * 9)
    with pytest.raises(ConfigError, match="weight"):
        binary_feedback_loss(x, x.sigmoid(), weight=torch.zeros(B))
    with pytest.raises(ConfigError, match="base_rate"):
        balance_weights(x.sigmoid(), base_rate=0.0)
