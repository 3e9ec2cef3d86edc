import itertools
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.losses import nash_md_loss, nash_md_mixture
from mmalign.losses.preference_game import Credit
from tests.losses.drawing import EXACT, gaussian

B, L, V = 3, 5, 4
MASK = torch.tensor([[True] * 5, [True, True, False, False, False], [False, True, True, True, False]])
WIN = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64)


# The opponent


def test_the_mixture_has_the_policy_and_the_reference_at_its_ends() -> None:
    logits, ref = gaussian(B, V), gaussian(B, V, seed=1)
    assert_close(nash_md_mixture(logits, ref, share=0.0), logits.log_softmax(1), **EXACT)
    assert_close(nash_md_mixture(logits, ref, share=1.0), ref.log_softmax(1), **EXACT)


def test_the_mixture_is_geometric() -> None:
    logits, ref = gaussian(B, L, V), gaussian(B, L, V, seed=1)
    for share in (0.25, 0.5):
        product = logits.softmax(2) ** (1 - share) * ref.softmax(2) ** share
        mixture = nash_md_mixture(logits, ref, share=share).exp()
        assert_close(mixture, product / product.sum(2, keepdim=True), **EXACT)
    assert torch.equal(nash_md_mixture(logits, ref), nash_md_mixture(logits, ref, share=0.5))


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=r"share = .*, but it is the reference's, from 0 to 1"):
        nash_md_mixture(gaussian(V), gaussian(V), share=share)
    with pytest.raises(ShapeError, match=r"ref_logits: expected \[..., V\] = \[4\], got \[1, 4\]"):
        nash_md_mixture(gaussian(V), gaussian(1, V))


# The loss


def test_a_loss_worked_by_hand() -> None:
    # d = 0.5, 1; to go 1.5, 1. Preference 0.9 - 0.5.
    log_prob = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
    ref, mask = torch.tensor([[-1.5, -3.0]], dtype=torch.float64), torch.tensor([[True, True]])
    win = torch.tensor([0.9], dtype=torch.float64)
    to_go = (0.2 * 1.5 - 0.4) * -1 + (0.2 * 1.0 - 0.4) * -2
    local = (0.2 * 0.5 - 0.4) * -1 + (0.2 * 1.0 - 0.4) * -2
    assert_close(nash_md_loss(log_prob, ref, win, mask, beta=0.2).item(), to_go)
    assert_close(nash_md_loss(log_prob, ref, win, mask, beta=0.2, credit="local").item(), local)


@pytest.mark.parametrize("credit", ["to_go", "local"])
def test_an_even_game_at_the_reference_has_no_gradient(credit: Credit) -> None:
    log_prob = gaussian(B, L).requires_grad_()
    half = torch.full((B,), 0.5)
    nash_md_loss(log_prob, log_prob.detach(), half, MASK, credit=credit).backward()
    assert_close(log_prob.grad, torch.zeros(B, L, dtype=torch.float64), rtol=0, atol=0)


def test_winning_raises_the_response_and_losing_as_often_lowers_it_as_much() -> None:
    gradients = []
    for win in (WIN, 1 - WIN):
        log_prob = gaussian(B, L).requires_grad_()
        nash_md_loss(log_prob, log_prob.detach(), win, MASK).backward()
        assert_close(log_prob.grad, -(win - 0.5)[:, None] * MASK / B, **EXACT)
        assert log_prob.grad is not None
        gradients.append(log_prob.grad)
    assert_close(gradients[0], -gradients[1], **EXACT)


def test_the_default_pull_is_a_tenth_per_nat() -> None:
    log_prob, ref = gaussian(B, L), gaussian(B, L, seed=1)
    assert torch.equal(
        nash_md_loss(log_prob, ref, WIN, MASK), nash_md_loss(log_prob, ref, WIN, MASK, beta=0.1)
    )


