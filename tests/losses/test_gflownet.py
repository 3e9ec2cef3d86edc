import itertools

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import gdpo_loss
from tests.losses.drawing import EXACT, gaussian

B, L = 3, 4
MASK = torch.tensor([[True] * 4, [True, True, False, False], [True, False, False, False]])
CHOSEN = torch.tensor([True, False, False])


def log_probs(*shape: int, seed: int) -> Tensor:
    return -gaussian(*shape, seed=seed).abs()


def four() -> list[Tensor]:
    """Tokens and ends under the policy, and under the reference."""
    return [log_probs(B, L + end, seed=seed) for seed, end in enumerate((0, 1, 0, 1))]


def test_policy_and_reference_agree_to_the_bit_of_a_zero() -> None:
    tokens, ends = log_probs(B, L, seed=0), log_probs(B, L + 1, seed=1)
    assert_close(
        gdpo_loss(tokens, ends, tokens, ends, chosen=CHOSEN, mask=MASK, alpha=0.0).item(),
        0.0,
        atol=1e-24,
        rtol=0,
    )


def test_there_the_preference_alone_is_left_at_the_end_of_the_rejected_ones() -> None:
    tokens, ends = log_probs(B, L, seed=0).requires_grad_(), log_probs(B, L + 1, seed=1)
    loss = gdpo_loss(tokens, ends, tokens.detach(), ends, chosen=CHOSEN, mask=MASK)
    loss.backward()
    assert_close(loss.item(), 2 * 0.8**2 / B)
    # The residual +8 alpha stands on the last token, whose likelihood is to fall.
    expected = torch.zeros(B, L, dtype=torch.float64)
    expected[1, 1] = expected[2, 0] = 2 * 0.8 / B
    assert_close(tokens.grad, expected, **EXACT)


def test_weight_and_log_reward_of_the_rejected_multiply() -> None:
    tokens, ends = log_probs(B, L, seed=0), log_probs(B, L + 1, seed=1)
    loss = gdpo_loss(
        tokens, ends, tokens, ends, chosen=CHOSEN, mask=MASK, alpha=0.5, rejected_log_reward=-3.0
    )
    assert_close(loss.item(), 2 * 1.5**2 / B)


def test_it_is_the_plain_loop_over_prefixes() -> None:
    policy, policy_end, ref, ref_end = (t.tolist() for t in four())
    rows = []
    for b, n in enumerate(MASK.sum(1).tolist()):
        f = [
            sum(ref[b][:t]) + ref_end[b][t] + (0.1 * -8 if t == n and not CHOSEN[b] else 0) - policy_end[b][t]
            for t in range(n + 1)
        ]
        rows.append(sum((f[t] - f[t + 1] + policy[b][t]) ** 2 for t in range(n)))
    assert_close(gdpo_loss(*four(), chosen=CHOSEN, mask=MASK).item(), sum(rows) / B)


def test_no_loss_means_sampling_in_proportion_to_the_reward() -> None:
    """All sequences of up to three words of three; the policy that samples them as often as R has no loss."""
    V, N = 3, 3
    words = [s for n in range(N + 1) for s in itertools.product(range(V), repeat=n)]
    # R of a sequence by the reference: tokens from a table by place, ends by length at a temperature of their own.
    token = gaussian(N, V).log_softmax(1)
    end = -gaussian(N + 1, seed=1).abs()
    log_R = {s: sum(token[i, w].item() for i, w in enumerate(s)) + end[len(s)].item() for s in words}

    def log_flow(s: tuple[int, ...]) -> Tensor:
        below = [log_flow((*s, w)) for w in range(V)] if len(s) < N else []
        return torch.stack([torch.tensor(log_R[s], dtype=torch.float64), *below]).logsumexp(0)

    longest = [s for s in words if len(s) == N]
    rows = []
    for s in longest:
        prefixes = [s[:t] for t in range(N + 1)]
        flow = torch.stack([log_flow(p) for p in prefixes])
        ends = torch.tensor([log_R[p] for p in prefixes], dtype=torch.float64) - flow
        rows.append((flow.diff(), ends, torch.stack([token[i, w] for i, w in enumerate(s)])))
    tokens, ends, ref = (torch.stack(t) for t in zip(*rows, strict=True))
    count = len(longest)
    everything, all_chosen = torch.ones(count, N, dtype=torch.bool), torch.ones(count, dtype=torch.bool)
    ref_ends = end.expand(count, N + 1)
    assert_close(
        gdpo_loss(tokens, ends, ref, ref_ends, chosen=all_chosen, mask=everything).item(),
        0.0,
        rtol=0,
        atol=1e-20,
    )
    worse = ends + 0.1 * gaussian(count, N + 1, seed=2)
    assert gdpo_loss(tokens, worse, ref, ref_ends, chosen=all_chosen, mask=everything) > 1e-3


