"""The embedded generator of videos, loaded as any other: it knows its prompts, and its latents carry its videos."""

from functools import cache

import pytest
import torch

from mmalign.adapters.loading import load_adapter
from mmalign.adapters.video import VideoAdapter
from mmalign.errors import ConfigError
from mmalign.media import Sample, Video
from mmalign.rewards.cards import load_reward
from mmalign.worlds import moving_shapes


@cache
def adapter() -> VideoAdapter:
    loaded = load_adapter("embedded/shapes-video")
    assert isinstance(loaded, VideoAdapter)
    return loaded


def test_it_verifies_itself_at_load() -> None:
    assert adapter().generator.checks
    assert max(adapter().generator.checks.values()) < 1e-3


def test_a_sample_depends_on_its_seed_alone() -> None:
    prompts = ["a red star moving up slowly", "one blue square, quickly moving to the left"]
    together = adapter().generate(prompts, seeds=[3, 4], steps=4, guidance=1.0)
    (alone,) = adapter().generate(prompts[1:], seeds=[4], steps=4, guidance=1.0)
    assert together[1].frames.shape == (9, 3, 32, 32)
    assert together[1].fps == 8.0
    torch.testing.assert_close(together[1].frames, alone.frames, atol=1 / 255, rtol=0)
    assert (together[0].frames - together[1].frames).abs().max() > 0.1


def test_latents_carry_what_a_video_shows() -> None:
    random = torch.Generator().manual_seed(0)
    scenes = moving_shapes.all_scenes("heldout")[::3]
    videos = moving_shapes.videos(scenes, random, side_px=32)
    latents = adapter().encode(videos)
    assert latents.shape == (len(scenes), 12, 48)
    assert float(truth(adapter().decode(latents), scenes).mean()) > 0.75
    other = truth(adapter().decode(latents.roll(5, 0)), scenes)
    assert float(other.mean()) < 0.6


def test_guidance_makes_it_follow_its_prompts_more() -> None:
    scenes = moving_shapes.all_scenes("heldout")
    prompts = [moving_shapes.caption(scene) for scene in scenes]
    plain, guided = (
        truth(adapter().generate(prompts, seeds=range(len(prompts)), steps=8, guidance=g), scenes)
        for g in (1.0, 3.0)
    )
    assert float(guided.mean()) > float(plain.mean()) + 0.03


def truth(videos: list[Video], scenes: list[moving_shapes.MovingShape]) -> torch.Tensor:
    samples = [Sample(moving_shapes.caption(s), v) for s, v in zip(scenes, videos, strict=True)]
    return load_reward("shapes-video-truth").score(samples).value


def test_a_video_at_another_rate_is_refused() -> None:
    with pytest.raises(ConfigError, match="fps = 25, but this generator makes 8 frames per second"):
        adapter().encode([Video(torch.zeros(9, 3, 32, 32), 25.0)])
