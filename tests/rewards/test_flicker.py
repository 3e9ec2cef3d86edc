"""Flicker: 0 where nothing changes, by hand where something does."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mmalign.errors import ShapeError
from mmalign.media import Sample, Video
from mmalign.rewards.cards import load_reward
from mmalign.rewards.flicker import brightness_flicker, flicker


def levels(*values: float) -> Tensor:
    """[1, T, 3, 2, 4], frames of one grey each."""
    return torch.tensor(values)[None, :, None, None, None].expand(1, -1, 3, 2, 4)


def test_both_are_worked_by_hand() -> None:
    frames = levels(0.2, 0.5, 0.4, 0.4)
    assert_close(flicker(frames), torch.tensor([(0.3 + 0.1 + 0.0) / 3]))
    assert_close(brightness_flicker(frames), torch.tensor([(0.4 + 0.1) / 2]))
    assert_close(brightness_flicker(levels(0, 1, 0, 1)), torch.tensor([2.0]))


def test_a_still_video_has_none_and_a_steady_fade_has_one_kind_only() -> None:
    still = torch.rand(1, 1, 3, 8, 9, generator=torch.Generator().manual_seed(0)).expand(2, 5, 3, 8, 9)
    assert_close(flicker(still), torch.zeros(2), rtol=0, atol=0)
    assert_close(brightness_flicker(still), torch.zeros(2), rtol=0, atol=0)
    fade = levels(0.1, 0.2, 0.3, 0.4)
    assert_close(flicker(fade), torch.tensor([0.1]))
    assert_close(brightness_flicker(fade), torch.zeros(1), rtol=0, atol=1e-6)


def test_motion_that_keeps_the_brightness_is_no_flicker_of_it() -> None:
    picture = torch.rand(3, 8, 9, generator=torch.Generator().manual_seed(0))
    moving = torch.stack([picture.roll(step, 2) for step in range(5)])[None]
    assert flicker(moving).item() > 0.1
    assert brightness_flicker(moving).item() < 1e-6
    assert_close(flicker(moving.flip(1)), flicker(moving))


@pytest.mark.parametrize(("measure", "least"), [(flicker, 2), (brightness_flicker, 3)])
def test_too_few_frames_are_refused(measure: Callable[[Tensor], Tensor], least: int) -> None:
    with pytest.raises(ShapeError, match=f"T of at least {least}"):
        measure(torch.zeros(1, least - 1, 3, 4, 4))


def test_rewards_score_videos_of_any_length_by_their_own_frames() -> None:
    samples = [
        Sample("", Video(levels(*values)[0], 8.0)) for values in ((0.0, 0.5), (0.3,), (0.0, 0.2, 0.4, 0.4))
    ]
    score = load_reward("flicker").score(samples)
    assert score.status == ["ok", "the video has 1 frames; 2 are needed", "ok"]
    assert_close(score.value[[0, 2]], torch.tensor([0.5, 0.4 / 3]))
    score = load_reward("brightness-flicker").score(samples)
    assert score.status[:2] == [
        "the video has 2 frames; 3 are needed",
        "the video has 1 frames; 3 are needed",
    ]
    assert_close(score.value[2], torch.tensor(0.1))