def test_padding_is_inert() -> None:
    policy, policy_end, ref, ref_end = four()
    reached = torch.arange(L + 1) <= MASK.sum(1, keepdim=True)
    loss = gdpo_loss(policy, policy_end, ref, ref_end, chosen=CHOSEN, mask=MASK)
    for fill in (float("nan"), -float("inf"), 7.0):
        padded = [
            t.masked_fill(~m, fill)
            for t, m in ((policy, MASK), (policy_end, reached), (ref, MASK), (ref_end, reached))
        ]
        padded[0].requires_grad_()
        padded[1].requires_grad_()
        other = gdpo_loss(*padded, chosen=CHOSEN, mask=MASK)
        assert torch.equal(other.detach(), loss)
        other.backward()
        for tensor, mask in ((padded[0], MASK), (padded[1], reached)):
            assert tensor.grad is not None
            assert (tensor.grad[~mask] == 0).all()
            assert (tensor.grad[mask] != 0).all()


def test_the_order_of_responses_does_not_count() -> None:
    order = torch.tensor([2, 0, 1])
    shuffled = gdpo_loss(*[t[order] for t in four()], chosen=CHOSEN[order], mask=MASK[order])
    assert_close(shuffled, gdpo_loss(*four(), chosen=CHOSEN, mask=MASK), **EXACT)


def test_a_response_has_to_begin_its_row() -> None:
    mask = MASK.clone()
    mask[1, 0] = False
    with pytest.raises(ConfigError, match="mask: a response has to begin its row"):
        gdpo_loss(*four(), chosen=CHOSEN, mask=mask)


def test_a_response_has_no_gap() -> None:
    mask = MASK.clone()
    mask[0, 2] = False
    with pytest.raises(ConfigError, match="mask: a response has to begin its row"):
        gdpo_loss(*four(), chosen=CHOSEN, mask=mask)


def test_a_batch_padded_beyond_its_longest_response_has_the_same_loss() -> None:
    policy, policy_end, ref, ref_end = four()
    longer = [torch.cat([t, torch.ones(B, 2, dtype=t.dtype)], 1) for t in (policy, policy_end, ref, ref_end)]
    mask = torch.cat([MASK, torch.zeros(B, 2, dtype=torch.bool)], 1)
    expected = gdpo_loss(policy, policy_end, ref, ref_end, chosen=CHOSEN, mask=MASK)
    assert_close(gdpo_loss(*longer, chosen=CHOSEN, mask=mask), expected, **EXACT)


def test_it_computes_on_its_arguments_device_whatever_the_default_is() -> None:
    arguments, expected = four(), gdpo_loss(*four(), chosen=CHOSEN, mask=MASK)
    with torch.device("meta"):
        loss = gdpo_loss(*arguments, chosen=CHOSEN, mask=MASK)
    assert torch.equal(loss, expected)


def test_an_empty_response_has_no_flow_to_balance() -> None:
    mask = MASK.clone()
    mask[2] = False
    expected = gdpo_loss(*[t[:2] for t in four()], chosen=CHOSEN[:2], mask=mask[:2]) * 2 / 3
    assert_close(gdpo_loss(*four(), chosen=CHOSEN, mask=mask), expected, **EXACT)


@pytest.mark.parametrize(
    ("place", "shape", "message"),
    [
        (0, (B,), r"what mask is for: expected \[B, L\], got \[3\]"),
        (1, (B, L), r"eos_log_prob: expected \[B, L \+ 1\] = \[3, 5\], got \[3, 4\]"),
        (2, (B, 1), r"ref_log_prob: expected \[B, L\] = \[3, 4\], got \[3, 1\]"),
        (3, (B, 1), r"ref_eos_log_prob: expected \[B, L \+ 1\] = \[3, 5\], got \[3, 1\]"),
    ],
)
def test_shapes_that_would_broadcast_are_refused(place: int, shape: tuple[int, ...], message: str) -> None:
    arguments = four()
    arguments[place] = torch.zeros(shape)
    with pytest.raises(ShapeError, match=message):
        gdpo_loss(*arguments, chosen=CHOSEN, mask=MASK)


def test_labels_are_booleans_one_a_response() -> None:
    with pytest.raises(ConfigError, match=r"chosen: expected booleans, got torch.int64"):
        gdpo_loss(*four(), chosen=CHOSEN.long(), mask=MASK)
    with pytest.raises(ShapeError, match=r"chosen: expected \[B\] = \[3\], got \[3, 1\]"):
        gdpo_loss(*four(), chosen=CHOSEN[:, None], mask=MASK)
