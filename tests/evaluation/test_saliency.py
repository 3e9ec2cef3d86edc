import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.evaluation.saliency import (
    map_correlation,
    map_divergence,
    map_similarity,
    pointing_game,
    scanpath_saliency,
)

B, H, W = 3, 5, 7


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_pointing_by_hand() -> None:
    heat = torch.zeros(4, H, W)
    heat[:, 2, 3] = 1
    heat[3, 0, 0] = float("nan")
    region = torch.zeros(4, H, W, dtype=torch.bool)
    region[0, 2, 3] = region[1, 4, 5] = region[3, 2, 3] = True
    exact, near = pointing_game(heat, region), pointing_game(heat, region, tolerance=2.9)
    assert exact[:2].tolist() == [1, 0]  # the second is sqrt(8) = 2.83 away
    assert near[:2].tolist() == [1, 1]
    assert exact[2:].isnan().all()


def test_a_random_map_points_as_often_as_the_region_is_large() -> None:
    region = torch.zeros(H, W, dtype=torch.bool)
    region[1:4, 2:6] = True
    hits = pointing_game(gaussian(2000, H, W), region.expand(2000, H, W))
    assert hits.mean().item() == pytest.approx(12 / 35, abs=0.03)


def test_pointing_sees_only_where_the_map_is_hottest() -> None:
    heat, region = gaussian(B, H, W), gaussian(B, H, W, seed=1) > 0.5
    assert torch.equal(pointing_game(heat.exp() * 7, region), pointing_game(heat, region))


def test_a_map_against_itself() -> None:
    p = gaussian(B, H, W).exp()
    one = torch.ones(B, dtype=torch.float64)
    assert_close(map_similarity(p, 3 * p), one)
    assert_close(map_divergence(p, 3 * p), 0 * one, rtol=0, atol=1e-12)
    assert_close(map_correlation(p, 3 * p - 2), one)
    assert_close(map_correlation(p, -p), -one)


def test_against_torchs_own() -> None:
    p, q = gaussian(B, H, W).exp(), gaussian(B, H, W, seed=1).exp()
    for b in range(B):
        both = torch.stack([p[b].flatten(), q[b].flatten()])
        assert_close(map_correlation(p, q)[b], torch.corrcoef(both)[0, 1])
        share = both / both.sum(1, keepdim=True)
        divergence = torch.nn.functional.kl_div(share[0].log(), share[1], reduction="sum")
        assert_close(map_divergence(p, q)[b], divergence, rtol=1e-8, atol=1e-8)
        assert_close(map_similarity(p, q)[b], 1 - (share[0] - share[1]).abs().sum() / 2)


def test_scanpath_saliency_by_hand() -> None:
    heat = torch.tensor([[1.0, 2.0, 3.0, 6.0]], dtype=torch.float64)  # mean 3, variance 14 / 4
    region = torch.tensor([[False, False, True, True]])
    assert_close(scanpath_saliency(heat, region).item(), (0 + 3) / 2 / 3.5**0.5)
    assert_close(scanpath_saliency(5 * heat - 3, region), scanpath_saliency(heat, region))


def test_what_says_nothing_is_nan() -> None:
    flat, p = torch.zeros(1, 4), torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    for found in (
        map_correlation(flat, p),
        map_similarity(p, flat),
        map_divergence(flat, p),
        scanpath_saliency(flat, ~nothing),
        scanpath_saliency(p, nothing),
    ):
        assert found.isnan().all()
    with pytest.raises(ConfigError, match="booleans"):
        pointing_game(p, p)
    with pytest.raises(ConfigError, match="at least 0"):
        map_similarity(-p, p)
    with pytest.raises(ShapeError, match="twice"):
        map_correlation(p, p[:, :2])
