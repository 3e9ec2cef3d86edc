"""Motion of textures that are moved by known amounts."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.media import Sample, Video
from mmalign.rewards.cards import load_reward
from mmalign.rewards.motion import flow_and_texture, motion_smoothness, optical_flow

SIDE = 64


def texture() -> Tensor:
    """[1, 3, 192, 192], smooth noise."""
    coarse = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    return interpolate(coarse, size=(192, 192), mode="bicubic", align_corners=False).clamp(0, 1)


def moving(*places: tuple[float, float]) -> Tensor:
    """[T, 3, 64, 64]: a window on the texture, whose content has moved by (right, down) pixels."""
    steps = torch.arange(SIDE) + 0.5
    frames = []
    for right, down in places:
        y, x = torch.meshgrid(64 + steps - down, 64 + steps - right, indexing="ij")
        grid = torch.stack([x, y], dim=-1)[None] / 96 - 1
        frames.append(grid_sample(texture(), grid, mode="bilinear", align_corners=False)[0])
    return torch.stack(frames)


@pytest.mark.parametrize("shift", [(0.3, 0.0), (0.0, -1.7), (4.0, 3.0), (-9.0, 2.5)])
def test_flow_is_the_shift(shift: tuple[float, float]) -> None:
    first, second = moving((0.0, 0.0), shift).mean(1)
    flow = optical_flow(first[None], second[None])[0, :, 12:-12, 12:-12]
    assert_close(flow.flatten(1).median(1).values, torch.tensor(shift), atol=0.05, rtol=0)


def test_nothing_moves_in_still_and_in_flat_pictures() -> None:
    still = moving((0.0, 0.0), (0.0, 0.0)).mean(1)
    assert optical_flow(still[:1], still[1:]).abs().max() < 1e-4
    flat = torch.full((2, 20, 20), 0.5)
    flat[1] += 0.1
    assert optical_flow(flat[:1], flat[1:]).abs().max() < 1e-4


def test_amount_is_heights_per_second_whatever_the_size_and_the_rate() -> None:
    frames = moving(*[(2.0 * step, 0.0) for step in range(4)])
    large = interpolate(frames, scale_factor=3, mode="bilinear")
    samples = [Sample("", Video(frames, 8.0)), Sample("", Video(frames, 16.0)), Sample("", Video(large, 8.0))]
    value = load_reward("motion-amount").score(samples).value
    expected = 2 * 8 / SIDE
    assert_close(value, torch.tensor([expected, 2 * expected, expected]), rtol=0.1, atol=0)


def test_amount_grows_with_speed_and_is_nothing_where_nothing_moves() -> None:
    videos = [moving(*[(speed * step, 0.0) for step in range(3)]) for speed in (0.0, 0.5, 1.0, 3.0)]
    value = load_reward("motion-amount").score([Sample("", Video(frames, 8.0)) for frames in videos]).value
    assert value[0] < 1e-5
    assert value.tolist() == sorted(value.tolist())
    assert value[3] > 2.5 * value[2]


def test_smoothness_is_one_for_steady_motion_and_nought_for_a_shake() -> None:
    steady = moving(*[(1.5 * step, -step) for step in range(5)])
    shaking = moving((0, 0), (2, 0), (0, 0), (2, 0), (0, 0))
    turning = moving((0, 0), (2, 0), (2, 2), (0, 2), (0, 0))  # a right angle each time: 1 - sqrt(2) / 2
    reward = load_reward("motion-smoothness")
    value = reward.score([Sample("", Video(frames, 8.0)) for frames in (steady, shaking, turning)]).value
    assert value[0] > 0.95
    assert value[1] < 0.05
    assert value[2].item() == pytest.approx(1 - math.sqrt(2) / 2, abs=0.05)


def test_smoothness_is_worked_by_hand() -> None:
    flow = torch.zeros(3, 2, 1, 2)
    flow[:, 0] = torch.tensor([[1.0, 2.0], [1.0, 4.0], [3.0, 4.0]])[:, None]  # two places, three times
    weight = torch.tensor([1.0, 0.5]).expand(3, 1, 2)
    change, total = (0 + 2) + 0.5 * (2 + 0), (2 + 4) + 0.5 * (6 + 8)
    assert motion_smoothness(flow, weight) == pytest.approx(1 - change / total)


def test_flat_places_do_not_count() -> None:
    frames = torch.zeros(3, 3, SIDE, SIDE)
    frames[..., 32:] = moving((0, 0), (1, 0), (2, 0))[..., 32:]
    flow, weight = flow_and_texture(frames)
    assert weight[..., :24].max() == 0
    assert (weight * flow.norm(dim=1)).mean().item() == pytest.approx(1.0, abs=0.3)


def test_what_has_no_motion_to_measure_is_a_status() -> None:
    still, small = moving((0, 0), (0, 0), (0, 0)), torch.rand(3, 3, 15, 40)
    score = load_reward("motion-smoothness").score(
        [Sample("", Video(frames, 8.0)) for frames in (still, still[:2], small, torch.zeros(3, 3, 20, 20))]
    )
    assert score.status == [
        "nothing moves",
        "the video has 2 frames; 3 are needed",
        "the video is 40x15; motion is found from 16x16 on",
        "nothing moves",
    ]
    with pytest.raises(ShapeError, match="H and W of at least 16"):
        optical_flow(torch.zeros(1, 15, 40), torch.zeros(1, 15, 40))
