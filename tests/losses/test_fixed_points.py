"""What every loss is before the first step, when policy, reference and sampling policy are one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign import losses
from tests.losses.drawing import EXACT, gaussian

B, T, V = 3, 5, 4
BETA = 0.5
MASK = torch.ones(B, T, dtype=torch.bool)
ADVANTAGE = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
SCORES = torch.tensor([[90.0, 80.0, 70.0], [60.0, 80.0, 10.0]], dtype=torch.float64)
WIN = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)
X, Y = gaussian(B, T), gaussian(B, T, seed=1)
TOKENS = torch.arange(B * T).reshape(B, T) % V

Function = Callable[[Tensor, Tensor], Tensor]
# The loss of what the policy says of one side and of the other, with their detached copies for all other policies;
# its value; and its gradient on both, None for zero.
Row = tuple[
    Function, Callable[[Tensor, Tensor], Tensor | float], tuple[Tensor | float | None, Tensor | float | None]
]


def pairs(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return chosen, rejected, chosen.detach(), rejected.detach()


def gap() -> Tensor:
    return losses.gapo_weights(*SCORES)


LOG2 = math.log(2)
OF_A_PAIR: dict[str, Row] = {
    "dpo_loss": (
        lambda c, r: losses.dpo_loss(*pairs(c, r), beta=BETA),
        lambda c, r: LOG2,
        (-BETA / 2 / B, BETA / 2 / B),
    ),
    "ipo_loss": (
        lambda c, r: losses.ipo_loss(*pairs(c, r), beta=BETA),
        lambda c, r: 1 / (4 * BETA**2),
        (-1 / BETA / B, 1 / BETA / B),
    ),
    "hinge_dpo_loss": (
        lambda c, r: losses.hinge_dpo_loss(*pairs(c, r), beta=BETA),
        lambda c, r: 1.0,
        (-BETA / B, BETA / B),
    ),
    "sppo_loss": (
        lambda c, r: losses.sppo_loss(*pairs(c, r), beta=BETA),
        lambda c, r: 1 / (2 * BETA**2),
        (-1 / BETA / B, 1 / BETA / B),
    ),
    "robust_dpo_loss": (
        lambda c, r: losses.robust_dpo_loss(*pairs(c, r), beta=BETA, flip_rate=0.1),
        lambda c, r: LOG2,
        (-BETA / 2 / 0.8 / B, BETA / 2 / 0.8 / B),
    ),
    "gapo_loss": (
        lambda c, r: losses.gapo_loss(*pairs(c, r), weight=gap(), beta=BETA),
        lambda c, r: (2 ** (SCORES[0] / 100) - 2 ** (SCORES[1] / 100)).mean() * LOG2,
        (-gap() * BETA / 2 / B, gap() * BETA / 2 / B),
    ),
    "osp_loss": (
        lambda c, r: losses.osp_loss(*pairs(c, r), probability=WIN, beta=BETA),
        lambda c, r: LOG2,
        ((0.5 - WIN) * BETA / B, (WIN - 0.5) * BETA / B),
    ),
    "crpo_loss": (
        lambda c, r: losses.crpo_loss(*pairs(c, r), beta=BETA),
        lambda c, r: LOG2 - 2 * c.mean(),
        ((-BETA / 2 - 2) / B, BETA / 2 / B),
    ),
    "d3po_loss": (
        lambda c, r: losses.d3po_loss(*pairs(c, r), beta=BETA),
        lambda c, r: LOG2,
        (-BETA / 2 / B, BETA / 2 / B),
    ),
    "clipped_ratio_loss": (
        lambda c, r: losses.clipped_ratio_loss(c, c.detach(), ADVANTAGE, clip=0.2),
        lambda c, r: -ADVANTAGE.mean(),
        (-ADVANTAGE / B, None),
    ),
    "brain_loss": (
        lambda c, r: losses.brain_loss(
            torch.stack([c, r], 1), torch.stack([c, r], 1).detach(), torch.full((B, 2), 0.5)
        ),
        lambda c, r: LOG2,
        (None, None),
    ),
    "kl_k3": (lambda c, r: losses.kl_k3(c, c.detach()).mean(), lambda c, r: 0.0, (None, None)),
}

OF_PREDICTIONS: dict[str, Row] = {
    "diffusion_dro_loss": (
        # The first is a demonstration, the second what policy, snapshot and reference say of a negative.
        lambda e, n: losses.diffusion_dro_loss(e, e.detach(), 0 * e, n, n.detach(), n.detach(), margin=0.001),
        lambda e, n: 0.001,
        (2 * X / T / B, None),
    ),
    "nft_loss": (
        lambda x, clean: losses.nft_loss(x, x.detach(), clean, losses.optimality_probability(ADVANTAGE)),
        lambda x, clean: 5 * (losses.denoising_error(x, clean) / (x - clean).abs().mean(1)).mean(),
        (2 * ADVANTAGE[:, None] * (X - Y) / (X - Y).abs().mean(1, keepdim=True) / T / B, None),
    ),
    "gaussian_kl": (
        lambda x, y: losses.gaussian_kl(x, x.detach(), torch.ones(B)).mean(),
        lambda x, y: 0.0,
        (None, None),
    ),
    "velocity_drift": (
        lambda x, y: losses.velocity_drift(x, x.detach()).mean(),
        lambda x, y: 0.0,
        (None, None),
    ),
    "reward_distillation_loss": (
        # The first is the student's output, which is the target; its reward pulls alone.
        lambda x, y: losses.reward_distillation_loss(x, x.detach(), x.sum(1), reward_weight=0.3),
        lambda x, y: -0.3 * x.sum(1).mean(),
        (-0.3 / B, None),
    ),
    "nash_md_loss": (
        lambda x, y: losses.nash_md_loss(x, x.detach(), torch.full((B,), 0.5), MASK),
        lambda x, y: 0.0,
        (None, None),
    ),
    "gdpo_loss": (
        # The first are tokens, the second ends after 1 to T of them; the empty response's end is constant.
        lambda x, y: losses.gdpo_loss(
            x,
            torch.cat([x.detach()[:, :1], y], 1),
            x.detach(),
            torch.cat([x[:, :1], y], 1).detach(),
            chosen=torch.ones(B, dtype=torch.bool),
            mask=MASK,
        ),
        lambda x, y: 0.0,
        (None, None),
    ),
}


@pytest.mark.parametrize(
    ("rows", "name"), [(rows, name) for rows in (OF_A_PAIR, OF_PREDICTIONS) for name in rows]
)
def test_before_the_first_step(rows: dict[str, Row], name: str) -> None:
    shape = (B,) if rows is OF_A_PAIR else (B, T)
    function, value, gradients = rows[name]
    first, second = (gaussian(*shape, seed=seed).requires_grad_() for seed in (0, 1))
    loss = function(first, second)
    loss.backward()
    assert_close(loss, torch.as_tensor(value(first, second), dtype=torch.float64), **EXACT)
    for tensor, expected in zip((first, second), gradients, strict=True):
        of = torch.zeros(shape, dtype=torch.float64) if tensor.grad is None else tensor.grad
        wanted = torch.as_tensor(0.0 if expected is None else expected, dtype=torch.float64)
        assert_close(of, wanted.expand(shape), **EXACT)


def test_tokens_of_one_model_have_no_divergence() -> None:
    logits = gaussian(B, T, V).requires_grad_()
    kl = losses.token_kl(logits, logits.detach(), mask=MASK).sum()
    loss = losses.token_reward_distillation_loss(logits, logits.detach(), TOKENS, 0 * ADVANTAGE, MASK)
    (kl + loss).backward()
    assert kl == 0
    assert loss == 0
    assert_close(logits.grad, torch.zeros(B, T, V, dtype=torch.float64), **EXACT)


def test_after_a_round_the_new_reference_is_the_new_start() -> None:
    # CRPO's next iteration: whatever was learned, the DPO part is log 2 again.
    learned, rejected = gaussian(B) + 3, gaussian(B, seed=1) - 3
    before = losses.crpo_loss(
        learned, rejected, gaussian(B), gaussian(B, seed=1), beta=BETA, chosen_weight=0.0
    )
    after = losses.crpo_loss(learned, rejected, learned, rejected, beta=BETA, chosen_weight=0.0)
    assert before < 0.1
    assert_close(after.item(), LOG2)
