import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import d3po_loss, dpo_loss
from tests.losses.drawing import EXACT, gaussian

B, T = 3, 5
MASK = torch.tensor([[True, True, True, True, False], [True, True, False, False, False], [True] * 5])


def near_the_reference(*shape: int) -> list[Tensor]:
    """Four log-probabilities whose ratios to the reference all lie inside the clamp of 0.1."""
    chosen, rejected = gaussian(*shape), gaussian(*shape, seed=1)
    off = [0.04 * torch.tanh(gaussian(*shape, seed=seed)) for seed in (2, 3)]
    return [chosen + off[0], rejected + off[1], chosen, rejected]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("shape", [(B,), (B, T)])
def test_at_the_reference_every_step_has_log_two_and_half_of_beta(shape: tuple[int, ...]) -> None:
    chosen, rejected = gaussian(*shape).requires_grad_(), gaussian(*shape, seed=1).requires_grad_()
    loss = d3po_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.3)
    loss.backward()
    assert_close(loss.item(), math.log(2))
    expected = torch.full(shape, 0.3 / 2 / chosen.numel(), dtype=torch.float64)
    assert_close(chosen.grad, -expected)
    assert_close(rejected.grad, expected)


def test_the_published_settings_are_the_defaults() -> None:
    # Ratios 1.05 and 0.5, of which the second is clamped to 0.9.
    pair = list(torch.tensor([[1.05], [0.5], [1.0], [1.0]], dtype=torch.float64).log())
    assert_close(d3po_loss(*pair).item(), math.log(1 + (1.05 / 0.9) ** -0.1))


@pytest.mark.parametrize(
    "log_ratio", [math.log(2), -math.log(2), math.log(1.11), math.log(0.89), 800.0, -800.0]
)
@pytest.mark.parametrize("side", [0, 1])
def test_a_ratio_outside_the_clamp_gets_no_gradient_whichever_way_it_went(
    log_ratio: float, side: int
) -> None:
    chosen, rejected = double(0.0).requires_grad_(), double(0.0).requires_grad_()
    moved = log_ratio * torch.eye(2, dtype=torch.float64)[side]
    d3po_loss(chosen + moved[0], rejected + moved[1], double(0.0), double(0.0), beta=5.0).backward()
    assert chosen.grad is not None
    assert rejected.grad is not None
    assert (chosen.grad.item() < 0, rejected.grad.item() > 0) == (side == 1, side == 0)
    assert 0 in (chosen.grad.item(), rejected.grad.item())


@pytest.mark.parametrize("ratio", [1.0999, 0.9001])
def test_a_ratio_inside_the_clamp_keeps_its_gradient(ratio: float) -> None:
    chosen = double(math.log(ratio)).requires_grad_()
    d3po_loss(chosen, double(0.0), double(0.0), double(0.0), beta=5.0).backward()
    assert chosen.grad is not None
    assert_close(chosen.grad.item(), -5.0 / (1 + ratio**5))


def test_a_clamp_beyond_one_bounds_only_what_rises() -> None:
    fallen, risen = double(-30.0).requires_grad_(), double(30.0).requires_grad_()
    zero = double(0.0)
    d3po_loss(fallen, zero, zero, zero, beta=0.1, clamp=1.0).backward()
    d3po_loss(risen, zero, zero, zero, beta=0.1, clamp=1.0).backward()
    assert fallen.grad is not None
    assert risen.grad is not None
    assert fallen.grad.item() < 0
    assert risen.grad.item() == 0
    bound = d3po_loss(risen, zero, zero, zero, beta=0.1, clamp=1.5).item()
    assert_close(bound, math.log(1 + 2.5**-0.1))


def test_without_a_clamp_one_step_is_dpo() -> None:
    pair = list(gaussian(4, B))
    assert_close(d3po_loss(*pair, beta=0.7, clamp=math.inf), dpo_loss(*pair, beta=0.7), **EXACT)
    tokens = [t[:, None] for t in pair]
    one = torch.ones(B, 1, dtype=torch.bool)
    assert_close(d3po_loss(*tokens, beta=0.7, clamp=math.inf, mask=one), dpo_loss(*pair, beta=0.7), **EXACT)


def test_it_is_the_mean_of_every_steps_softplus() -> None:
    chosen, rejected, ref_chosen, ref_rejected = (gaussian(B, T, seed=seed) for seed in range(4))
    low, high = math.log(0.8), math.log(1.2)
    q = (chosen - ref_chosen).clamp(low, high) - (rejected - ref_rejected).clamp(low, high)
    loss = d3po_loss(chosen, rejected, ref_chosen, ref_rejected, beta=2.0, clamp=0.2)
    assert_close(loss, F.softplus(-2 * q).mean(), **EXACT)


