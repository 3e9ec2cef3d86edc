"""What a token is drawn from."""

import math

import pytest
import torch
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.sampling.tokens import NEVER, TokenSampler, guided_logits, gumbel_noise

B, L, V = 2, 3, 7


def logits() -> torch.Tensor:
    return torch.randn(B, L, V, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "sampler",
    [TokenSampler(), TokenSampler(temperature=0.5), TokenSampler(top_k=3), TokenSampler(top_p=0.4)],
)
def test_probabilities_add_up_and_ignore_a_constant(sampler: TokenSampler) -> None:
    found = sampler.log_probs(logits())
    assert_close(found.exp().sum(-1), torch.ones(B, L, dtype=torch.float64))
    assert_close(sampler.log_probs(logits() + 5), found)
    if sampler.top_p == 1:  # its own distribution stays; a second top_p would cut again
        assert_close(sampler.log_probs(found * sampler.temperature), found)


def test_temperature_scales_differences() -> None:
    plain, cold = TokenSampler().log_probs(logits()), TokenSampler(temperature=0.5).log_probs(logits())
    assert_close(cold[..., 0] - cold[..., 1], 2 * (plain[..., 0] - plain[..., 1]))


@pytest.mark.parametrize("k", [1, 3, V, V + 5])
def test_top_k_keeps_the_k_likeliest(k: int) -> None:
    found = TokenSampler(top_k=k).log_probs(logits())
    kept = found > NEVER / 2
    assert (kept.sum(-1) == min(k, V)).all()
    least = logits().masked_fill(~kept, torch.inf).amin(-1)
    assert (logits().masked_fill(kept, -torch.inf).amax(-1) < least).all()


def test_top_p_keeps_the_fewest_that_hold_the_share() -> None:
    share = torch.tensor([0.1, 0.4, 0.2, 0.3])
    for top_p, kept in ((0.1, [1]), (0.4, [1]), (0.41, [1, 3]), (0.75, [1, 2, 3]), (0.95, [0, 1, 2, 3])):
        found = TokenSampler(top_p=top_p).log_probs(share.log()).exp()
        assert found.nonzero()[:, 0].tolist() == kept
        assert_close(found[kept], share[kept] / share[kept].sum())


def test_a_share_that_is_reached_exactly_needs_no_more_tokens_and_the_first_of_equals_stay() -> None:
    # A sort that is not asked to be stable keeps up to 16 equal entries in order, and no more.
    found = TokenSampler(top_p=0.5).log_probs(torch.zeros(64))
    assert (found > NEVER / 2).nonzero()[:, 0].tolist() == list(range(32))


def test_the_whole_share_keeps_even_what_rounds_to_nothing() -> None:
    # The first holds 1 - 4e-18, in float32 all of it.
    assert_close(TokenSampler().log_probs(torch.tensor([0.0, -40.0])), torch.tensor([0.0, -40.0]))


def test_half_precision_is_computed_in_float32() -> None:
    found = TokenSampler().log_probs(torch.tensor([0.0, 1.0], dtype=torch.bfloat16))
    assert_close(found, torch.tensor([0.0, 1.0]).log_softmax(-1))


def test_gradient_is_that_of_the_kept_tokens() -> None:
    leaf = logits()[0, 0].requires_grad_()
    found = TokenSampler(top_k=3, temperature=2.0).log_probs(leaf)
    kept = (found > NEVER / 2).nonzero()[:, 0]
    found[kept[0]].backward()
    expected = -found[kept].detach().exp()
    expected[0] += 1
    assert leaf.grad is not None
    assert_close(leaf.grad[kept], expected / 2)
    assert leaf.grad.count_nonzero() == 3


def test_settings_outside_their_range_are_refused() -> None:
    for settings, words in (
        ({"temperature": 0.0}, "temperature = 0.0"),
        ({"temperature": math.inf}, "temperature = inf"),
        ({"top_k": 0}, "top_k = 0"),
        ({"top_p": 0.0}, r"expected a share in \(0, 1\]"),
        ({"top_p": 1.1}, "top_p = 1.1"),
    ):
        with pytest.raises(ConfigError, match=words):
            TokenSampler(**settings)
    assert not TokenSampler(temperature=2.0).filters
    assert TokenSampler(top_p=0.9).filters
    assert TokenSampler(top_k=9).filters


def test_guidance_has_two_ends() -> None:
    one, other = logits(), logits().flip(0)
    assert (guided_logits(one, other, 1.0) == one).all()
    assert_close(guided_logits(one, other, 0.0), other)
    assert_close(guided_logits(one, other, 3.0), other + 3 * (one - other))
    with pytest.raises(ShapeError, match="unconditional"):
        guided_logits(one, other[:1], 2.0)


def test_noise_is_each_rows_own_and_makes_samples() -> None:
    def noise(*seeds: int) -> torch.Tensor:
        return gumbel_noise([4], generators=[torch.Generator().manual_seed(s) for s in seeds])

    assert (noise(1, 2, 3)[2] == noise(3)[0]).all()
    many = gumbel_noise([20_000, 3], generators=[torch.Generator().manual_seed(0)])[0]
    assert_close(float(many.mean()), 0.5772, atol=0.02, rtol=0)  # Euler's constant
    probability = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    share = (many + probability.log()).argmax(-1).bincount() / len(many)
    assert (share - probability).abs().max() < 4.5 * (0.25 / len(many)) ** 0.5


def test_noise_is_in_double_precision() -> None:
    assert gumbel_noise([4], generators=[torch.Generator().manual_seed(0)]).dtype == torch.float64
