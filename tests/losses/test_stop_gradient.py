"""One audit over all losses: what is trained receives gradient, what is constant receives none."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from mmalign import losses

B, T = 3, 5
Shapes = list[tuple[int, ...]]

# A loss, the shapes of its arguments, and which of them are trained. The others are constants.
LOSSES: dict[str, tuple[Callable[..., Tensor], Shapes, set[int]]] = {
    "clipped_ratio_loss": (partial(losses.clipped_ratio_loss, clip=1e3), [(B, T), (B, T), (B,)], {0}),
    "denoising_log_prob": (losses.denoising_log_prob, [(B, T), (B, T)], {0}),
    "dpo_logits": (losses.dpo_logits, [(B,), (B,), (B,), (B,)], {0, 1}),
    "dpo_loss": (
        lambda *log_probs_and_beta: losses.dpo_loss(*log_probs_and_beta[:4], beta=log_probs_and_beta[4]),
        [(B,), (B,), (B,), (B,), (B,)],
        {0, 1},
    ),
    "gaussian_kl": (losses.gaussian_kl, [(B, T), (B, T), (B,)], {0}),
    "kl_k1": (losses.kl_k1, [(B, T), (B, T)], {0}),
    "kl_k3": (losses.kl_k3, [(B, T), (B, T)], {0}),
}
# Detached altogether: numbers to look at, and weights that a loss multiplies with.
CONSTANT: dict[str, tuple[Callable[..., Tensor], Shapes]] = {
    "clip_fraction": (partial(losses.clip_fraction, clip=0.2), [(B, T), (B, T), (B,)]),
    "flow_grpo_advantages": (losses.flow_grpo_advantages, [(B, T)]),
    "group_advantages": (losses.group_advantages, [(B, T)]),
    "implicit_accuracy": (losses.implicit_accuracy, [(B,), (B,), (B,), (B,)]),
}


def draw(shapes: Shapes) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes]


def test_the_audit_is_complete() -> None:
    assert sorted([*LOSSES, *CONSTANT]) == sorted(losses.__all__)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_reaches_what_is_trained_and_nothing_else(name: str) -> None:
    function, argument_shapes, trained = LOSSES[name]
    arguments = draw(argument_shapes)
    function(*arguments).sum().backward()
    for place, argument in enumerate(arguments):
        if place in trained:
            assert argument.grad is not None
            assert (argument.grad != 0).all()
        else:
            assert argument.grad is None


@pytest.mark.parametrize("name", CONSTANT)
def test_what_is_only_looked_at_has_no_gradient(name: str) -> None:
    function, argument_shapes = CONSTANT[name]
    assert not function(*draw(argument_shapes)).requires_grad
