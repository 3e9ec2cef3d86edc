import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError
from mmalign.losses import (
    annotator_log_likelihood,
    bradley_terry_fit,
    bradley_terry_loss,
    mixture_log_likelihood,
    pair_weights,
    responsibilities,
)
from tests.losses.drawing import EXACT, gaussian

N, U, R = 12, 3, 4
WHO = torch.arange(N) % R


def test_the_likelihood_of_an_annotator_is_the_plain_loop() -> None:
    gap = gaussian(N, U)
    found = annotator_log_likelihood(gap, WHO, annotators=R + 1)
    for h in range(R):
        for u in range(U):
            by_hand = -sum(math.log1p(math.exp(-gap[n, u].item())) for n in range(N) if n % R == h)
            assert_close(found[h, u].item(), by_hand)
    assert found[R].tolist() == [0] * U


def test_responsibilities_by_hand() -> None:
    likelihood = torch.tensor([[0.2, 0.6], [0.5, 0.5]], dtype=torch.float64).log()
    prior = torch.tensor([0.75, 0.25], dtype=torch.float64)
    soft = responsibilities(likelihood, prior)
    assert soft[0].tolist() == pytest.approx([0.5, 0.5])  # 0.15 against 0.15
    assert soft[1].tolist() == pytest.approx([0.75, 0.25])
    assert responsibilities(likelihood, hard=True).tolist() == [[0, 1], [1, 0]]
    assert_close(mixture_log_likelihood(likelihood, prior).item(), math.log(0.3) + math.log(0.5))


def test_with_one_group_all_is_bradley_terry() -> None:
    gap = gaussian(N, 1)
    likelihood = annotator_log_likelihood(gap, WHO, annotators=R)
    weight = pair_weights(responsibilities(likelihood), WHO)
    assert torch.equal(weight, torch.ones(N, 1, dtype=torch.float64))
    assert_close(bradley_terry_loss(gap, weight=weight), bradley_terry_loss(gap), **EXACT)
    assert_close(mixture_log_likelihood(likelihood), -N * bradley_terry_loss(gap), **EXACT)


def test_many_confident_pairs_do_not_underflow() -> None:
    assert responsibilities(torch.tensor([[-5000.0, -5001.0]]))[0].tolist() == pytest.approx(
        torch.tensor([1.0, 0.0]).softmax(0).tolist()
    )


def step(
    x: Tensor, who: Tensor, thetas: Tensor, prior: Tensor, annotators: int
) -> tuple[Tensor, Tensor, Tensor]:
    likelihood = annotator_log_likelihood(x @ thetas.mT, who, annotators=annotators)
    share = responsibilities(likelihood, prior)
    weight = pair_weights(share, who)
    fitted = torch.stack([bradley_terry_fit(x, weight=w, ridge=1e-9) for w in weight.unbind(1)])
    return share, fitted, share.mean(0)


def test_em_never_loses_likelihood_and_finds_two_opposite_groups() -> None:
    annotators, each, d = 20, 25, 3
    group = torch.arange(annotators) % 2
    who = torch.arange(annotators).repeat_interleave(each)
    taste = 2 * torch.tensor([1.0, -1.0], dtype=torch.float64)[group][who]
    x = gaussian(annotators * each, d)
    agrees = torch.sigmoid(taste * x[:, 0]) > torch.rand(
        len(x), dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    x = torch.where(agrees[:, None], x, -x)
    thetas, prior = 0.1 * gaussian(2, d, seed=2), torch.tensor([0.5, 0.5], dtype=torch.float64)
    values, share = [], prior
    for _ in range(15):
        values.append(
            mixture_log_likelihood(annotator_log_likelihood(x @ thetas.mT, who, annotators=20), prior)
        )
        share, thetas, prior = step(x, who, thetas, prior, annotators)
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(values))
    found = share.argmax(1)
    assert torch.equal(found, group) or torch.equal(found, 1 - group)
    assert F.cosine_similarity(thetas[0], thetas[1], dim=0) < -0.9


def test_what_cannot_be_meant_is_refused() -> None:
    gap = gaussian(N, U)
    with pytest.raises(ConfigError, match="annotator"):
        annotator_log_likelihood(gap, WHO, annotators=R - 1)
    with pytest.raises(ConfigError, match="prior"):
        responsibilities(gap, torch.ones(U))
    with pytest.raises(ConfigError, match="annotator"):
        pair_weights(gap, WHO - 1)