def expected_gradient(length: int, credit: Credit) -> tuple[Tensor, Tensor]:
    """That of the loss at even odds over all sequences, and that of the KL of whole sequences, exactly."""
    first, later = gaussian(V).requires_grad_(), gaussian(V, V, seed=1).requires_grad_()
    ref_first, ref_later = gaussian(V, seed=2), gaussian(V, V, seed=3)

    def tokens(start: Tensor, follow: Tensor) -> Tensor:
        start, follow = start.log_softmax(0), follow.log_softmax(1)
        rows = []
        for words in itertools.product(range(V), repeat=length):
            steps = itertools.pairwise(words)
            rows.append(torch.stack([start[words[0]], *(follow[a, b] for a, b in steps)]))
        return torch.stack(rows)

    log_prob, ref = tokens(first, later), tokens(ref_first, ref_later).detach()
    probability, count = log_prob.sum(1).exp(), len(log_prob)
    kl = (probability * (log_prob - ref).sum(1)).sum()
    mask = torch.ones_like(log_prob, dtype=torch.bool)
    half = torch.full((1,), 0.5)
    loss = torch.stack(
        [
            nash_md_loss(log_prob[[i]], ref[[i]], half, mask[[i]], beta=0.3, credit=credit)
            for i in range(count)
        ]
    )
    of_loss = torch.autograd.grad((probability.detach() * loss).sum(), first, retain_graph=True)[0]
    of_kl = torch.autograd.grad(0.3 * kl, first)[0]
    return of_loss, of_kl


@pytest.mark.parametrize(("length", "credit"), [(1, "to_go"), (1, "local"), (3, "to_go")])
def test_on_average_the_pull_is_the_gradient_of_the_kl(length: int, credit: Credit) -> None:
    of_loss, of_kl = expected_gradient(length, credit)
    assert_close(of_loss, of_kl, **EXACT)
    assert of_kl.abs().max() > 0.01


def test_local_credit_forgets_what_a_token_leads_to() -> None:
    of_loss, of_kl = expected_gradient(3, "local")
    assert (of_loss - of_kl).abs().max() > 0.01


@pytest.mark.parametrize("credit", ["to_go", "local"])
def test_masked_tokens_are_inert(credit: Credit) -> None:
    log_prob, ref = gaussian(B, L), gaussian(B, L, seed=1)
    loss = nash_md_loss(log_prob, ref, WIN, MASK, credit=credit)
    other = nash_md_loss(
        log_prob.masked_fill(~MASK, float("nan")), ref.masked_fill(~MASK, 9.0), WIN, MASK, credit=credit
    )
    assert torch.equal(other, loss)
    order = torch.tensor([2, 0, 1])
    shuffled = nash_md_loss(log_prob[order], ref[order], WIN[order], MASK[order], credit=credit)
    assert_close(shuffled, loss, **EXACT)


def test_mistakes_are_refused() -> None:
    log_prob = gaussian(B, L)
    with pytest.raises(ShapeError, match=r"ref_log_prob: expected \[B, L\] = \[3, 5\], got \[3, 1\]"):
        nash_md_loss(log_prob, gaussian(B, 1), WIN, MASK)
    with pytest.raises(ShapeError, match=r"win_probability: expected \[B\] = \[3\], got \[3, 1\]"):
        nash_md_loss(log_prob, log_prob, WIN[:, None], MASK)
    for wrong in (-0.1, 1.1):
        with pytest.raises(ConfigError, match="win_probability: expected 0 to 1, got"):
            nash_md_loss(log_prob, log_prob, torch.tensor([0.5, wrong, 0.5]), MASK)
    nash_md_loss(log_prob, log_prob, torch.tensor([0.0, 1.0, 0.5]), MASK)
    with pytest.raises(ConfigError, match="mask: expected booleans"):
        nash_md_loss(log_prob, log_prob, WIN, MASK.long())
    unknown: Any = "togo"
    with pytest.raises(UnknownNameError, match="Did you mean 'to_go'"):
        nash_md_loss(log_prob, log_prob, WIN, MASK, credit=unknown)
