"""The embedded generator of sounds, loaded as any other: it knows its prompts, and its latents carry its sounds."""

from functools import cache

import pytest
import torch

from mmalign.adapters.audio import AudioAdapter
from mmalign.adapters.loading import load_adapter
from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.cards import load_reward
from mmalign.worlds import tones

RATE_HZ, LENGTH = 8_000, 10_240


@cache
def adapter() -> AudioAdapter:
    loaded = load_adapter("embedded/tones")
    assert isinstance(loaded, AudioAdapter)
    return loaded


def truth(sounds: list[Audio], prompts: list[str]) -> float:
    samples = [Sample(prompt, sound) for prompt, sound in zip(prompts, sounds, strict=True)]
    return float(load_reward("tones-truth").score(samples).value.mean())


def test_it_verifies_itself_at_load() -> None:
    assert adapter().generator.checks
    assert max(adapter().generator.checks.values()) < 1e-3
    assert adapter().sample_rate_hz == RATE_HZ
    assert adapter().generator.media_shape == (1, LENGTH)


def test_a_sample_depends_on_its_seed_alone() -> None:
    prompts = ["two high noises", "one low tone, then one high noise"]
    together = adapter().generate(prompts, seeds=[3, 4], steps=4, guidance=1.0)
    (alone,) = adapter().generate(prompts[1:], seeds=[4], steps=4, guidance=1.0)
    assert together[1].sample_rate_hz == RATE_HZ
    assert together[1].waveform.shape == (1, LENGTH)
    torch.testing.assert_close(together[1].waveform, alone.waveform, atol=1e-4, rtol=0)
    assert (together[0].waveform - together[1].waveform).abs().max() > 0.05


def test_latents_carry_what_a_sound_says() -> None:
    scenes = tones.all_scenes("heldout")[::8]
    prompts = [tones.caption(scene) for scene in scenes]
    waves = tones.render(scenes, torch.Generator().manual_seed(0))
    sounds = [Audio(wave[None].clamp(-1, 1), tones.SAMPLE_RATE_HZ).resampled(RATE_HZ) for wave in waves]
    latents = adapter().encode(sounds)
    assert len(latents) == len(scenes)
    assert truth(adapter().decode(latents), prompts) > 0.95
    assert truth(adapter().decode(latents.roll(3, 0)), prompts) < 0.7


def test_guidance_makes_it_follow_its_prompts_more() -> None:
    prompts = [tones.caption(scene) for scene in tones.all_scenes("heldout")[::2]][:48]
    plain, guided = (
        truth(adapter().generate(prompts, seeds=range(len(prompts)), steps=8, guidance=scale), prompts)
        for scale in (1.0, 3.0)
    )
    assert guided > plain + 0.05


def test_sounds_in_another_unit_are_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match="sample_rate_hz = 16000, but this generator makes 8000"):
        adapter().encode([Audio(torch.zeros(1, 16_000), 16_000)])
    with pytest.raises(ConfigError, match=r"shape \[1, 10240\], and one to learn from has \[2, 10240\]"):
        adapter().encode([Audio(torch.zeros(2, LENGTH), RATE_HZ)])
    with pytest.raises(ConfigError, match=r"shape \[1, 10240\], and one to learn from has \[1, 400\]"):
        adapter().encode([Audio(torch.zeros(1, 400), RATE_HZ)])
    with pytest.raises(ShapeError, match=r"expected \[C, N\], none of them 0"):
        Audio(torch.zeros(1, 0), RATE_HZ)
