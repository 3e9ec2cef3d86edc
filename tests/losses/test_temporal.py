import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.testing import assert_close

from mmalign.errors import ConfigError, ShapeError
from mmalign.losses import (
    attenuation_weights,
    instruct_video_loss,
    offset_noise,
    partial_chain_start,
    segment_frames,
)
from mmalign.sampling import Prediction, add_noise, alpha_sigma, ddim_step, scaled_linear_abar
from tests.losses.drawing import EXACT, gaussian


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Frames


@given(frames=st.integers(1, 40), share=st.floats(0, 1))
def test_each_segment_gives_one_frame_of_its_own(frames: int, share: float) -> None:
    segments = max(1, round(share * frames))
    drawn = segment_frames(frames, segments, count=20, generator=seeded())
    edges = torch.tensor([s * frames // segments for s in range(segments + 1)])
    assert drawn.shape == (20, segments)
    assert ((drawn >= edges[:-1]) & (drawn < edges[1:])).all()


def test_frames_of_a_segment_are_drawn_as_often() -> None:
    drawn = segment_frames(16, 4, count=4000, generator=seeded())
    counts = drawn.flatten().bincount()
    assert len(counts) == 16
    assert (counts - 1000).abs().max() < 137  # five standard deviations of a binomial count


def test_the_same_generator_draws_the_same_frames() -> None:
    drawn = [segment_frames(16, 4, count=9, generator=seeded()) for _ in range(2)]
    assert torch.equal(drawn[0], drawn[1])


def test_segments_of_uneven_length_leave_no_frame_out() -> None:
    assert segment_frames(5, 2, count=500, generator=seeded()).flatten().unique().tolist() == [0, 1, 2, 3, 4]


def test_frames_are_drawn_on_the_generators_device_whatever_the_default_is() -> None:
    with torch.device("meta"):
        drawn = segment_frames(16, 4, count=3, generator=seeded())
    assert torch.equal(drawn, segment_frames(16, 4, count=3, generator=seeded()))


@pytest.mark.parametrize("segments", [0, 5])
def test_more_segments_than_frames_are_refused(segments: int) -> None:
    with pytest.raises(ConfigError, match=f"segments = {segments}, but it is from 1 to the 4 frames"):
        segment_frames(4, segments, count=1, generator=seeded())


# Weights


def test_weights_fall_from_the_middle() -> None:
    weights = attenuation_weights(torch.arange(5), frames=5, decay=0.5)
    assert_close(weights, torch.tensor([math.exp(-1), math.exp(-0.5), 1.0, math.exp(-0.5), math.exp(-1)]))
    assert_close(attenuation_weights(torch.tensor([6]), frames=16).item(), math.exp(-2))
    assert torch.equal(attenuation_weights(torch.arange(16), frames=16, decay=0.0), torch.ones(16))


def test_the_expected_weight_of_each_segment_is_the_published_one() -> None:
    # Every frame of a segment is as likely, so the expectation is the mean over its four frames.
    weights = attenuation_weights(torch.arange(16).reshape(4, 4), frames=16)
    expected = torch.tensor([0.002616, 0.142829, 0.388250, 0.007111])
    assert_close(weights.mean(1), expected, rtol=0, atol=1e-6)
    # A constant score h gives 1 - 0.1352015 h.
    every = torch.full((1, 16), 0.5)
    assert_close(
        instruct_video_loss(every, weights.reshape(1, 16)).item(), 1 - 0.1352015 * 0.5, rtol=0, atol=1e-6
    )


def test_frames_and_decays_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"decay = -0\.1, but it is at least 0"):
        attenuation_weights(torch.arange(4), frames=4, decay=-0.1)
    for frame in (-1, 4):
        with pytest.raises(ConfigError, match="frame: expected 0 to 3, got"):
            attenuation_weights(torch.tensor([2, frame]), frames=4)


# The loss


def test_the_loss_worked_by_hand() -> None:
    reward = torch.tensor([[0.5, 1.0], [0.2, 0.4]])
    weight = torch.tensor([[1.0, 0.5], [0.5, 0.25]])
    assert_close(instruct_video_loss(reward, weight).item(), 1 - (0.5 + 0.5 + 0.1 + 0.1) / 4)
    assert_close(instruct_video_loss(reward, torch.ones(2, 2)), 1 - reward.mean())


def test_the_loss_refuses_what_would_broadcast() -> None:
    with pytest.raises(ShapeError, match=r"reward: expected \[B, S\], got \[3\]"):
        instruct_video_loss(torch.ones(3), torch.ones(3))
    with pytest.raises(ShapeError, match=r"weight: expected \[B, S\] = \[3, 4\], got \[3, 1\]"):
        instruct_video_loss(torch.ones(3, 4), torch.ones(3, 1))


# The chain that edits a clip


@pytest.mark.parametrize(
    ("steps", "share", "start"), [(20, 0.6, 8), (20, 1.0, 0), (10, 0.55, 5), (100, 0.29, 71), (100, 0.57, 43)]
)
def test_the_last_share_of_the_steps_runs(steps: int, share: float, start: int) -> None:
    assert partial_chain_start(steps, share=share) == start


def test_six_tenths_are_the_published_share() -> None:
    assert partial_chain_start(50) == 20


@pytest.mark.parametrize("share", [0.0, 0.04, -0.5, 1.01])
def test_a_share_that_runs_no_step_or_too_many_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=f"share = {share}, but of 20 steps it has to run at least one"):
        partial_chain_start(20, share=share)
    assert partial_chain_start(20, share=0.05) == 19


def test_a_perfect_denoiser_leads_the_chain_back_to_the_clip() -> None:
    # The grid 951, 901, ..., 1 with a last step to index 0, whose noise is left in the clip.
    abar = scaled_linear_abar()
    grid = [*range(951, 0, -50), 0]
    clean, noise = gaussian(1, 2, 3, 4, 4), gaussian(1, 2, 3, 4, 4, seed=1)
    start = partial_chain_start(20)
    assert grid[start] == 551
    alpha, sigma = alpha_sigma(abar[grid][:, None])
    x, calls = add_noise(clean, noise, alpha[start], sigma[start]), 0
    for step in range(start, 20):
        prediction = Prediction(x, noise, alpha[step], sigma[step], "epsilon")
        x, calls = ddim_step(prediction, alpha[step + 1], sigma[step + 1], eta=0.0).sample, calls + 1
    assert calls == 12
    assert_close(x, abar[0].sqrt() * clean + (1 - abar[0]).sqrt() * noise, rtol=1e-10, atol=1e-10)


def test_pixels_of_a_frame_share_the_offset() -> None:
    noise, offset = gaussian(2, 3, 4, 5, 6), gaussian(2, 3, 4, seed=1)
    shifted = offset_noise(noise, offset)
    for y in range(5):
        for x in range(6):
            assert_close(shifted[..., y, x] - noise[..., y, x], 0.1 * offset, **EXACT)
    assert_close(offset_noise(noise, offset, strength=0.5) - noise, 5 * (shifted - noise), **EXACT)
    with pytest.raises(ShapeError, match=r"noise: expected \[B, C, F, H, W\], got"):
        offset_noise(noise[0], offset[0])
    with pytest.raises(ShapeError, match=r"offset: expected \[B, C, F\] = \[2, 3, 4\], got \[2, 3, 1\]"):
        offset_noise(noise, offset[..., :1])
