"""Heads on frozen vectors: what they see, how an ensemble is one number, and what cannot be."""

import pytest
import torch

from mmalign.errors import ConfigError, ShapeError, UnknownNameError
from mmalign.rewards.learned_heads import HeadOptions, Heads, joint_features

B, D = 7, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def features(seed: int = 1) -> torch.Tensor:
    return joint_features(*torch.randn(2, B, D, generator=generator(seed)))


def test_the_backbones_own_score_is_a_linear_head() -> None:
    media, prompts = torch.nn.functional.normalize(torch.randn(2, B, D, generator=generator()), dim=-1)
    weight = torch.cat([torch.zeros(2 * D), torch.ones(D)])
    torch.testing.assert_close(joint_features(media, prompts) @ weight, (media * prompts).sum(-1))
    with pytest.raises(ShapeError, match="prompts: expected"):
        joint_features(media, prompts[:, :2])


@pytest.mark.parametrize(
    "options",
    [
        HeadOptions(members=3),
        HeadOptions(members=3, hidden=(5,)),
        HeadOptions(members=3, hidden=(5, 6), shared_trunk=True),
        HeadOptions(members=3, hidden=(5,), keep=0.5, variance=True, aspects=("a", "b")),
    ],
)
def test_members_at_once_equal_each_in_turn(options: HeadOptions) -> None:
    heads = Heads(D, options, generator=generator())
    heads.standardise_inputs(features(5))
    x = features()
    means, log_variance = heads(x)
    assert means.shape == (3, B, len(options.aspects))
    for k in range(3):
        h = (x - heads.feature_mean) / heads.feature_std * heads.kept[k]
        for i, (weight, bias) in enumerate(zip(heads.weights, heads.biases, strict=True)):
            j = min(k, len(weight) - 1)
            h = (h.relu() if i else h) @ weight[j] + bias[j]
        torch.testing.assert_close(means[k], h[:, : len(options.aspects)])
        if log_variance is not None:
            torch.testing.assert_close(log_variance[k], h[:, len(options.aspects) :])


def test_an_offset_or_scale_of_a_member_changes_nothing_once_standardised() -> None:
    heads = Heads(D, HeadOptions(members=3), generator=generator())
    seen = features(2)
    heads.standardise_outputs(seen)
    before = heads.members(features())
    torch.testing.assert_close(heads.members(seen).mean(1), torch.zeros(3, 1), atol=1e-5, rtol=0)
    torch.testing.assert_close(heads.members(seen).std(1, correction=0), torch.ones(3, 1))
    with torch.no_grad():
        heads.weights[-1][1] *= 7.0
        heads.biases[-1][1] += 100.0
    heads.standardise_outputs(seen)
    torch.testing.assert_close(heads.members(features()), before, atol=1e-3, rtol=1e-3)


def test_a_feature_that_never_varied_stays_finite_and_what_a_member_does_not_see_does_not_count() -> None:
    heads = Heads(D, HeadOptions(members=2, keep=0.5), generator=generator())
    constant = features(3)
    constant[:, 0] = 0.25
    heads.standardise_inputs(constant)
    assert heads.feature_std[0] == 1
    assert heads.kept.sum(1).tolist() == [6, 6]
    assert not torch.equal(heads.kept[0], heads.kept[1])
    unseen = (heads.kept[0] == 0).float()
    torch.testing.assert_close(heads(features() + 9 * unseen)[0][0], heads(features())[0][0])
    assert not torch.allclose(heads(features() + 9 * unseen)[0][1], heads(features())[0][1])


def test_the_value_is_the_overall_aspect_or_the_mean() -> None:
    members = torch.tensor([[[1.0, 5.0]]])
    with_overall = Heads(D, HeadOptions(aspects=("colour", "overall")))
    without = Heads(D, HeadOptions(aspects=("colour", "kind")))
    assert with_overall.overall(members).item() == 5
    assert without.overall(members).item() == 3


def test_members_differ_and_a_seed_repeats_them() -> None:
    one, again = (Heads(D, HeadOptions(members=2), generator=generator(4)) for _ in range(2))
    assert torch.equal(one.weights[0], again.weights[0])
    assert not torch.equal(one.weights[0][0], one.weights[0][1])


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="shared_trunk needs hidden"):
        HeadOptions(shared_trunk=True)
    with pytest.raises(ConfigError, match="keep = 0"):
        HeadOptions(keep=0.0)
    with pytest.raises(ConfigError, match="different names"):
        HeadOptions(aspects=("a", "a"))
    with pytest.raises(UnknownNameError, match="Did you mean 'members'"):
        HeadOptions.read({"member": 3})