def test_swapping_the_pair_with_its_label_changes_nothing_and_the_label_alone_flips_the_gradient() -> None:
    chosen, rejected, ref_chosen, ref_rejected = near_the_reference(B, T)
    label = torch.tensor([1, -1, 1])
    loss = d3po_loss(chosen, rejected, ref_chosen, ref_rejected, beta=3.0, label=label)
    swapped = d3po_loss(rejected, chosen, ref_rejected, ref_chosen, beta=3.0, label=-label)
    assert_close(swapped, loss, **EXACT)

    gradients = []
    for sign in (1, -1):
        at_reference = gaussian(B, T).requires_grad_()
        d3po_loss(
            at_reference, rejected, at_reference.detach(), rejected, beta=3.0, label=sign * label
        ).backward()
        assert at_reference.grad is not None
        gradients.append(at_reference.grad)
    assert torch.equal(gradients[0], -gradients[1])
    assert (gradients[0].sign() == -label[:, None]).all()


def test_all_won_is_the_default_label() -> None:
    pairs = near_the_reference(B, T)
    assert torch.equal(d3po_loss(*pairs, beta=3.0, label=torch.ones(B)), d3po_loss(*pairs, beta=3.0))


def test_a_tie_has_log_two_and_no_gradient() -> None:
    chosen, rejected, ref_chosen, ref_rejected = near_the_reference(B, T)
    chosen.requires_grad_()
    loss = d3po_loss(chosen, rejected, ref_chosen, ref_rejected, beta=3.0, label=torch.zeros(B))
    loss.backward()
    assert_close(loss.item(), math.log(2))
    assert chosen.grad is not None
    assert (chosen.grad == 0).all()


# Tokens


def test_at_the_reference_a_token_has_half_of_beta_over_the_length_of_its_pair() -> None:
    chosen, rejected = gaussian(B, T).requires_grad_(), gaussian(B, T, seed=1).requires_grad_()
    loss = d3po_loss(chosen, rejected, chosen.detach(), rejected.detach(), beta=0.3, mask=MASK)
    loss.backward()
    assert_close(loss.item(), math.log(2))
    expected = 0.3 / 2 / MASK.sum(1, keepdim=True) / B * MASK
    assert_close(chosen.grad, -expected.double(), rtol=1e-6, atol=0)
    assert_close(rejected.grad, expected.double(), rtol=1e-6, atol=0)


def test_tails_and_padding_are_inert() -> None:
    pairs = near_the_reference(B, T)
    loss = d3po_loss(*pairs, beta=3.0, mask=MASK)
    for place in range(4):
        other = [t.clone() for t in pairs]
        other[place][~MASK] = 9.0
        assert torch.equal(d3po_loss(*other, beta=3.0, mask=MASK), loss)
    longer = [torch.cat([t, gaussian(B, 2)], 1) for t in pairs]
    mask = torch.cat([MASK, torch.zeros(B, 2, dtype=torch.bool)], 1)
    assert_close(d3po_loss(*longer, beta=3.0, mask=mask), loss, **EXACT)


def test_a_full_mask_is_none_and_the_order_of_pairs_does_not_count() -> None:
    pairs, order = near_the_reference(B, T), torch.tensor([2, 0, 1])
    full = torch.ones(B, T, dtype=torch.bool)
    assert_close(d3po_loss(*pairs, beta=3.0, mask=full), d3po_loss(*pairs, beta=3.0), **EXACT)
    shuffled = d3po_loss(*[t[order] for t in pairs], beta=3.0, mask=MASK[order])
    assert_close(shuffled, d3po_loss(*pairs, beta=3.0, mask=MASK), **EXACT)


# Refusals


@pytest.mark.parametrize("place", range(1, 4))
@pytest.mark.parametrize("shape", [(B,), (B, T)])
def test_shapes_that_would_broadcast_are_refused(place: int, shape: tuple[int, ...]) -> None:
    arguments = [torch.zeros(shape) for _ in range(4)]
    arguments[place] = torch.zeros(*shape[:-1], 1)
    letters = r"\[B\]" if len(shape) == 1 else r"\[B, T\]"
    with pytest.raises(ShapeError, match=f"_log_prob: expected {letters} = "):
        d3po_loss(*arguments)


def test_other_mistakes_are_refused() -> None:
    flat, steps = [torch.zeros(B)] * 4, [torch.zeros(B, T)] * 4
    with pytest.raises(
        ShapeError, match=r"chosen_log_prob: expected \[B\], \[B, T\] or \[B, L\], got \[3, 5, 1\]"
    ):
        d3po_loss(*[torch.zeros(B, T, 1)] * 4)
    with pytest.raises(ShapeError, match=r"label: expected \[B\] = \[3\], got \[3, 1\]"):
        d3po_loss(*steps, label=torch.ones(B, 1))
    for clamp in (0.0, -0.1):
        with pytest.raises(ConfigError, match=r"clamp = .* must be positive"):
            d3po_loss(*flat, clamp=clamp)
    with pytest.raises(ConfigError, match=r"label: expected 1, 0 for a tie or -1, got \[0.0, 0.5, 1.0\]"):
        d3po_loss(*flat, label=torch.tensor([1.0, 0.5, 0.0]))
    with pytest.raises(ConfigError, match="mask: a loss of one step each"):
        d3po_loss(*flat, mask=torch.ones(B, dtype=torch.bool))
    with pytest.raises(ConfigError, match="row 1 is empty"):
        d3po_loss(*steps, mask=MASK & torch.tensor([[True], [False], [True]]))
