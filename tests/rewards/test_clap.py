"""The CLAP scorer against transformers' ``ClapModel`` and its feature extractor."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, ClapFeatureExtractor, ClapModel

from mmalign.errors import ConfigError, ShapeError
from mmalign.media import Audio, Sample
from mmalign.rewards.clap import ClapReward, cut_into_windows
from tests.rewards import small_models
from tests.rewards.factories import FACTORIES, load_small, small_card

RATE = small_models.CLAP_RATE_HZ
PROMPTS = ["a low tone", "white noise", "a bell"]


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> ClapReward:
    loaded = FACTORIES["clap-laion-htsat-unfused"](tmp_path_factory.mktemp("clap"))
    assert isinstance(loaded, ClapReward)
    return loaded


def noise(samples: int, seed: int, channels: int = 1) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    time = torch.arange(samples) / RATE
    tone = torch.sin(2 * torch.pi * 300 * (seed + 1) * time)
    return 0.4 * tone + 0.1 * torch.randn(channels, samples, generator=random)


def sounds(*lengths: int) -> list[Sample]:
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    return [Sample(p, Audio(wave, RATE)) for p, wave in zip(PROMPTS, waves, strict=False)]


def waveform(sample: Sample) -> Tensor:
    assert isinstance(sample.media, Audio)
    return sample.media.waveform


def extractor_of(reward: ClapReward) -> ClapFeatureExtractor:
    return ClapFeatureExtractor.from_pretrained(reward.card.weights_folder(), local_files_only=True)


@pytest.mark.parametrize("seconds", [0.31, 0.5, 1.0])
def test_the_spectrogram_is_transformers_own(reward: ClapReward, seconds: float) -> None:
    wave = noise(int(seconds * RATE), 1)
    features = extractor_of(reward)(wave[0].numpy(), sampling_rate=RATE, return_tensors="pt")
    expected = features["input_features"][0]
    windows, _ = cut_into_windows(wave, length=reward.window)
    torch.testing.assert_close(reward.log_mel(windows[0]), expected.float(), atol=2e-3, rtol=1e-4)


def test_the_score_is_the_cosine_of_clap_model(reward: ClapReward) -> None:
    scored = sounds(2_500, 4_000, 8_000)
    folder = reward.card.weights_folder()
    model = ClapModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = AutoTokenizer.from_pretrained(folder)(PROMPTS, padding=True, return_tensors="pt")
    waves = [waveform(sample)[0].numpy() for sample in scored]
    features = extractor_of(reward)(waves, sampling_rate=RATE, return_tensors="pt")
    with torch.no_grad():
        output = model(input_features=features["input_features"].float(), **tokens)
    expected = (output.audio_embeds * output.text_embeds).sum(-1)
    assert expected.std() > 0.01
    torch.testing.assert_close(reward.score(scored).value, expected, atol=1e-4, rtol=0)


def test_a_long_sound_is_the_mean_of_its_windows_each_for_its_share(reward: ClapReward) -> None:
    wave = noise(20_000, 0)
    parts = [Sample("a bell", Audio(part, RATE)) for part in wave.split(RATE, dim=-1)]
    expected = (reward.score(parts).value * torch.tensor([0.4, 0.4, 0.2])).sum()
    whole = [Sample("a bell", Audio(wave, RATE))] * 2
    found = reward.score(whole).value
    assert found[0] == found[1]
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("length", [1, 5, 6, 12, 13])
def test_windows_hold_the_sound_in_order(length: int) -> None:
    wave = torch.arange(1.0, length + 1)[None]
    windows, share = cut_into_windows(wave, length=6)
    assert share.sum().item() == pytest.approx(1)
    sizes = (share * length).round().int().tolist()
    assert torch.cat([w[:n] for w, n in zip(windows[0], sizes, strict=True)]).tolist() == wave[0].tolist()
    last, size = windows[0, -1], sizes[-1]
    repeats = 6 // size
    assert last[: repeats * size].tolist() == last[:size].repeat(repeats).tolist()
    assert not last[repeats * size :].any()


def test_channels_are_averaged_and_other_rates_resampled(reward: ClapReward) -> None:
    time = torch.arange(2 * RATE) / (2 * RATE)
    fine = 0.4 * torch.sin(2 * torch.pi * 440 * time)[None]
    coarse = 0.4 * torch.sin(2 * torch.pi * 440 * time[::2])[None]
    both = torch.cat([2 * coarse - 0.1, torch.full_like(coarse, 0.1)])
    sounds = [Audio(coarse, RATE), Audio(fine, 2 * RATE), Audio(both, RATE)]
    one, two, stereo = reward.score([Sample("a tone", sound) for sound in sounds]).value
    torch.testing.assert_close(one, two, atol=0.02, rtol=0)
    torch.testing.assert_close(one, stereo, atol=1e-3, rtol=0)


def test_gradients_reach_other_rates_and_every_window(reward: ClapReward) -> None:
    media = torch.cat([noise(24_000, 0), noise(24_000, 1)])[:, None].requires_grad_()
    value = reward.score_with_grad(media, [Sample("a"), Sample("b")], sample_rate_hz=2 * RATE)
    value[0].backward()
    assert media.grad is not None
    assert (media.grad[0, 0, 1000:].unflatten(0, (23, -1)).abs().sum(1) > 0).all()
    assert not media.grad[1].any()
    with pytest.raises(ShapeError, match=r"expected \[B, C, N\] with B = 1"):
        reward.score_with_grad(media, [Sample("a")])


def test_a_checkpoint_that_fuses_random_crops_is_refused(tmp_path: Path) -> None:
    folder = small_models.save_clap(tmp_path, fusion=True)
    with pytest.raises(ConfigError, match="fuses random crops of long sounds"):
        load_small(small_card("clap-laion-htsat-unfused", folder))


@pytest.mark.parametrize(("key", "value"), [("truncation", "fusion"), ("padding", "pad"), ("top_db", 80)])
def test_an_extractor_that_does_something_else_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    folder = small_models.save_clap(tmp_path)
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ConfigError, match=f"{key} = "):
        load_small(small_card("clap-laion-htsat-unfused", folder))


def test_the_score_is_the_product_of_its_vectors(reward: ClapReward) -> None:
    """What rewards are trained on is what this one scores by, of long sounds too."""
    scored = sounds(2_500, 4_000, 20_000)
    media = reward.media_vectors(scored)
    prompts = reward.prompt_vectors(PROMPTS)
    torch.testing.assert_close((media * prompts).sum(-1), reward.score(scored).value, atol=1e-5, rtol=1e-4)
    wave = waveform(scored[2])[None].requires_grad_()
    vector = reward.media_vectors_with_grad(wave)
    torch.testing.assert_close(vector.detach(), media[2:], atol=1e-5, rtol=1e-4)
    vector.sum().backward()
    assert wave.grad is not None
    assert bool(wave.grad.abs().sum() > 0)
